"""Data sets as chunks: the units that signatures are stored and compared in.

A chunk is some consecutive records whose content has a name of its own: a shard
of a record data set is known by its checksum, so that a data set that has grown
keeps the signatures of its old shards. Other sources are cut into equal parts
and known by the source's fingerprint.
"""

import dataclasses
import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from big_vision_like.protocols import Source
from input_pipeline.prepared import manifest as manifests
from input_pipeline.sources import records


@dataclasses.dataclass(frozen=True)
class Chunk:
  """Records [start, stop) of a set.

  Attributes:
    set_index: which of the call's sets.
    start, stop: its records, in the set.
    content: digest of the records.
  """

  set_index: int
  start: int
  stop: int
  content: str

  def __len__(self) -> int:
    return self.stop - self.start


def chunks_of(source: Source, set_index: int, max_rows: int) -> list[Chunk]:
  """The chunks of a source, in order, none longer than `max_rows`."""
  parts: list[tuple[int, str]] = [(len(source), _fingerprint(source))]
  if isinstance(source, records.Source):
    shards = manifests.load(source.path).splits[source.split]
    parts = [
      (shard.records, f'{shard.name} {shard.sha256}') for shard in shards
    ]
  found, first = [], 0
  for num, name in parts:
    for low in range(0, num, max_rows):
      high = min(low + max_rows, num)
      content = digest(name, low, high)
      found.append(Chunk(set_index, first + low, first + high, content))
    first += num
  return found


def unique(chunks: Sequence[Chunk]) -> list[Chunk]:
  """The chunks, one that occurs again under another digest."""
  seen: dict[str, int] = {}
  out = []
  for chunk in chunks:
    times = seen.get(chunk.content, 0)
    seen[chunk.content] = times + 1
    if times:
      again = digest(chunk.content, times)
      chunk = dataclasses.replace(chunk, content=again)
    out.append(chunk)
  return out


def first_rows(chunks: Sequence[Chunk]) -> np.ndarray:
  """int64 [n]: number of records before each chunk."""
  return np.cumsum([0, *map(len, chunks)])[:-1]


def places(chunks: Sequence[Chunk], rows: np.ndarray) -> np.ndarray:
  """int64 [m]: one number for each record, the same in any list of chunks.

  Args:
    chunks: the list that the rows are counted over.
    rows: int64 [m].
  """
  first = first_rows(chunks)
  chunk = np.searchsorted(first, rows, side='right') - 1
  starts = np.array([c.start for c in chunks])
  sets = np.array([c.set_index for c in chunks])
  return (sets[chunk] << 48) + starts[chunk] + rows - first[chunk]


def digest(*parts: Any) -> str:
  """16 hex digits of texts and numbers."""
  text = '\n'.join(str(part) for part in parts)
  return hashlib.blake2b(
    text.encode('utf-8', 'surrogateescape'), digest_size=8
  ).hexdigest()


def _fingerprint(source: Source) -> str:
  return f'{source.fingerprint()} {len(source)}'
