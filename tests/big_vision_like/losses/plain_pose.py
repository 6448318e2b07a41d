"""Losses of one person in float64 numpy, position by position."""

import math


def near(keypoint, i, j, stride, radius):
  """Whether position (i, j) is in the disc of a labelled keypoint."""
  y, x, visibility = (float(v) for v in keypoint)
  far = math.hypot(y - stride * i - 0.5, x - stride * j - 0.5) > radius
  return visibility > 0 and not far


def heatmap(logits, keypoints, stride, radius, unlabelled='mask', others=()):
  """Sum over [K, h, w] of the logistic loss.

  Not counted: what is within the discs of others [P][K, 3] alone.
  """
  total = 0.0
  for k, keypoint in enumerate(keypoints):
    if unlabelled == 'mask' and keypoint[2] == 0:
      continue
    for i, row in enumerate(logits[k]):
      for j, z in enumerate(row):
        own = near(keypoint, i, j, stride, radius)
        theirs = any(near(o[k], i, j, stride, radius) for o in others)
        if own or not theirs:
          total += math.log1p(math.exp(-float(z) if own else float(z)))
  return total


def offset(offsets, keypoints, stride, radius, delta):
  """Sum over the discs of the Huber loss of offsets [2, K, h, w]."""
  total = 0.0
  for k, keypoint in enumerate(keypoints):
    for i, row in enumerate(offsets[0, k]):
      for j, down in enumerate(row):
        if near(keypoint, i, j, stride, radius):
          y = float(down) - (keypoint[0] - stride * i - 0.5)
          x = float(offsets[1, k, i, j]) - (keypoint[1] - stride * j - 0.5)
          u = math.hypot(y, x)
          total += u * u / 2 if u <= delta else delta * (u - delta / 2)
  return total
