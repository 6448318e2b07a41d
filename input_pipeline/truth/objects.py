"""The objects of any source: as it says, or by reading its records once."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from big_vision_like.protocols import Objects, Source, WithObjects
from input_pipeline.examples.errors import BadExample
from input_pipeline.files import image_files

MAX_READ = 200_000  # records
_COLUMNS = (
  ('image', np.int64, ()), ('number', np.int32, ()),
  ('boxes', np.float32, (4,)), ('labels', np.int32, ()),
  ('crowd', np.bool_, ()), ('num_keypoints', np.int32, ()),
  ('area', np.float32, ()),
)  # fmt: skip


def of(source: Source) -> tuple[Objects, str]:
  """Its objects, and a line on how they were found; '' where it knows them.

  A source that does not know them has its records read, image files included.
  One that cannot be used has no objects.

  Raises:
    ValueError: too many records for that, or annotations that contradict each
      other; names the record.
  """
  known = source.objects() if isinstance(source, WithObjects) else None
  if known is not None:
    return known, ''
  num = len(source)
  if num > MAX_READ:
    raise ValueError(
      f'of: the source does not know its objects without reading its {num:,} '
      f'records, more than {MAX_READ:,}; prepare the data again, which stores '
      'them, or give the source a method objects()'
    )
  parts, bad = [], 0
  for index in range(num):
    try:
      parts.append(of_record(source[index], index))
    except BadExample:
      bad += 1
    except ValueError as error:
      raise ValueError(f'of: {source.key(index)}: {error}') from None
  text = f'{num:,} records were read to know their objects'
  return joined(parts), f'{text}, {bad:,} of them cannot be used'


def joined(parts: list[Objects]) -> Objects:
  """The objects of several lists, one after the other."""
  return Objects(
    *(
      np.concatenate(
        [np.zeros((0, *tail), dtype), *(getattr(p, name) for p in parts)]
      )
      for name, dtype, tail in _COLUMNS
    )
  )


def of_record(example: Mapping[str, Any], index: int) -> Objects:
  """Those of one record, with boxes in pixels of the original image.

  Raises:
    ValueError: keypoints or labels that are not one a box, or visibilities
      that are none.
  """
  boxes = np.asarray(example.get('boxes', ()), np.float32).reshape(-1, 4)
  num = len(boxes)
  scale = ratio(example) if num else np.ones(2)
  keypoints = np.asarray(example.get('keypoints', np.zeros((num, 0, 3))))
  check_keypoints(keypoints, num)
  labels = np.asarray(example.get('box_labels', np.zeros(num)), np.int32)
  if len(labels) != num:
    raise ValueError(f'{len(labels)} box_labels of {num} boxes')
  sides = boxes[:, 2:] - boxes[:, :2]
  area = np.asarray(example.get('box_area', sides.prod(axis=1)))
  return Objects(
    image=np.full(num, index, np.int64),
    number=np.asarray(example.get('box_numbers', np.arange(num)), np.int32),
    boxes=(boxes * np.tile(scale, 2)).astype(np.float32),
    labels=labels,
    crowd=np.asarray(example.get('box_crowd', np.zeros(num)), bool),
    num_keypoints=(keypoints[..., 2] > 0).sum(axis=1, dtype=np.int32),
    area=(area * scale.prod()).astype(np.float32),
  )


def check_keypoints(keypoints: np.ndarray, num: int) -> None:
  """ValueError unless they are [num, K, 3] with a visibility of 0, 1 or 2."""
  if keypoints.ndim != 3 or keypoints.shape[::2] != (num, 3):
    raise ValueError(
      f'keypoints of shape {list(keypoints.shape)} of {num} boxes; should be '
      f'[{num}, K, 3]'
    )
  wrong = keypoints[..., 2][~np.isin(keypoints[..., 2], (0, 1, 2))]
  if wrong.size:
    raise ValueError(f'a keypoint of visibility {wrong[0]:g}; valid: 0, 1, 2')


def ratio(example: Mapping[str, Any]) -> np.ndarray:
  """float64 [2], of the original image to the record's."""
  original = example.get('original_size')
  if original is None:
    return np.ones(2)
  image = example['image']
  stored = (
    image_files.header_size(image)
    if isinstance(image, bytes)
    else image.shape[:2]
  )
  if stored is None:
    raise BadExample('the image has no size that can be read')
  return np.asarray(original, np.float64) / np.array(stored)
