"""The images whose people are found worst."""

import numpy as np
import pytest

from big_vision_like.metrics import pose_mistakes
from big_vision_like.metrics.coco_keypoints import Poses, Truth

PLACE = [[10, 10, 2], [40, 40, 2]]
BARE = [[0, 0, 0], [0, 0, 0]]


def truth(*rows):
  num = len(rows)
  return Truth(
    np.array([image for image, _ in rows], np.int64),
    np.zeros(num, np.int64),
    np.array([points for _, points in rows], float).reshape(-1, 2, 3),
    np.tile([0.0, 0, 50, 50], (num, 1)),
    np.full(num, 2500.0),
    np.zeros(num, bool),
  )


def poses(*rows):
  num = len(rows)
  return Poses(
    np.array([image for image, _ in rows], np.int64),
    np.zeros(num, np.int64),
    np.array([points for _, points in rows], float).reshape(-1, 2, 3),
    np.ones(num),
  )


def test_by_what_people_lack():
  """Image 3 has nobody found, 1 one of two exactly, 0 all, 2 nobody to find."""
  there = truth((0, PLACE), (1, PLACE), (1, PLACE), (2, BARE), (3, PLACE))
  half = [[10, 10, 1], [9e9, 0, 1]]
  found = poses((0, PLACE), (1, half), (3, [[9e9, 9e9, 1]] * 2), (2, PLACE))
  chosen = pose_mistakes.worst(there, found, 9, [0.05, 0.05])
  assert chosen == [
    (1, '0 of 2 missed (similarity below 0.5), mean 0.50'),
    (3, '1 of 1 missed (similarity below 0.5), mean 0.00'),
  ]
  assert pose_mistakes.worst(there, found, 1, [0.05, 0.05]) == chosen[:1]


def test_nothing_there():
  assert pose_mistakes.worst(truth(), poses(), 5, [0.1, 0.1]) == []
  with pytest.raises(ValueError, match='2 keypoints need as many sigmas'):
    pose_mistakes.worst(truth(), poses(), 5, [0.1])
