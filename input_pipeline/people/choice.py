"""Which people of the images become examples, and why others do not."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from big_vision_like.protocols import Objects
from input_pipeline.people.box_file import FoundBoxes

_LEAST_OVERLAP = 0.5  # IoU of a box of a file with the person that it is of
NOBODY = -1


@dataclasses.dataclass(frozen=True, eq=False)
class People:
  """The examples, n in all, by ascending image.

  Attributes:
    image: int64 [n] index of the image.
    number: int32 [n] of the box in its image, for keys.
    person: int32 [n] number of the object of the truth, NOBODY where the box
      is of none.
    boxes: float32 [n, 4] y0, x0, y1, x1 in pixels of the original image.
    scores: float32 [n].
    left_out: reason -> how many.
  """

  image: np.ndarray
  number: np.ndarray
  person: np.ndarray
  boxes: np.ndarray
  scores: np.ndarray
  left_out: dict[str, int]


@dataclasses.dataclass(frozen=True)
class Limits:
  """What people must have; see the options of sources/people.py."""

  labels: Sequence[int]
  min_keypoints: int
  min_side: float
  min_score: float


def of_truth(objects: Objects, limits: Limits) -> People:
  """The annotated people that meet the limits."""
  chosen = _Chosen(np.isin(objects.labels, limits.labels))
  chosen.drop(objects.crowd, 'of crowds')
  _drop_small(chosen, objects.boxes, limits)
  _drop_few(chosen, objects.num_keypoints, limits)
  rows = np.flatnonzero(chosen.kept)
  return People(
    objects.image[rows], objects.number[rows], objects.number[rows],
    objects.boxes[rows], np.ones(len(rows), np.float32), chosen.left_out,
  )  # fmt: skip


def of_file(
  found: FoundBoxes, objects: Objects | None, limits: Limits, keep_all: bool
) -> People:
  """The boxes of a file, each with the person that it shows.

  Boxes take their people by falling score, as COCO's evaluation does: a box
  takes the person of its image with the largest overlap that none has taken
  before, if that is half at least. So every person is taken once at most.

  Args:
    found: the boxes.
    objects: the truth, at least one; None where there is no truth: all boxes
      are kept.
    limits: of boxes and people.
    keep_all: keep boxes that are of no person, or of one with too few
      keypoints.
  """
  chosen = _Chosen(np.isin(found.labels, limits.labels), 'of other classes')
  chosen.drop(
    found.scores < limits.min_score, f'of a score below {limits.min_score:g}'
  )
  _drop_small(chosen, found.boxes, limits)
  person = np.full(len(found.image), NOBODY, np.int32)
  if objects is not None:
    row = _matched(found, chosen.kept, objects, limits)
    person[row >= 0] = objects.number[row[row >= 0]]
    if not keep_all:
      chosen.drop(row < 0, 'of no person of the truth')
      _drop_few(chosen, objects.num_keypoints[row], limits)
  rows = np.flatnonzero(chosen.kept)
  return People(
    found.image[rows], found.number[rows], person[rows],
    found.boxes[rows], found.scores[rows], chosen.left_out,
  )  # fmt: skip


class _Chosen:
  """Rows that are left, and how many each reason has taken.

  Args:
    kept: bool [n] rows that may be.
    reason: of the others; '' for none worth a word.
  """

  def __init__(self, kept: np.ndarray, reason: str = ''):
    self.kept = kept.copy()
    self.left_out: dict[str, int] = {}
    if reason and not kept.all():
      self.left_out[reason] = int((~kept).sum())

  def drop(self, mask: np.ndarray, reason: str) -> None:
    taken = self.kept & mask
    if taken.any():
      self.left_out[reason] = int(taken.sum())
    self.kept &= ~mask


def _drop_small(chosen: _Chosen, boxes: np.ndarray, limits: Limits) -> None:
  side = (boxes[:, 2:] - boxes[:, :2]).min(axis=1)
  chosen.drop(side <= 0, 'without an area')
  chosen.drop(
    side < limits.min_side, f'with a side below {limits.min_side:g} pixels'
  )


def _drop_few(chosen: _Chosen, labelled: np.ndarray, limits: Limits) -> None:
  least = limits.min_keypoints
  reason = f'with fewer than {least} labelled keypoints'
  chosen.drop(
    labelled < least, 'without a labelled keypoint' if least == 1 else reason
  )


def _matched(
  found: FoundBoxes, kept: np.ndarray, objects: Objects, limits: Limits
) -> np.ndarray:
  """int64 [B] row of `objects` that each kept box is of; -1: none."""
  row = np.full(len(found.image), -1)
  people = np.flatnonzero(
    np.isin(objects.labels, limits.labels) & ~objects.crowd
  )
  order = np.lexsort([-found.scores, found.image])
  order = order[kept[order]]
  images, first = np.unique(found.image[order], return_index=True)
  low = np.searchsorted(objects.image[people], images, 'left')
  high = np.searchsorted(objects.image[people], images, 'right')
  for boxes, a, b in zip(np.split(order, first[1:]), low, high):
    overlap = _overlaps(found.boxes[boxes], objects.boxes[people[a:b]])
    for i, box in enumerate(boxes):
      best = int(overlap[i].argmax()) if b > a else -1
      if best >= 0 and overlap[i, best] >= _LEAST_OVERLAP:
        row[box] = people[a + best]
        overlap[:, best] = -1
  return row


def _overlaps(one: np.ndarray, other: np.ndarray) -> np.ndarray:
  """float64 [n, m] IoU of two lists of boxes; of empty ones 0."""
  a, b = one.astype(np.float64)[:, None], other.astype(np.float64)[None]
  low, high = np.maximum(a, b)[..., :2], np.minimum(a, b)[..., 2:]
  common = np.maximum(high - low, 0).prod(axis=-1)
  areas = [np.maximum(x[..., 2:] - x[..., :2], 0).prod(axis=-1) for x in (a, b)]
  union = areas[0] + areas[1] - common
  return np.divide(common, union, out=np.zeros_like(common), where=union > 0)
