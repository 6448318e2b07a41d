"""COCO's matching of detections with a truth, and the curves that follow.

What a detection and an annotation have in common is a similarity: IoU of boxes,
OKS of poses. Detections choose by falling score; means are taken over ten
thresholds of it, precision at 101 points of recall. To the digit as pycocotools
does it, which walks images, classes, areas and thresholds in Python. Here all
(image, class) are worked off together, one detection of each at a time, and
only pairs that are alike enough for the lowest threshold are looked at.
"""

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import numpy as np

from big_vision_like.metrics import image_entries

THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0.0, 1.0, 101)
# COCOeval's: a similarity of exactly 1 is found at a threshold of 1.
_LIMITS = np.minimum(THRESHOLDS, 1 - 1e-10)


class Annotated(image_entries.Entries, Protocol):
  """A annotations; `area` is float64 [A] in pixels^2."""

  @property
  def area(self) -> np.ndarray: ...


class Scored(image_entries.Entries, Protocol):
  """D detections of any order; of equal `scores` [D] the earlier is better."""

  @property
  def scores(self) -> np.ndarray: ...


@dataclasses.dataclass(frozen=True, eq=False)
class Ranked:
  """Detections that take part, by class and then by falling score.

  Attributes:
    labels: int [D].
    area: float64 [D].
    rank: int64 [D] among the detections of its class in its image.
    pair_left: int64 [P] detection of each pair that is alike, rising.
    pair_right: int64 [P] its annotation.
    similarity: float64 [P].
    turn: int64 [P] when its detection chooses: pairs of one turn are of
      different images or classes.
  """

  labels: np.ndarray
  area: np.ndarray
  rank: np.ndarray
  pair_left: np.ndarray
  pair_right: np.ndarray
  similarity: np.ndarray
  turn: np.ndarray


@dataclasses.dataclass(frozen=True)
class Curves:
  """Figures by threshold, class and area; NaN where no annotation counts.

  Attributes:
    precision: float64 [T, R, C, areas] at 101 points of recall.
    recall: float64 [T, C, areas, M] with so many detections of a class in an
      image.
    num_counted: int64 [C, areas], annotations that count.
  """

  precision: np.ndarray
  recall: np.ndarray
  num_counted: np.ndarray


def ranked(
  truth: Annotated,
  detections: Scored,
  num_classes: int,
  *,
  area: np.ndarray,
  similarity: Callable[[np.ndarray, np.ndarray], np.ndarray],
  most: int,
) -> Ranked:
  """The best `most` detections of each class in an image, and their pairs.

  Args:
    truth, detections: of the same images.
    num_classes: C.
    area: float64 [D] of the detections.
    similarity: (detections [P], annotations [P]), indices -> float64 [P].
    most: see above.

  Raises:
    ValueError: a label that is no class.
  """
  image_entries.check_labels(truth, detections, num_classes)
  truth_group, group = image_entries.groups(truth, detections, num_classes)
  order = np.lexsort((-detections.scores, group))  # stable
  rank = image_entries.ranks(group[order])
  kept = rank < most
  order, rank = order[kept], rank[kept]
  # By class and score; of equal ones by image, then as they were.
  final = np.lexsort((-detections.scores[order], detections.labels[order]))
  order, rank = order[final], rank[final]
  group = group[order]
  left, right = image_entries.pairs(group, truth_group)
  alike = similarity(order[left], right)
  near = alike >= _LIMITS[0]
  left, right, alike = left[near], right[near], alike[near]
  # Turns are counted among the detections that have a pair.
  choosing = np.unique(left)
  by_group = np.lexsort((rank[choosing], group[choosing]))
  turn = np.empty(len(choosing), np.int64)
  turn[by_group] = image_entries.ranks(group[choosing[by_group]])
  return Ranked(
    detections.labels[order],
    area[order],
    rank,
    left,
    right,
    alike,
    turn[np.searchsorted(choosing, left)],
  )


def curves(
  found: Ranked,
  truth: Annotated,
  num_classes: int,
  *,
  ignored: np.ndarray,
  crowd: np.ndarray,
  areas: Mapping[str, tuple[float, float]],
  most: Sequence[int],
) -> Curves:
  """Precision and recall at all thresholds, of all classes and areas.

  Args:
    found: see `ranked`.
    truth: that it was ranked for.
    num_classes: C.
    ignored: bool [A], annotations that count neither way.
    crowd: bool [A], those of them that may be found any number of times.
    areas: name -> the least and the largest; others count neither way.
    most: numbers of detections of a class in an image, rising.
  """
  num_thresholds, num_areas = len(THRESHOLDS), len(areas)
  shape = num_thresholds, len(RECALLS), num_classes, num_areas
  precision = np.full(shape, np.nan)
  recall = np.full((num_thresholds, num_classes, num_areas, len(most)), np.nan)
  num_counted = np.zeros((num_classes, num_areas), np.int64)
  for number, (low, high) in enumerate(areas.values()):
    outside = (truth.area < low) | (truth.area > high)
    left_out = ignored | outside
    counted = np.bincount(truth.labels[~left_out], minlength=num_classes)
    num_counted[:, number] = counted
    hit, void = _matched(found, crowd, left_out)
    far = (found.area < low) | (found.area > high)
    void |= far[:, None] & ~hit
    hit &= ~void
    recall[:, :, number] = _recall(found, hit, counted, most)
    precision[..., number] = _precision(found, hit, void, counted)
  return Curves(precision, recall, num_counted)


