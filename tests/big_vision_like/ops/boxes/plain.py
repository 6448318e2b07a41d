"""Box operations in float64 numpy, one pair and one box at a time."""

import numpy as np


def area(box):
  return max(box[2] - box[0], 0.0) * max(box[3] - box[1], 0.0)


def shared(a, b):
  top, left = np.maximum(a[:2], b[:2])
  bottom, right = np.minimum(a[2:], b[2:])
  return max(bottom - top, 0.0) * max(right - left, 0.0)


def iou(a, b):
  common = shared(a, b)
  return common / (area(a) + area(b) - common) if common else 0.0


def iou_matrix(a, b):
  wide = lambda boxes: np.asarray(boxes, np.float64)
  return np.array([[iou(x, y) for y in wide(b)] for x in wide(a)])


def suppress(boxes, scores, mask, threshold, k):
  """Greedy suppression: kept indices, best first."""
  wide = np.asarray(boxes, np.float64)
  order = [i for i in np.argsort(-scores, kind='stable') if mask[i]]
  kept = []
  for i in order:
    if len(kept) < k and all(iou(wide[i], wide[j]) <= threshold for j in kept):
      kept.append(int(i))
  return kept


def random_boxes(rng, num, extent=100.0, smallest=4.0, largest=60.0):
  """float32 [num, 4] around an image of `extent` pixels a side."""
  side = np.exp(rng.uniform(np.log(smallest), np.log(largest), (num, 2)))
  centre = rng.uniform(0, extent, (num, 2))
  return np.concatenate([centre - side / 2, centre + side / 2], 1).astype(
    np.float32
  )
