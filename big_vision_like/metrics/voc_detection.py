"""VOC's average precision of detected boxes at an IoU of a half.

Everingham et al. 2010, section 4.2: detections are met by falling score; each
asks for the box of its class and image that it overlaps most, and finds it if
the IoU is at least the threshold and nobody came before. A difficult box that
is asked for makes the detection count nowhere. Boxes that nobody finds lower
the recall, difficult ones excepted.

'All-point' is the area below the precision's envelope (VOC from 2010 on, and
the TensorFlow Object Detection API); '11-point' the mean of the envelope at
recalls of 0, .1, ..., 1 (VOC 2007). The devkit takes corners as pixels that
belong to the box (`inclusive`); the API does not.
"""

from collections.abc import Sequence

import numpy as np

from big_vision_like.metrics import box_pairs, image_entries
from big_vision_like.metrics.box_pairs import Detections, Truth

_POINTS = np.arange(11) / 10


def figures(
  truth: Truth,
  detections: Detections,
  classes: Sequence[str],
  *,
  iou: float = 0.5,
  inclusive: bool = False,
) -> dict[str, float]:
  """VOC's figures in percent.

  Args:
    truth: annotated boxes; `ignored` marks difficult ones.
    detections: of the same images.
    classes: names of the C classes.
    iou: the threshold.
    inclusive: see `box_pairs.overlaps`.

  Returns:
    With the threshold in percent as NN (50), 'apNN' all-point, 'apNN_11point',
    and 'apNN/<class>', all-point. A class without a box that counts is left
    out, and all of them if there is none.

  Raises:
    ValueError: a label that is no class, or no such threshold.
  """
  curves = precision_recall(
    truth, detections, len(classes), iou=iou, inclusive=inclusive
  )
  name = f'ap{round(100 * iou)}'
  all_point = {label: all_points(*curve) for label, curve in curves.items()}
  if not all_point:
    return {}
  eleven = [eleven_points(*curve) for curve in curves.values()]
  result = {
    name: 100 * float(np.mean(list(all_point.values()))),
    f'{name}_11point': 100 * float(np.mean(eleven)),
  }
  for label, value in all_point.items():
    result[f'{name}/{classes[label]}'] = 100 * value
  return result


def precision_recall(
  truth: Truth,
  detections: Detections,
  num_classes: int,
  *,
  iou: float = 0.5,
  inclusive: bool = False,
) -> dict[int, tuple[np.ndarray, np.ndarray]]:
  """Label -> precision and recall after each detection that counts.

  Classes without a box that counts are left out.

  Raises:
    ValueError: a label that is no class, or no such threshold.
  """
  if not 0 < iou <= 1:
    raise ValueError(f'voc: iou must lie in (0, 1], got {iou}')
  image_entries.check_labels(truth, detections, num_classes)
  truth_group, group = image_entries.groups(truth, detections, num_classes)
  order = np.lexsort((-detections.scores, detections.labels))
  group, boxes = group[order], detections.boxes[order]
  labels = detections.labels[order]
  asked = _asked(group, truth_group, boxes, truth.boxes, iou, inclusive)
  found = asked >= 0
  void = np.zeros(len(asked), bool)
  void[found] = truth.ignored[asked[found]]
  hit = np.zeros(len(asked), bool)
  first = np.unique(asked, return_index=True)[1]  # the best score of each box
  hit[first] = True
  hit &= found & ~void
  counted = np.bincount(truth.labels[~truth.ignored], minlength=num_classes)
  labels, hit = labels[~void], hit[~void]
  ends = np.searchsorted(labels, np.arange(num_classes + 1))
  result = {}
  for label in np.flatnonzero(counted):
    hits = np.cumsum(hit[ends[label] : ends[label + 1]])
    result[int(label)] = (
      hits / np.arange(1, len(hits) + 1),
      hits / counted[label],
    )
  return result


def _asked(
  group: np.ndarray,
  truth_group: np.ndarray,
  boxes: np.ndarray,
  true_boxes: np.ndarray,
  iou: float,
  inclusive: bool,
) -> np.ndarray:
  """The box of the truth that each detection asks for, int64; -1: none.

  Of equal overlaps the first.
  """
  left, right = image_entries.pairs(group, truth_group)
  overlap = box_pairs.overlaps(
    boxes[left],
    true_boxes[right],
    one_sided=np.zeros(len(left), bool),
    inclusive=inclusive,
  )
  near = overlap >= iou
  left, right, overlap = left[near], right[near], overlap[near]
  best = np.lexsort((right, -overlap, left))
  who, first = np.unique(left[best], return_index=True)
  asked = np.full(len(group), -1)
  asked[who] = right[best][first]
  return asked


def all_points(precision: np.ndarray, recall: np.ndarray) -> float:
  """Area below the envelope of a curve by rising recall."""
  envelope = np.maximum.accumulate(precision[::-1])[::-1]
  steps = np.diff(np.concatenate([[0.0], recall]))
  return float(np.sum(steps * envelope))


def eleven_points(precision: np.ndarray, recall: np.ndarray) -> float:
  """Mean over 11 recalls of the best precision at that recall or a higher."""
  envelope = np.append(np.maximum.accumulate(precision[::-1])[::-1], 0.0)
  return float(envelope[np.searchsorted(recall, _POINTS)].mean())
