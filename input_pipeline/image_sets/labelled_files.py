"""Labelled image files: what the folder and the table source have in common.

Paths are kept as one block of bytes with offsets and labels as `Ragged`, so
that a million images take tens of megabytes and travel to data workers quickly.
Files are opened when they are asked for, never listed or checked here.
"""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from input_pipeline.files.image_files import read_image
from input_pipeline.image_sets import fingerprint
from input_pipeline.labels import ragged
from input_pipeline.labels.hierarchy import Hierarchy
from input_pipeline.labels.ragged import Ragged
from input_pipeline.labels.vocabulary import Vocabulary


class LabelledFiles:
  """A source over image files; see docs/data.md for the protocol.

  Attributes:
    vocabulary: the labels.
    hierarchy: ancestors of each label, or None.
  """

  vocabulary: Vocabulary
  hierarchy: Hierarchy | None

  def __init__(
    self,
    root: str,
    paths: Sequence[bytes],
    rows: np.ndarray,
    labels: np.ndarray,
    vocabulary: Vocabulary,
    hierarchy: Hierarchy | None,
    seen: fingerprint.Seen = 'names',
  ):
    """Takes the images in the order given.

    Args:
      root: folder the paths are relative to.
      paths: [n] relative paths, file system encoded.
      rows: integer [m], with `labels` pairs (image, label id) in any order;
        repeated pairs count once.
      labels: integer [m].
      vocabulary: the labels.
      hierarchy: ancestors of each label, or None.
      seen: what of the files the fingerprint tells.
    """
    self._seen: fingerprint.Seen = seen
    self.vocabulary = vocabulary
    self.hierarchy = hierarchy
    self._root = os.fsencode(root)
    self._paths = b''.join(paths)
    lengths = np.fromiter(map(len, paths), np.int64, len(paths))
    self._path_ends = ragged.ends_of(lengths)
    self._labels = Ragged.of_unique_pairs(
      rows, labels, len(paths), len(vocabulary)
    )
    self._labels.values.setflags(write=False)

  def __len__(self) -> int:
    return len(self._path_ends) - 1

  def _path(self, index: int) -> bytes:
    if not 0 <= index < len(self):
      raise IndexError(f'index {index} is not in 0..{len(self) - 1}')
    start, end = self._path_ends[index], self._path_ends[index + 1]
    return self._paths[start:end]

  def __getitem__(self, index: int) -> dict[str, Any]:
    """{'image': encoded bytes, 'labels': int32 [n] ascending ids}.

    Raises:
      BadExample: the file is missing, unreadable or absurdly large.
    """
    path = os.path.join(self._root, self._path(index))
    return {'image': read_image(path), 'labels': self.labels(index)}

  def labels(self, index: int) -> np.ndarray:
    """int32 [n] raw label ids of an image, without opening it."""
    if not 0 <= index < len(self):
      raise IndexError(f'index {index} is not in 0..{len(self) - 1}')
    return self._labels[index]

  def label_index(self) -> tuple[np.ndarray, np.ndarray]:
    """Labels of all images: where each one's end, int64 [n]; int32 [m]."""
    return self._labels.ends[1:], self._labels.values

  def key(self, index: int) -> str:
    """Path of the image, relative to the root."""
    return self._path(index).decode('utf-8', 'backslashreplace')

  def fingerprint(self) -> str:
    """16 hex digits of names, order, labels and hierarchy.

    Image files are not looked at unless the source was asked to: one replaced
    under its old name is seen by 'sizes' if it has another, by 'contents' in
    any case.
    """
    paths = [
      os.path.join(self._root, self._path(i))
      for i in range(len(self) if self._seen != 'names' else 0)
    ]
    states = fingerprint.states(paths, self._seen)
    return fingerprint.digest(
      (
        self._paths,
        self._path_ends,
        self._labels.values,
        self._labels.ends,
        *([states] if states else []),
      ),
      self.vocabulary,
      self.hierarchy,
    )
