"""The label index of a prepared split: its labels as arrays beside the shards.

    train.labels.npy      int32 [m]  raw label ids, record after record
    train.label_ends.npy  int64 [n]  where the labels of record i end

They are memory-mapped: opening costs nothing, and all processes of a machine
share one copy in the page cache. 300M images with 375M labels (Sun et al. 2017,
section 3.1) take 2.4 + 1.5 GB on disk.

Shards are written in any order by many processes, so each leaves its labels in
a side file, SHARD.labels.npy: int32, the number of labels of each record, then
the labels. `join` makes the two arrays of them.
"""

import contextlib
import os
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from input_pipeline.files import atomic, numpy_files
from input_pipeline.labels import arrays as label_arrays

LABELS, ENDS = 'labels', 'label_ends'
_SIDE = '.labels.npy'


class Rows(NamedTuple):
  """Labels of some records: int64 [n] numbers of labels, int32 [m] labels."""

  counts: np.ndarray
  labels: np.ndarray


def file_name(split: str, kind: str) -> str:
  """'train.labels.npy' or 'train.label_ends.npy'."""
  return f'{split}.{kind}.npy'


def side_path(folder: str, shard: str) -> str:
  """Side file of a shard while the data set is being prepared."""
  return os.path.join(folder, f'{shard}{_SIDE}')


def write_side(path: str, labels: Sequence[np.ndarray]) -> int:
  """Writes the labels of a shard's records; returns how many there are."""
  counts = np.array([len(ids) for ids in labels], np.int32)
  content = np.concatenate([counts, *labels]).astype(np.int32)
  with open(path, 'wb') as file:
    np.save(file, content, allow_pickle=False)
  return int(counts.sum())


def side_is_whole(path: str, num_records: int, num_labels: int) -> bool:
  """Whether a side file holds so many records and labels."""
  try:
    content = numpy_files.mapped(path)
  except (OSError, ValueError):
    return False
  return content.shape == (num_records + num_labels,)


def read_side(path: str, num_records: int) -> Rows:
  """The content of a side file."""
  content = numpy_files.read(path)
  counts = content[:num_records].astype(np.int64)
  return Rows(counts, content[num_records:])


def remove_sides(folder: str) -> None:
  """Removes the side files of a data set whose index is written."""
  for name in os.listdir(folder):
    if name.endswith(f'.array_record{_SIDE}'):
      os.unlink(os.path.join(folder, name))


def join(
  folder: str,
  split: str,
  parts: Iterable[Rows],
  num_records: int,
  num_labels: int,
) -> dict[str, str]:
  """Writes the arrays of a split from those of its shards, in their order.

  Returns:
    kind ('labels', 'label_ends') -> name of the file in the folder.
  """
  names = {kind: file_name(split, kind) for kind in (LABELS, ENDS)}
  paths = [os.path.join(folder, name) for name in names.values()]
  shapes = (num_labels, np.int32), (num_records, np.int64)
  with contextlib.ExitStack() as stack:
    labels, ends = (
      np.lib.format.open_memmap(
        stack.enter_context(atomic.renamed(path, unique=False)),
        'w+', dtype, (length,),
      )
      for path, (length, dtype) in zip(paths, shapes)
    )  # fmt: skip
    record = label = 0
    for counts, ids in parts:
      ends[record : record + len(counts)] = label + np.cumsum(counts)
      labels[label : label + len(ids)] = ids
      record, label = record + len(counts), label + len(ids)
    assert (record, label) == (num_records, num_labels)
    labels.flush()
    ends.flush()
  return names


def images_per_label(parts: Iterable[Rows], num_classes: int) -> np.ndarray:
  """int64 [C]: in how many records each label stands."""
  blocks = (
    label_arrays.Block(
      0, len(counts), np.repeat(np.arange(len(counts)), counts), ids
    )
    for counts, ids in parts
  )
  return label_arrays.counts(blocks, num_classes)


class StoredLabels:
  """The two arrays of a split, mapped when first asked for.

  A copy made by pickling maps them again.

  Args:
    folder: of the data set.
    split: of the data set.
    num_records: of the split.
  """

  def __init__(self, folder: str, split: str, num_records: int):
    self._paths = tuple(
      os.path.join(folder, file_name(split, kind)) for kind in (ENDS, LABELS)
    )
    self._num_records = num_records
    self._arrays: tuple[np.ndarray, np.ndarray] | None = None

  def __getstate__(self) -> dict:
    return self.__dict__ | {'_arrays': None}

  def arrays(self) -> tuple[np.ndarray, np.ndarray]:
    """(ends int64 [n], labels int32 [m]), read-only.

    Raises:
      ValueError: the files do not hold that.
    """
    if self._arrays is None:
      ends, labels = (
        _mapped(path, dtype)
        for path, dtype in zip(self._paths, (np.int64, np.int32))
      )
      last = int(ends[-1]) if len(ends) else 0
      if len(ends) != self._num_records or last != len(labels):
        raise ValueError(
          f'{self._paths[0]}: {len(ends)} records and {last} labels, should '
          f'be {self._num_records} and {len(labels)}'
        )
      self._arrays = ends, labels
    return self._arrays

  def labels(self, index: int) -> np.ndarray:
    """int32 [k] raw label ids of a record."""
    ends, labels = self.arrays()
    start = ends[index - 1] if index else 0
    return np.array(labels[start : ends[index]])


def _mapped(path: str, dtype: type) -> np.ndarray:
  array = numpy_files.mapped(path)
  if array.dtype != dtype or array.ndim != 1:
    raise ValueError(f'{path}: {array.dtype} {list(array.shape)} is no index')
  return np.asarray(array)  # a plain view: memmap's own slices cost 2 us more
