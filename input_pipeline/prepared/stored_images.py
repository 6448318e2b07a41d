"""The images of a prepared split as arrays: their sizes, and their numbers.

    train.image_sizes.npy  int32 [n, 2]  height and width of each stored image
    train.image_ids.npy    int64 [n]     number where it comes from (COCO's id);
                                         no file where no image has one
Which canvas an image goes to, and what results are called on a test server, is
known without reading it. As with labels, each shard leaves a side file,
SHARD.images.npy: int64 [n, 3] id (-1: none), height, width (0: not decoded).
"""

import contextlib
import os
from collections.abc import Iterable, Sequence

import numpy as np

from input_pipeline.files import atomic, image_files, numpy_files
from input_pipeline.prepared.records import Record

SIZES, IDS = 'image_sizes', 'image_ids'
_SIDE = '.images.npy'
_NO_ID = -1


def row(record: Record) -> tuple[int, int, int]:
  """What the side file says of a record."""
  found = (record.annotations or {}).get('image_id')
  number = _NO_ID if found is None else int(found[0])
  height, width = image_files.header_size(record.image) or (0, 0)
  return number, height, width


def side_path(folder: str, shard: str) -> str:
  """Side file of a shard while the data set is being prepared."""
  return os.path.join(folder, f'{shard}{_SIDE}')


def write_side(path: str, rows: Sequence[tuple[int, int, int]]) -> None:
  """Writes the side file of a shard."""
  with open(path, 'wb') as file:
    np.save(file, np.array(rows, np.int64).reshape(-1, 3), allow_pickle=False)


def side_is_whole(path: str, num_records: int) -> bool:
  """Whether a side file holds so many records."""
  try:
    return numpy_files.mapped(path).shape == (num_records, 3)
  except (OSError, ValueError):
    return False


def remove_sides(folder: str) -> None:
  """Removes the side files of a data set whose arrays are written."""
  for name in os.listdir(folder):
    if name.endswith(f'.array_record{_SIDE}'):
      os.unlink(os.path.join(folder, name))


def join(
  folder: str, split: str, sides: Iterable[str], num_records: int
) -> dict[str, str]:
  """Writes the arrays of a split from the side files of its shards.

  Returns:
    kind ('image_sizes', 'image_ids') -> name of the file in the folder.
  """
  content = np.concatenate([numpy_files.read(path) for path in sides])
  assert len(content) == num_records
  found = {SIZES: content[:, 1:].astype(np.int32)}
  if (content[:, 0] != _NO_ID).any():
    found[IDS] = content[:, 0]
  names = {kind: f'{split}.{kind}.npy' for kind in found}
  with contextlib.ExitStack() as stack:
    for kind, name in names.items():
      path = os.path.join(folder, name)
      temporary = stack.enter_context(atomic.renamed(path, unique=False))
      with open(temporary, 'wb') as file:
        np.save(file, found[kind], allow_pickle=False)
  return names


def load(folder: str, split: str, kind: str, num_records: int) -> np.ndarray:
  """One of the arrays of a split, memory-mapped.

  Raises:
    ValueError: the file does not hold that.
  """
  path = os.path.join(folder, f'{split}.{kind}.npy')
  found = numpy_files.mapped(path)
  shape = (num_records, 2) if kind == SIZES else (num_records,)
  if found.shape != shape or found.dtype.kind != 'i':
    raise ValueError(
      f'{path}: {found.dtype} {list(found.shape)}, should be {list(shape)}'
    )
  return np.asarray(found)
