"""Boxes of a truth and of detections as flat arrays, and their overlaps.

Boxes are in COCO's form, float64 [n, 4]: x, y, width, height in pixels. It is
kept as published, since corners made of it and taken apart again would round
an overlap across a threshold.
"""

import dataclasses

import numpy as np

from big_vision_like.metrics import image_entries


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
    image_entries.check(self, 'truth', {'boxes': (4,)}, 'boxes', 'area')


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
    image_entries.check(self, 'detections', {'boxes': (4,)}, 'boxes', 'scores')


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
