"""The annotated boxes of all records of a source as flat arrays."""

import contextlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from big_vision_like.protocols import WithImageIds
from input_pipeline.examples.errors import BadExample, record_named
from input_pipeline.truth import objects

_NUM_LOOKED_AT = 20  # records


def read(source: Any, ignored: str, where: str) -> tuple[np.ndarray, ...]:
  """Columns of A boxes: what metrics call a truth.

  Args:
    source: random-access source of records with 'boxes' and 'box_labels'.
    ignored: field of the boxes that count neither way, 'box_crowd' or
      'box_difficult'; none do in a record without it.
    where: of messages.

  Returns:
    images int64 [A] index of the record, labels int64 [A], boxes float64
    [A, 4] x, y, width, height, area float64 [A] (of the box where the record
    does not say it) and ignored bool [A]. Pixels are those of the original
    image, where the record's is smaller too.

  Raises:
    ValueError: a record without boxes, or one that cannot be used.
  """
  parts = []
  for index in range(len(source)):
    with record_named(source, index, where):
      example = source[index]
    if 'boxes' not in example:
      raise ValueError(boxless(source, index, where))
    parts.append(columns(example, index, ignored))
  return tuple(np.concatenate(column) for column in zip(*parts))


def image_numbers(source: Any) -> np.ndarray:
  """int64 [n] numbers of the images: their publisher's, or positions from 1.

  Of detections with equal scores COCO's program takes those of the image with
  the lower number first.
  """
  positions = np.arange(1, len(source) + 1)
  known = source.image_ids() if isinstance(source, WithImageIds) else None
  return positions if known is None else np.asarray(known)


def check_any(source: Any, where: str) -> None:
  """Refuses data whose first records say nothing of boxes.

  One without a box has them all the same: an array of none.

  Raises:
    ValueError: naming the first of them.
  """
  without = None
  for index in range(min(len(source), _NUM_LOOKED_AT)):
    with contextlib.suppress(BadExample):
      if 'boxes' in source[index]:
        return
      without = index if without is None else without
  if without is not None:
    raise ValueError(boxless(source, without, where))


def boxless(source: Any, index: int, where: str) -> str:
  """What to say of a record without boxes."""
  return (
    f'{where}: {source.key(index)} has no boxes; it must be a data set of '
    'detection'
  )


def columns(
  example: Mapping[str, Any], index: int, ignored: str
) -> tuple[np.ndarray, ...]:
  """What `read` returns, of one record with boxes."""
  ratio = objects.ratio(example) if len(example['boxes']) else np.ones(2)
  boxes = xywh(np.asarray(example['boxes'])) * np.tile(ratio[::-1], 2)
  num = len(boxes)
  area, marks = example.get('box_area'), example.get(ignored)
  return (
    np.full(num, index, np.int64),
    np.asarray(example['box_labels'], np.int64),
    boxes,
    boxes[:, 2] * boxes[:, 3]
    if area is None
    else area.astype(np.float64) * ratio.prod(),
    np.zeros(num, bool) if marks is None else np.asarray(marks, bool),
  )


def xywh(boxes: np.ndarray) -> np.ndarray:
  """[..., 4] y0, x0, y1, x1 -> float64 [n, 4] x, y, width, height."""
  y0, x0, y1, x1 = boxes.astype(np.float64).reshape(-1, 4).T
  return np.stack([x0, y0, x1 - x0, y1 - y0], axis=1)
