"""Where a detector goes wrong: the images to look at first."""

import numpy as np

from big_vision_like.metrics import box_pairs, image_entries


def worst(
  truth: box_pairs.Truth,
  found: box_pairs.Detections,
  num: int,
  *,
  iou: float = 0.5,
  score: float,
) -> list[tuple[int, str]]:
  """(image, what is wrong) of the images with most mistakes, worst first.

  A mistake is a box that no detection of its class finds, weighing 1, or a
  detection that finds no box of its class, weighing its score.

  Args:
    truth: annotated boxes.
    found: of the same images.
    num: how many images at most.
    iou: from which a box is found.
    score: from which a detection counts.
  """
  num_classes = 1 + max(
    (int(table.labels.max()) for table in (truth, found) if len(table.labels)),
    default=0,
  )
  true_group, group = image_entries.groups(truth, found, num_classes)
  left, right = image_entries.pairs(group, true_group)
  overlap = box_pairs.overlaps(
    found.boxes[left], truth.boxes[right],
    one_sided=truth.ignored[right], inclusive=False,
  )  # fmt: skip
  near = overlap >= iou
  sure = found.scores[left] >= score
  is_found = np.zeros(len(truth.images), bool)
  is_found[right[near & sure]] = True
  is_right = np.zeros(len(found.images), bool)
  is_right[left[near]] = True
  missed = truth.images[~is_found & ~truth.ignored]
  is_wrong = ~is_right & (found.scores >= score)
  wrong, scores = found.images[is_wrong], found.scores[is_wrong]
  most = 1 + max((int(x.max()) for x in (missed, wrong) if len(x)), default=-1)
  num_missed = np.bincount(missed, minlength=most)
  num_wrong = np.bincount(wrong, minlength=most)
  badness = num_missed + np.bincount(wrong, scores, minlength=most)
  order = np.argsort(-badness, kind='stable')[:num]
  return [
    (int(i), f'{num_missed[i]} missed, {num_wrong[i]} wrong')
    for i in order
    if badness[i] > 0
  ]
