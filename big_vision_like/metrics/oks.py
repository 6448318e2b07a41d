"""Object keypoint similarity, COCO's measure of how near two poses are.

A keypoint off by d counts exp(-d^2 / (2 s^2 (2 sigma)^2)): s^2 is the area of
the object and sigma how far apart people place the keypoint, relative to s. The
similarity is the mean over keypoints.

Keypoints are float64 [n, K, 3] in COCO's order x, y, visibility; boxes x, y,
width, height. Sums are taken in the order of pycocotools, to the bit.
"""

from collections.abc import Sequence

import numpy as np

from big_vision_like.metrics import image_entries

_PAIRS_A_TIME = 1 << 16


def check_sigmas(sigmas: Sequence[float], num_keypoints: int) -> np.ndarray:
  """float64 [K].

  Raises:
    ValueError: another number of them, or one that is not above 0.
  """
  found = np.asarray(sigmas, np.float64)
  if found.shape != (num_keypoints,):
    raise ValueError(
      f'{num_keypoints} keypoints need as many sigmas, got {found.tolist()}'
    )
  if not (np.isfinite(found) & (found > 0)).all():
    raise ValueError(f'sigmas must be positive numbers, got {found.tolist()}')
  return found


def with_truth(
  found: np.ndarray,
  truth: np.ndarray,
  boxes: np.ndarray,
  area: np.ndarray,
  sigmas: np.ndarray,
) -> np.ndarray:
  """float64 [n]: similarity of a pose and an annotated one, one pair a row.

  The mean is over the labelled keypoints. Where none is labelled, it is over
  all, and d is the distance to the box enlarged three times about its centre.

  Args:
    found: [n, K, 3], whose third column plays no part.
    truth: [n, K, 3]; labelled is what has a visibility above 0.
    boxes: [n, 4] of the truth.
    area: [n] of the truth.
    sigmas: [K].
  """
  offset = found[..., :2] - truth[..., :2]
  labelled = truth[..., 2] > 0
  num = np.count_nonzero(labelled, axis=1)
  low = boxes[:, :2] - boxes[:, 2:]
  high = boxes[:, :2] + boxes[:, 2:] * 2
  none = num == 0
  place = found[none, :, :2]
  offset[none] = np.maximum(low[none, None] - place, 0) + np.maximum(
    place - high[none, None], 0
  )
  labelled[none], num[none] = True, labelled.shape[1]
  near = _nearness(offset, area, sigmas)
  similarity = np.empty(len(near))
  for count in np.unique(num).tolist():
    rows = num == count
    values = near[rows][labelled[rows]].reshape(-1, count)
    similarity[rows] = values.sum(axis=1) / count
  return similarity


def between(
  a: np.ndarray, b: np.ndarray, area: np.ndarray, sigmas: np.ndarray
) -> np.ndarray:
  """float64 [n]: similarity of two detected poses, one pair a row.

  Args:
    a, b: [n, K, 2 or more]; columns after the second play no part.
    area: [n], the mean of the areas of the two.
    sigmas: [K].
  """
  return _nearness(a[..., :2] - b[..., :2], area, sigmas).mean(axis=1)


def _nearness(
  offset: np.ndarray, area: np.ndarray, sigmas: np.ndarray
) -> np.ndarray:
  """float64 [n, K] of offsets [n, K, 2]."""
  squared = offset[..., 0] ** 2 + offset[..., 1] ** 2
  scale = area[:, None] + np.spacing(1)
  return np.exp(-(squared / (sigmas * 2) ** 2 / scale / 2))


def kept(
  images: np.ndarray,
  keypoints: np.ndarray,
  scores: np.ndarray,
  areas: np.ndarray,
  sigmas: Sequence[float],
  threshold: float = 0.5,
) -> np.ndarray:
  """bool [n]: poses that stay when those too like a better one go.

  In each image poses are met by falling score, of equal ones in their order;
  one goes if its similarity with one that stays exceeds the threshold.

  Args:
    images: int [n].
    keypoints: float [n, K, 2 or more].
    scores: float [n].
    areas: float [n] in pixels^2; of two poses the mean counts.
    sigmas: K of them.
    threshold: see above.

  Raises:
    ValueError: sigmas that are not K positive numbers.
  """
  checked = check_sigmas(sigmas, keypoints.shape[1])
  keypoints, areas = keypoints.astype(np.float64), areas.astype(np.float64)
  order = np.lexsort((-scores, images))
  rank = image_entries.ranks(images[order])
  better, worse = _too_near(
    images[order], keypoints[order], areas[order], rank, checked, threshold
  )
  by_turn = np.argsort(rank[better], kind='stable')
  better, worse = better[by_turn], worse[by_turn]
  ends = np.searchsorted(rank[better], np.arange(rank.max(initial=-1) + 2))
  stays = np.ones(len(order), bool)
  # In each turn every image has one pose that drives others out.
  for start, end in zip(ends[:-1].tolist(), ends[1:].tolist()):
    acting = stays[better[start:end]]
    stays[worse[start:end][acting]] = False
  result = np.empty(len(order), bool)
  result[order] = stays
  return result


def _too_near(
  images: np.ndarray,
  keypoints: np.ndarray,
  areas: np.ndarray,
  rank: np.ndarray,
  sigmas: np.ndarray,
  threshold: float,
) -> tuple[np.ndarray, np.ndarray]:
  """(better, worse) poses of an image whose similarity exceeds a threshold."""
  left, right = image_entries.pairs(images, images)
  ahead = rank[left] < rank[right]
  left, right = left[ahead], right[ahead]
  near = np.zeros(len(left), bool)
  for start in range(0, len(left), _PAIRS_A_TIME):
    part = slice(start, start + _PAIRS_A_TIME)
    a, b = left[part], right[part]
    area = (areas[a] + areas[b]) / 2
    alike = between(keypoints[a], keypoints[b], area, sigmas)
    near[part] = alike > threshold
  return left[near], right[near]
