"""A folder of feature maps: files, manifest, and what tells whether they fit.

    examples-00000-of-00004.array_record   records without their images
    maps-00000-of-00004.array_record       of each record its map, then that of
                                           its reflection where there is one
    images.npy       int64 [n, 5]  height and width of the stored image, of the
                                   map, and the image's number (-1: none)
    space.json       the labels (labels/space.py)
    bad_images.jsonl records that cannot be used, with the reason
    manifest.json    settings, shards, checksums
    progress.jsonl   until all is done: the settings, then a line a shard

A map is its numbers alone, [h, w, D] in the type of the settings, little-endian
(a bfloat16 is a uint16 of its bits); its place in the shard is its record's,
times the number of variants.
"""

import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

from array_record.python import array_record_module  # type: ignore[attr-defined]

from big_vision_like.config import json_text
from input_pipeline.files import atomic, retries
from input_pipeline.prepared import manifest as manifests
from input_pipeline.prepared import records

FORMAT = 'feature maps'
VERSION = 1
IMAGES, SPACE, BAD = 'images.npy', 'space.json', 'bad_images.jsonl'
NO_ID = -1


@dataclasses.dataclass(frozen=True)
class Shard:
  """Records [first, end) of the data: their two files."""

  first: int
  end: int
  files: tuple[manifests.File, ...]

  @classmethod
  def from_json(cls, entry: Mapping[str, Any]) -> 'Shard':
    """Of `dataclasses.asdict`."""
    files = tuple(manifests.File(**file) for file in entry['files'])
    return cls(entry['first'], entry['end'], files)

  def problem(self, folder: str) -> str | None:
    """How a file of it differs from what was written, None if none does."""
    for file in self.files:
      found = manifests.quick_problem(folder, file)
      if found is not None:
        return found
    return None


@dataclasses.dataclass(frozen=True)
class Manifest:
  """What a finished folder holds.

  Attributes:
    settings: what the maps follow from, see tools/embedding/map_extraction.py.
    shards: in the order of the records.
  """

  settings: Mapping[str, Any]
  shards: tuple[Shard, ...]

  def fingerprint(self) -> str:
    """16 hex digits of the settings and of all files."""
    sums = [file.sha256 for shard in self.shards for file in shard.files]
    text = json.dumps([self.settings, sums], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def names(number: int, num_shards: int) -> tuple[str, str]:
  """File names of the examples and of the maps of a shard."""
  of = f'{number:05d}-of-{num_shards:05d}.array_record'
  return f'examples-{of}', f'maps-{of}'


def write_maps(path: str, maps: Sequence[bytes]) -> None:
  """Writes the maps of a shard; on disk and under its name at the end.

  Raises:
    OSError: the file cannot be written.
  """
  retries.call(_write_maps, path, maps)


def _write_maps(path: str, maps: Sequence[bytes]) -> None:
  records.check_path(path)
  with atomic.renamed(path, unique=False) as temporary:
    writer = array_record_module.ArrayRecordWriter(
      temporary, 'group_size:1,uncompressed'
    )
    try:
      for one in maps:
        writer.write(one)
      writer.close()
    except RuntimeError as error:
      reason = str(error).split(';')[0]
      raise retries.from_message(reason, path) from None


def load(path: str) -> Manifest:
  """The manifest of a finished folder; its files are looked at.

  Raises:
    FileNotFoundError: no folder, or none that is finished.
    ValueError: another kind of folder, or files that are missing or differ.
  """
  file = os.path.join(path, manifests.FILE_NAME)
  if not os.path.isdir(path):
    raise FileNotFoundError(f'path={path!r}: no such folder')
  if not os.path.exists(file):
    raise FileNotFoundError(
      f'path={path!r} has no {manifests.FILE_NAME}: no feature maps, or not '
      'finished; repeat the command that began them'
    )
  try:
    with retries.open_binary(file) as text:
      content = json_text.parse(text.read())
    found = content['format'], content['version']
    if found != (FORMAT, VERSION):
      raise ValueError(f'format {found[0]!r} version {found[1]!r}')
    shards = tuple(map(Shard.from_json, content['shards']))
    read = Manifest(content['settings'], shards)
  except (KeyError, TypeError, ValueError) as error:
    raise ValueError(
      f'path={path!r}: {manifests.FILE_NAME} is not one of {FORMAT}: {error}'
    ) from None
  for shard in read.shards:
    problem = shard.problem(path)
    if problem is not None:
      raise ValueError(f'path={path!r}: {problem}')
  return read
