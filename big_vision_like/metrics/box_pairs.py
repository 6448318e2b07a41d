"""Boxes of a truth and of detections as flat arrays, and the pairs that meet.

Boxes are in COCO's form, float64 [n, 4]: x, y, width, height in pixels. It is
kept as published, since corners made of it and taken apart again would round
an overlap across a threshold.
"""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True, eq=False)
class Truth:
  """A annotated boxes.

  Attributes:
    images: int [A] ids.
    labels: int [A] in [0, C).
    boxes: float64 [A, 4].
    area: float64 [A] in pixels^2, of the outline where there is one.
    ignored: bool [A], crowds of COCO, difficult boxes of VOC.
  """

  images: np.ndarray
  labels: np.ndarray
  boxes: np.ndarray
  area: np.ndarray
  ignored: np.ndarray

  def __post_init__(self):
    _check(self, 'truth', ('area',))


@dataclasses.dataclass(frozen=True, eq=False)
class Detections:
  """D detected boxes, of any order; of equal scores the earlier is better.

  Attributes:
    images: int [D] ids.
    labels: int [D] in [0, C).
    boxes: float64 [D, 4].
    scores: float64 [D].
  """

  images: np.ndarray
  labels: np.ndarray
  boxes: np.ndarray
  scores: np.ndarray

  def __post_init__(self):
    _check(self, 'detections', ('scores',))


def _check(table: Truth | Detections, name: str, more: tuple[str, ...]) -> None:
  """Raises a ValueError for lengths that differ and numbers that are none."""
  num = len(table.images)
  for field in dataclasses.fields(table):
    value = getattr(table, field.name)
    shape = (num, 4) if field.name == 'boxes' else (num,)
    if value.shape != shape:
      raise ValueError(
        f'{name}: {field.name} must have shape {shape}, got {value.shape}'
      )
  for field in ('boxes', *more):
    value = getattr(table, field)
    rows = value if value.ndim > 1 else value[:, None]
    bad = np.flatnonzero(~np.isfinite(rows).all(axis=1))
    if len(bad):
      raise ValueError(
        f'{name}: {field} of entry {bad[0]} are not finite: {value[bad[0]]} '
        f'(image {table.images[bad[0]]})'
      )


def check_labels(
  truth: Truth, detections: Detections, num_classes: int
) -> None:
  """Raises a ValueError for a label that is no class."""
  for name, table in (('truth', truth), ('detections', detections)):
    bad = (table.labels < 0) | (table.labels >= num_classes)
    if bad.any():
      raise ValueError(
        f'{name}: labels must lie in [0, {num_classes}), got '
        f'{table.labels[bad][0]}'
      )


def groups(
  truth: Truth, detections: Detections, num_classes: int
) -> tuple[np.ndarray, np.ndarray]:
  """Numbers of the (image, class) of truth [A] and detections [D].

  They rise with the class, then with the image's id.
  """
  ids = np.unique(np.concatenate([truth.images, detections.images]))
  number = lambda table: (
    table.labels.astype(np.int64) * len(ids)
    + np.searchsorted(ids, table.images)
  )
  return number(truth), number(detections)


def pairs(
  group: np.ndarray, truth_group: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """All (detection, truth) of one group, by detection and then by truth."""
  order = np.argsort(truth_group, kind='stable')
  ordered = truth_group[order]
  start = np.searchsorted(ordered, group, 'left')
  count = np.searchsorted(ordered, group, 'right') - start
  left = np.repeat(np.arange(len(group)), count)
  first = np.repeat(start - (np.cumsum(count) - count), count)
  return left, order[first + np.arange(len(left))]


def overlaps(
  a: np.ndarray, b: np.ndarray, *, one_sided: np.ndarray, inclusive: bool
) -> np.ndarray:
  """IoU of boxes [n, 4] and [n, 4], one pair a row.

  The order of operations is that of pycocotools' bbIou, to the bit.

  Args:
    a: boxes.
    b: boxes.
    one_sided: bool [n]; over the area of `a` in place of the union.
    inclusive: the last pixel belongs to a box, so that it is one wider and
      one higher than it says (VOC's devkit).
  """
  if inclusive:
    a, b = (boxes + np.asarray([0.0, 0.0, 1.0, 1.0]) for boxes in (a, b))
  low = np.maximum(a[:, :2], b[:, :2])
  high = np.minimum(a[:, 2:] + a[:, :2], b[:, 2:] + b[:, :2])
  width, height = (high - low).T
  shared = np.where((width > 0) & (height > 0), width * height, 0.0)
  area_a, area_b = a[:, 2] * a[:, 3], b[:, 2] * b[:, 3]
  union = np.where(one_sided, area_a, area_a + area_b - shared)
  ratio = np.zeros(len(a))
  return np.divide(shared, union, out=ratio, where=shared > 0)


def ranks(group: np.ndarray) -> np.ndarray:
  """Position of each entry within its run of equal values: 0, 1, ..."""
  first = np.ones(len(group), bool)
  first[1:] = group[1:] != group[:-1]
  place = np.arange(len(group))
  return place - np.maximum.accumulate(np.where(first, place, 0))
