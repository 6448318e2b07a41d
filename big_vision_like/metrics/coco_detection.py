"""COCO's twelve figures of detected boxes, and AP of every class.

Equal to pycocotools' COCOeval of boxes with its usual parameters: IoU from .50
to .95 by .05, 101 points of recall, areas up to 32^2, 96^2 and above, 1, 10 and
100 detections of a class in an image. Crowds are matched last, any number of
times, and what they match counts nowhere; so do boxes of another area. In one
thing it differs: pycocotools takes what is matched to an annotation of id 0
for unmatched; here ids play no part.

pycocotools walks images, classes, areas and thresholds in Python. Here all
(image, class) are worked off together, one detection of each at a time, and
only pairs that overlap enough for the lowest threshold are looked at.
"""

import dataclasses
import itertools
from collections.abc import Sequence

import numpy as np

from big_vision_like.metrics import box_pairs
from big_vision_like.metrics.box_pairs import Detections, Truth

THRESHOLDS = np.linspace(0.5, 0.95, 10)
_RECALLS = np.linspace(0.0, 1.0, 101)
AREAS = {
  'all': (0.0, 1e10),
  'small': (0.0, 32.0**2),
  'medium': (32.0**2, 96.0**2),
  'large': (96.0**2, 1e10),
}
_MOST = (1, 10, 100)
_SIZES = tuple(AREAS)[1:]
FIGURES = (
  'ap', 'ap50', 'ap75', *(f'ap_{size}' for size in _SIZES),
  *(f'ar{most}' for most in _MOST), *(f'ar_{size}' for size in _SIZES),
)  # fmt: skip
# COCOeval's: an overlap of exactly 1 is found at a threshold of 1.
_LIMITS = np.minimum(THRESHOLDS, 1 - 1e-10)


@dataclasses.dataclass(frozen=True)
class Result:
  """Figures by threshold, class and area; NaN where no box counts.

  Attributes:
    precision: float64 [T, R, C, areas] at 101 points of recall, 100 detections.
    recall: float64 [T, C, areas, 3] with 1, 10 and 100 detections.
    num_boxes: int64 [C, areas], boxes that count.
  """

  precision: np.ndarray
  recall: np.ndarray
  num_boxes: np.ndarray


def figures(
  truth: Truth, detections: Detections, classes: Sequence[str]
) -> dict[str, float]:
  """COCO's figures in percent.

  Args:
    truth: annotated boxes; `ignored` marks crowds.
    detections: of the same images.
    classes: names of the C classes.

  Returns:
    'ap', 'ap50', 'ap75', 'ap_small', 'ap_medium', 'ap_large', 'ar1', 'ar10',
    'ar100', 'ar_small', 'ar_medium', 'ar_large' and 'ap/<class>'. A figure of
    which no box counts (of its area, of its class) is left out.

  Raises:
    ValueError: a label that is no class.
  """
  result = evaluate(truth, detections, len(classes))
  precision, recall = result.precision, result.recall
  found = {
    'ap': precision[:, :, :, 0],
    'ap50': precision[0, :, :, 0],
    'ap75': precision[5, :, :, 0],
  }
  for number, area in enumerate(AREAS):
    if number:
      found[f'ap_{area}'] = precision[:, :, :, number]
  for number, most in enumerate(_MOST):
    found[f'ar{most}'] = recall[:, :, 0, number]
  for number, area in enumerate(AREAS):
    if number:
      found[f'ar_{area}'] = recall[:, :, number, -1]
  for number, name in enumerate(classes):
    found[f'ap/{name}'] = precision[:, :, number, 0]
  means = {name: _mean(values) for name, values in found.items()}
  return {name: mean for name, mean in means.items() if mean is not None}


def _mean(values: np.ndarray) -> float | None:
  """Percent; None where there is nothing to take the mean of."""
  counted = values[~np.isnan(values)]
  return float(100 * counted.mean()) if len(counted) else None


def evaluate(truth: Truth, detections: Detections, num_classes: int) -> Result:
  """Precision and recall at all thresholds, of all classes and areas.

  Raises:
    ValueError: a label that is no class.
  """
  box_pairs.check_labels(truth, detections, num_classes)
  ranked = _ranked(truth, detections, num_classes)
  num_thresholds, num_areas = len(THRESHOLDS), len(AREAS)
  shape = num_thresholds, len(_RECALLS), num_classes, num_areas
  precision = np.full(shape, np.nan)
  recall = np.full((num_thresholds, num_classes, num_areas, len(_MOST)), np.nan)
  num_boxes = np.zeros((num_classes, num_areas), np.int64)
  for number, (low, high) in enumerate(AREAS.values()):
    outside = (truth.area < low) | (truth.area > high)
    left_out = truth.ignored | outside
    counted = np.bincount(truth.labels[~left_out], minlength=num_classes)
    num_boxes[:, number] = counted
    hit, void = _matched(ranked, truth.ignored, left_out)
    far = (ranked.area < low) | (ranked.area > high)
    void |= far[:, None] & ~hit
    hit &= ~void
    recall[:, :, number] = _recall(ranked, hit, counted)
    precision[..., number] = _precision(ranked, hit, void, counted)
  return Result(precision, recall, num_boxes)


