"""Similarity of poses and their suppression, against one pose at a time."""

import math

import numpy as np
import pytest

from big_vision_like.metrics import oks

SIGMAS = [0.05, 0.1, 0.025]


def alike(a, b, area, sigmas):
  """The definition, in Python's own numbers."""
  total = 0.0
  for (y0, x0, *_), (y1, x1, *_), sigma in zip(a, b, sigmas):
    squared = (y0 - y1) ** 2 + (x0 - x1) ** 2
    total += math.exp(-squared / (2 * area * (2 * sigma) ** 2))
  return total / len(a)


def greedy(images, keypoints, scores, areas, sigmas, threshold):
  """One pose after another."""
  order = sorted(range(len(images)), key=lambda i: (-scores[i], i))
  kept = []
  for i in order:
    if not any(
      images[i] == images[j]
      and alike(
        keypoints[i], keypoints[j], (areas[i] + areas[j]) / 2, sigmas
      ) > threshold
      for j in kept
    ):  # fmt: skip
      kept.append(i)
  return np.isin(np.arange(len(images)), kept)


def scattered(seed, num=120, images=9):
  """Poses near a few places, scores with equals, images in no order."""
  rng = np.random.default_rng(seed)
  places = rng.uniform(0, 60, (images, 3, len(SIGMAS), 2))
  image = rng.integers(0, images, num)
  near = places[image, rng.integers(0, 3, num)]
  keypoints = near + rng.normal(0, 3, near.shape)
  return (
    image * 7,
    np.concatenate([keypoints, np.ones((num, len(SIGMAS), 1))], axis=2),
    np.round(rng.random(num), 1),
    rng.uniform(200, 3000, num),
  )


@pytest.mark.parametrize('threshold', [0.0, 0.3, 0.5, 0.7])
def test_kept_as_one_by_one(threshold):
  poses = scattered(int(10 * threshold))
  expected = greedy(*poses, SIGMAS, threshold)
  assert 9 <= expected.sum() < len(expected)
  np.testing.assert_array_equal(oks.kept(*poses, SIGMAS, threshold), expected)


def test_similarity_of_two_poses():
  _, points, _, areas = scattered(1, num=20)
  a, b = points[:10], points[10:]
  found = oks.between(a, b, areas[:10], np.array(SIGMAS))
  expected = [alike(*row, SIGMAS) for row in zip(a, b, areas[:10])]
  np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_only_what_exceeds_the_threshold_goes():
  """Of two keypoints one agrees and one is nowhere near: exactly 1/2."""
  points = np.array([[[0, 0], [0, 0]], [[0, 0], [1e6, 0]]], float)
  arguments = np.zeros(2, int), points, np.array([0.9, 0.8]), np.full(2, 100.0)
  assert oks.kept(*arguments, SIGMAS[:2], 0.5).tolist() == [True, True]
  assert oks.kept(*arguments, SIGMAS[:2], 0.49).tolist() == [True, False]


def test_what_was_driven_out_drives_none_out():
  """b is near a and c near b; a and c are apart: a and c stay."""
  points = np.array([[[0, 0]], [[4, 0]], [[8, 0]]], float)
  scores, areas = np.array([0.9, 0.8, 0.7]), np.full(3, 900.0)
  found = oks.kept(np.zeros(3, int), points, scores, areas, [0.05], 0.3)
  assert found.tolist() == [True, False, True]


def test_of_equal_scores_the_first_stays():
  points = np.zeros((3, 1, 2))
  found = oks.kept(
    np.array([2, 1, 2]), points, np.ones(3), np.zeros(3), [0.05]
  )  # fmt: skip
  assert found.tolist() == [True, True, False]  # without an area too


def test_no_poses():
  empty = np.zeros(0)
  found = oks.kept(empty, np.zeros((0, 2, 3)), empty, empty, SIGMAS[:2])
  assert found.shape == (0,) and found.dtype == bool


def test_wrong_sigmas():
  empty = np.zeros(0)
  for sigmas, words in (
    ([0.05], '3 keypoints need as many'),
    ([0.05, 0.1, -1], 'must be positive'),
    ([0.05, 0.1, np.nan], 'must be positive'),
  ):
    with pytest.raises(ValueError, match=words):
      oks.kept(empty, np.zeros((0, 3, 2)), empty, empty, sigmas)