def means(values: Mapping[str, np.ndarray]) -> dict[str, float]:
  """In percent; those of which nothing counts (NaN) are left out."""
  counted = {name: value[~np.isnan(value)] for name, value in values.items()}
  return {
    name: float(100 * value.mean())
    for name, value in counted.items()
    if len(value)
  }


def _matched(
  table: Ranked, crowd: np.ndarray, left_out: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """Who finds one, and who finds one that is left out: bool [D, T] each.

  A detection takes the annotation most alike of those that count and are free,
  else of those left out and free or crowds; of equal ones the last.
  """
  hit = np.zeros((len(table.labels), len(THRESHOLDS)), bool)
  void = np.zeros_like(hit)
  taken = np.zeros((len(crowd), len(THRESHOLDS)), bool)
  left, right = table.pair_left, table.pair_right
  # The order of each detection's wishes: the first that is to be had is it.
  wishes = np.lexsort(
    (-right, -table.similarity, left_out[right], left, table.turn)
  )
  left, right, alike = left[wishes], right[wishes], table.similarity[wishes]
  turn = table.turn[wishes]
  ends = np.searchsorted(turn, np.arange(turn[-1] + 2)) if len(turn) else [0]
  for start, end in itertools.pairwise(ends):
    part = slice(start, end)
    who, what = left[part], right[part]
    free = ~taken[what] | crowd[what][:, None]
    fits = free & (alike[part, None] >= _LIMITS)
    place = np.arange(end - start)[:, None]
    first = np.flatnonzero(np.append(True, who[1:] != who[:-1]))
    chosen = np.minimum.reduceat(
      np.where(fits, place, end - start), first, axis=0
    )  # [detections of this turn, T]
    row, threshold = np.nonzero(chosen < end - start)
    one = what[chosen[row, threshold]]
    taken[one, threshold] = True
    hit[who[first][row], threshold] = True
    void[who[first][row], threshold] = left_out[one]
  return hit, void


def _recall(
  table: Ranked, hit: np.ndarray, counted: np.ndarray, most: Sequence[int]
) -> np.ndarray:
  """Float64 [T, C, M]."""
  result = np.full((hit.shape[1], len(counted), len(most)), np.nan)
  detection, threshold = np.nonzero(hit)
  place = threshold * len(counted) + table.labels[detection]
  for number, limit in enumerate(most):
    found = np.bincount(
      place[table.rank[detection] < limit],
      minlength=hit.shape[1] * len(counted),
    ).reshape(hit.shape[1], -1)
    np.divide(found, counted, out=result[..., number], where=counted > 0)
  return result


def _precision(
  table: Ranked, hit: np.ndarray, void: np.ndarray, counted: np.ndarray
) -> np.ndarray:
  """Float64 [T, R, C].

  Precision rises at hits only, so its envelope is one of the hits'.
  """
  num_classes = len(counted)
  start = np.searchsorted(table.labels, np.arange(num_classes))
  result = np.full((hit.shape[1], len(RECALLS), num_classes), np.nan)
  for threshold in range(hit.shape[1]):
    voids = np.concatenate([[0], np.cumsum(void[:, threshold])])
    hits = np.flatnonzero(hit[:, threshold])
    first = start[table.labels[hits]]
    met = hits + 1 - first - (voids[hits + 1] - voids[first])
    found = image_entries.ranks(table.labels[hits]) + 1
    wrong = met - found
    precision = found / (wrong + found + np.spacing(1))
    ends = np.searchsorted(table.labels[hits], np.arange(num_classes + 1))
    for label in np.flatnonzero(counted):
      own = precision[ends[label] : ends[label + 1]]
      envelope = np.maximum.accumulate(own[::-1])[::-1]
      reached = np.arange(1, len(own) + 1) / counted[label]
      place = np.searchsorted(reached, RECALLS, side='left')
      curve = np.zeros(len(RECALLS))
      inside = place < len(own)
      curve[inside] = envelope[place[inside]]
      result[threshold, :, label] = curve
  return result