@dataclasses.dataclass(frozen=True, eq=False)
class _Ranked:
  """Detections that take part, by class and then by falling score.

  Attributes:
    labels: int [D].
    area: float64 [D].
    rank: int64 [D] among the detections of its class in its image.
    pair_left: int64 [P] detection of each pair that overlaps, rising.
    pair_right: int64 [P] its box of the truth.
    iou: float64 [P].
    turn: int64 [P] when its detection chooses: pairs of one turn are of
      different images or classes.
  """

  labels: np.ndarray
  area: np.ndarray
  rank: np.ndarray
  pair_left: np.ndarray
  pair_right: np.ndarray
  iou: np.ndarray
  turn: np.ndarray


def _ranked(truth: Truth, detections: Detections, num_classes: int) -> _Ranked:
  truth_group, group = box_pairs.groups(truth, detections, num_classes)
  order = np.lexsort((-detections.scores, group))  # stable
  rank = box_pairs.ranks(group[order])
  kept = rank < _MOST[-1]
  order, rank = order[kept], rank[kept]
  # By class and score; of equal ones by image, then as they were.
  final = np.lexsort((-detections.scores[order], detections.labels[order]))
  order, rank = order[final], rank[final]
  group, boxes = group[order], detections.boxes[order]
  left, right = box_pairs.pairs(group, truth_group)
  iou = box_pairs.overlaps(
    boxes[left],
    truth.boxes[right],
    one_sided=truth.ignored[right],
    inclusive=False,
  )
  near = iou >= _LIMITS[0]
  left, right, iou = left[near], right[near], iou[near]
  # Turns are counted among the detections that have a pair.
  choosing = np.unique(left)
  by_group = np.lexsort((rank[choosing], group[choosing]))
  turn = np.empty(len(choosing), np.int64)
  turn[by_group] = box_pairs.ranks(group[choosing[by_group]])
  return _Ranked(
    detections.labels[order],
    boxes[:, 2] * boxes[:, 3],
    rank,
    left,
    right,
    iou,
    turn[np.searchsorted(choosing, left)],
  )


def _matched(
  ranked: _Ranked, crowd: np.ndarray, left_out: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """Who finds a box, and who finds one that is left out: bool [D, T] each.

  A detection takes the box that it overlaps most of those that count and are
  free, else of those left out and free or crowds; of equal overlaps the last.
  """
  hit = np.zeros((len(ranked.labels), len(THRESHOLDS)), bool)
  void = np.zeros_like(hit)
  taken = np.zeros((len(crowd), len(THRESHOLDS)), bool)
  left, right = ranked.pair_left, ranked.pair_right
  # The order of each detection's wishes: the first that is to be had is it.
  wishes = np.lexsort((-right, -ranked.iou, left_out[right], left, ranked.turn))
  left, right, iou = left[wishes], right[wishes], ranked.iou[wishes]
  turn = ranked.turn[wishes]
  ends = np.searchsorted(turn, np.arange(turn[-1] + 2)) if len(turn) else [0]
  for start, end in itertools.pairwise(ends):
    part = slice(start, end)
    who, what = left[part], right[part]
    free = ~taken[what] | crowd[what][:, None]
    fits = free & (iou[part, None] >= _LIMITS)
    place = np.arange(end - start)[:, None]
    first = np.flatnonzero(np.append(True, who[1:] != who[:-1]))
    chosen = np.minimum.reduceat(
      np.where(fits, place, end - start), first, axis=0
    )  # [detections of this turn, T]
    row, threshold = np.nonzero(chosen < end - start)
    box = what[chosen[row, threshold]]
    taken[box, threshold] = True
    hit[who[first][row], threshold] = True
    void[who[first][row], threshold] = left_out[box]
  return hit, void


def _recall(
  ranked: _Ranked, hit: np.ndarray, counted: np.ndarray
) -> np.ndarray:
  """Float64 [T, C, 3]."""
  result = np.full((hit.shape[1], len(counted), len(_MOST)), np.nan)
  detection, threshold = np.nonzero(hit)
  place = threshold * len(counted) + ranked.labels[detection]
  for number, most in enumerate(_MOST):
    found = np.bincount(
      place[ranked.rank[detection] < most],
      minlength=hit.shape[1] * len(counted),
    ).reshape(hit.shape[1], -1)
    np.divide(found, counted, out=result[..., number], where=counted > 0)
  return result


def _precision(
  ranked: _Ranked, hit: np.ndarray, void: np.ndarray, counted: np.ndarray
) -> np.ndarray:
  """Float64 [T, R, C].

  Precision rises at hits only, so its envelope is one of the hits'.
  """
  num_classes = len(counted)
  start = np.searchsorted(ranked.labels, np.arange(num_classes))
  result = np.full((hit.shape[1], len(_RECALLS), num_classes), np.nan)
  for threshold in range(hit.shape[1]):
    voids = np.concatenate([[0], np.cumsum(void[:, threshold])])
    hits = np.flatnonzero(hit[:, threshold])
    first = start[ranked.labels[hits]]
    met = hits + 1 - first - (voids[hits + 1] - voids[first])
    found = box_pairs.ranks(ranked.labels[hits]) + 1
    wrong = met - found
    precision = found / (wrong + found + np.spacing(1))
    ends = np.searchsorted(ranked.labels[hits], np.arange(num_classes + 1))
    for label in np.flatnonzero(counted):
      own = precision[ends[label] : ends[label + 1]]
      envelope = np.maximum.accumulate(own[::-1])[::-1]
      reached = np.arange(1, len(own) + 1) / counted[label]
      place = np.searchsorted(reached, _RECALLS, side='left')
      curve = np.zeros(len(_RECALLS))
      inside = place < len(own)
      curve[inside] = envelope[place[inside]]
      result[threshold, :, label] = curve
  return result
