"""Labelled image files: what the folder and the table source have in common.

Paths are kept as one block of bytes with offsets and labels as CSR, so that a
million images take tens of megabytes and travel to data workers quickly. Files
are opened when they are asked for, never listed or checked here.
"""

import errno
import hashlib
import os
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from big_vision_like.hierarchy import Hierarchy
from big_vision_like.vocabulary import Vocabulary
from input_pipeline.errors import BadExample

MAX_IMAGE_BYTES = 1 << 28
_FAULTS_OF_THE_RECORD = (
  errno.ENOENT,
  errno.EACCES,
  errno.EPERM,
  errno.EISDIR,
  errno.ENOTDIR,
  errno.ENAMETOOLONG,
  errno.ELOOP,
)


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
    """
    self.vocabulary = vocabulary
    self.hierarchy = hierarchy
    self._root = os.fsencode(root)
    self._paths = b''.join(paths)
    lengths = np.fromiter(map(len, paths), np.int64, len(paths))
    self._path_ends = np.concatenate([[0], np.cumsum(lengths)])
    pairs = np.asarray(rows, np.int64) * len(vocabulary) + labels
    owner, ids = np.divmod(sorted_unique(pairs), len(vocabulary))
    counts = np.bincount(owner, minlength=len(paths))
    self._label_ends = np.concatenate([[0], np.cumsum(counts)])
    self._labels = ids.astype(np.int32)
    self._labels.setflags(write=False)

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
    return self._labels[self._label_ends[index] : self._label_ends[index + 1]]

  def label_index(self) -> tuple[np.ndarray, np.ndarray]:
    """Labels of all images: where each one's end, int64 [n]; int32 [m]."""
    return self._label_ends[1:], self._labels

  def key(self, index: int) -> str:
    """Path of the image, relative to the root."""
    return self._path(index).decode('utf-8', 'backslashreplace')

  def fingerprint(self) -> str:
    """16 hex digits of names, order, labels and hierarchy.

    Image files are not opened: one replaced under its old name is not seen.
    """
    return digest(
      (self._paths, self._path_ends, self._labels, self._label_ends),
      self.vocabulary,
      self.hierarchy,
    )


def sorted_unique(values: np.ndarray) -> np.ndarray:
  """np.unique for nearly sorted integers, several times faster."""
  values = np.sort(values, kind='stable')
  return values[np.diff(values, prepend=values[:1] - 1) != 0]


def read_image(path: bytes) -> bytes:
  """The whole file; BadExample if it is missing, unreadable or too large.

  Other errors of the storage are not the record's fault and pass through.
  """
  try:
    with open(path, 'rb') as file:
      data = file.read(MAX_IMAGE_BYTES + 1)
  except OSError as error:
    if error.errno not in _FAULTS_OF_THE_RECORD:
      raise
    raise BadExample(f'cannot be opened: {error.strerror}') from None
  if len(data) > MAX_IMAGE_BYTES:
    raise BadExample(f'larger than {MAX_IMAGE_BYTES:,} bytes')
  return data


def digest(
  parts: Iterable[bytes | np.ndarray],
  vocabulary: Vocabulary,
  hierarchy: Hierarchy | None,
) -> str:
  """16 hex digits of a data set's parts, its label names and its hierarchy."""
  state = hashlib.blake2b(digest_size=8)
  closure = () if hierarchy is None else (hierarchy.indptr, hierarchy.ancestors)
  for part in (*parts, *closure):
    data = part if isinstance(part, bytes) else part.tobytes()
    state.update(len(data).to_bytes(8, 'little'))
    state.update(data)
  state.update(vocabulary.fingerprint().encode())
  return state.hexdigest()


def held_out(path: bytes, percent: float) -> bool:
  """Whether an image belongs to the held-out part: a function of its path.

  Adding or removing other images never moves it to the other side.
  """
  number = int.from_bytes(hashlib.blake2b(path, digest_size=8).digest())
  return number < percent / 100 * 2**64


def check_holdout(percent: Any, split: str) -> None:
  """Checks `holdout_percent` and the split it makes.

  Raises:
    ValueError: not a number between 0 and 100, or an unknown split.
  """
  number = isinstance(percent, int | float) and not isinstance(percent, bool)
  if not number or not 0 < percent < 100:
    raise ValueError(
      f'holdout_percent must be above 0 and below 100, got {percent!r}'
    )
  if split not in ('train', 'val', 'all'):
    raise ValueError(
      f'unknown split {split!r}; valid with holdout_percent: train, val, all'
    )


def check_path(name: str, value: Any) -> str:
  """An option that must be a path: a non-empty string, used literally."""
  if not isinstance(value, str | os.PathLike) or not os.fspath(value):
    raise ValueError(f'{name} must be a path, got {value!r}')
  path = os.fspath(value)
  if not isinstance(path, str) or '\0' in path:
    raise ValueError(f'{name} must be a path without NUL, got {value!r}')
  return path
