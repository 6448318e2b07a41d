"""Features of a checkpoint as the vectors of tools/dedup.py."""

import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from big_vision_like.inference.embedder import Embedder
from big_vision_like.protocols import Source

from . import workers
from .signatures import Vectors


class Mirrored:
  """A source whose images are mirrored."""

  def __init__(self, source: Source):
    self._source = source
    self.vocabulary = source.vocabulary
    self.hierarchy = source.hierarchy

  def __len__(self) -> int:
    return len(self._source)

  def __getitem__(self, index: int) -> dict[str, Any]:
    image = workers.read_image(self._source, index, None)
    mirrored = np.ascontiguousarray(image[:, ::-1])
    return {**self._source[index], 'image': mirrored}

  def key(self, index: int) -> str:
    """Name of the record."""
    return self._source.key(index)

  def fingerprint(self) -> str:
    """Not that of the images as they are."""
    return f'{self._source.fingerprint()}|mirrored'


def vectors(
  checkpoint: str,
  sources: Sequence[Source],
  *,
  trusted: bool = False,
  part: str | None = None,
) -> Vectors:
  """Vectors by the model of a checkpoint.

  Args:
    checkpoint: workdir of a run, or the folder of one checkpoint.
    sources: the sets of the call.
    trusted: whether the checkpoint may name modules of others.
    part: of a joint task; None of other tasks.

  Raises:
    FileNotFoundError, ValueError: no checkpoint there that gives features.
  """
  embedder = Embedder(checkpoint, trusted=trusted, part=part)

  def embed(
    set_index: int, rows: np.ndarray, mirrored: bool
  ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    source = sources[set_index]
    yield from embedder.embed(Mirrored(source) if mirrored else source, rows)

  path = os.path.realpath(embedder.path)
  name = f'{path} {os.stat(path).st_mtime_ns} {embedder.ops}'
  if part:  # batch statistics may be its own
    name = f'{name} {part}'
  return Vectors('model', embedder.dim, name=name, embed=embed)
