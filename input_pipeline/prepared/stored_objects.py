"""The objects of a prepared split as one array, known without reading records.

    train.objects.npy  float64 [A, 9]  record, y0, x0, y1, x1 in pixels of the
                                       original image, label, 1 for a crowd,
                                       labelled keypoints, area
It has the rows of a record in the order of its boxes. There is no file where no
record has a box. As with labels, each shard leaves a side file,
SHARD.objects.npy, whose records are positions in the shard.
"""

import contextlib
import os
from collections.abc import Iterable, Sequence

import numpy as np

from big_vision_like.protocols import Objects
from input_pipeline.examples.errors import BadExample
from input_pipeline.files import atomic, numpy_files
from input_pipeline.labels import ragged
from input_pipeline.prepared.records import Record
from input_pipeline.truth import objects

OBJECTS = 'objects'
_SIDE = '.objects.npy'
_COLUMNS = 9


def rows(record: Record, position: int) -> np.ndarray:
  """float64 [n, 9] of a record; none where its image has no size.

  Raises:
    ValueError: annotations that contradict each other; names the record.
  """
  stored = {**(record.annotations or {}), 'image': record.image}
  try:
    found = objects.of_record(stored, position)
  except BadExample:
    return np.zeros((0, _COLUMNS))
  except ValueError as error:
    raise ValueError(f'annotations of {record.key!r}: {error}') from None
  columns = (
    found.image, *found.boxes.T, found.labels, found.crowd,
    found.num_keypoints, found.area,
  )  # fmt: skip
  return np.stack(columns, axis=1).astype(np.float64)


def side_path(folder: str, shard: str) -> str:
  """Side file of a shard while the data set is being prepared."""
  return os.path.join(folder, f'{shard}{_SIDE}')


def write_side(path: str, parts: Sequence[np.ndarray]) -> None:
  """Writes the side file of a shard, from the rows of its records."""
  with open(path, 'wb') as file:
    whole = np.concatenate([np.zeros((0, _COLUMNS)), *parts])
    np.save(file, whole, allow_pickle=False)


def side_is_whole(path: str, num_records: int) -> bool:
  """Whether a side file can be of so many records."""
  try:
    return _fits(numpy_files.mapped(path), num_records)
  except (OSError, ValueError):
    return False


def _fits(found: np.ndarray, num_records: int) -> bool:
  """Whether rows are ascending records of a set of so many."""
  if found.dtype != np.float64 or found.shape[1:] != (_COLUMNS,):
    return False
  record = found[:, 0]
  return not len(record) or bool(
    (np.diff(record) >= 0).all() and 0 <= record[0] <= record[-1] < num_records
  )


def remove_sides(folder: str) -> None:
  """Removes the side files of a data set whose array is written."""
  for name in os.listdir(folder):
    if name.endswith(f'.array_record{_SIDE}'):
      os.unlink(os.path.join(folder, name))


def join(
  folder: str, split: str, sides: Iterable[tuple[str, int]]
) -> dict[str, str]:
  """Writes the array of a split from the side files of its shards.

  Args:
    folder: the data set.
    split: its name.
    sides: (side file, number of records) of each shard, in their order.

  Returns:
    kind ('objects') -> name of the file; empty where there are no objects.
  """
  parts, first = [], 0
  for path, num_records in sides:
    part = numpy_files.read(path)
    part[:, 0] += first
    parts.append(part)
    first += num_records
  if not any(map(len, parts)):
    return {}
  name = f'{split}.{OBJECTS}.npy'
  with contextlib.ExitStack() as stack:
    path = os.path.join(folder, name)
    temporary = stack.enter_context(atomic.renamed(path, unique=False))
    with open(temporary, 'wb') as file:
      np.save(file, np.concatenate(parts), allow_pickle=False)
  return {OBJECTS: name}


def load(folder: str, split: str, num_records: int) -> Objects:
  """The objects of a split.

  Raises:
    ValueError: the file does not hold that.
  """
  path = os.path.join(folder, f'{split}.{OBJECTS}.npy')
  found = numpy_files.mapped(path)
  if not _fits(found, num_records):
    raise ValueError(f'{path}: not the objects of {num_records} records')
  image = found[:, 0].astype(np.int64)
  counts = np.bincount(image, minlength=num_records)
  return Objects(
    image=image,
    number=ragged.positions(np.zeros_like(counts), counts).astype(np.int32),
    boxes=found[:, 1:5].astype(np.float32),
    labels=found[:, 5].astype(np.int32),
    crowd=found[:, 6] != 0,
    num_keypoints=found[:, 7].astype(np.int32),
    area=found[:, 8].astype(np.float32),
  )
