"""COCO's figures of poses worked out by hand; pycocotools is in tests/peers."""

import numpy as np
import pytest

from big_vision_like.metrics import coco_keypoints
from big_vision_like.metrics.coco_keypoints import Poses, Truth

NAMES = ['person']
SIGMAS = [0.05, 0.05]
BOX = [0, 0, 50, 50]
PLACE = [[10, 10, 2], [40, 40, 2]]


def truth(*rows):
  """Of (image, keypoints, crowd) each, of 50 x 50 pixels."""
  num = len(rows)
  return Truth(
    np.asarray([row[0] for row in rows], np.int64),
    np.zeros(num, np.int32),
    np.asarray([row[1] for row in rows], np.float64).reshape(-1, 2, 3),
    np.tile(np.asarray(BOX, np.float64), (num, 1)),
    np.full(num, 2500.0),
    np.asarray([row[2] for row in rows], bool),
  )


def poses(*rows):
  """Of (image, keypoints, score) each."""
  return Poses(
    np.asarray([row[0] for row in rows], np.int64),
    np.zeros(len(rows), np.int32),
    np.asarray([row[1] for row in rows], np.float64).reshape(-1, 2, 3),
    np.asarray([row[2] for row in rows], np.float64),
  )


def figures(there, found, sigmas=SIGMAS):
  return coco_keypoints.figures(there, found, NAMES, sigmas)


def moved(x, y):
  return [[px + x, py + y, 1] for px, py, _ in PLACE]


def test_a_pose_that_is_a_little_off():
  """s is 50, 2 sigma .1: d of 5 is e of 1/2 for both keypoints, OKS .607."""
  found = figures(truth((7, PLACE, False)), poses((7, moved(3, 4), 0.9)))
  assert found == pytest.approx(
    {
      'ap': 30, 'ap50': 100, 'ap75': 0, 'ap_medium': 30,
      'ar': 30, 'ar50': 100, 'ar75': 0, 'ar_medium': 30,
    }
  )  # fmt: skip


def test_only_labelled_keypoints_are_measured():
  half = [PLACE[0], [0, 0, 0]]
  wrong = [[10, 10, 1], [400, 400, 1]]
  found = figures(truth((7, half, False)), poses((7, wrong, 0.9)))
  assert found['ap'] == pytest.approx(100)


def test_people_without_keypoints_and_crowds_count_nowhere():
  """One without keypoints forgives one pose, a crowd any number."""
  bare = [[0, 0, 0], [0, 0, 0]]
  there = truth((1, PLACE, False), (2, bare, False), (3, PLACE, True))
  right, at_edge = (1, PLACE, 0.1), [[-50, -50, 1], [100, 100, 1]]
  forgiven = [(2, at_edge, 0.9), (3, PLACE, 0.8), (3, PLACE, 0.7)]
  assert figures(there, poses(right, *forgiven))['ap'] == pytest.approx(100)
  again = (2, at_edge, 0.85)
  found = figures(there, poses(right, *forgiven, again))
  assert found['ap'] == pytest.approx(50)
  assert 'ap_large' not in found


def test_the_twenty_first_pose_of_an_image_plays_no_part():
  wrong = [(1, moved(300, 0), 0.9)] * 20
  found = figures(truth((1, PLACE, False)), poses(*wrong, (1, PLACE, 0.1)))
  assert found['ar'] == 0


@pytest.mark.parametrize('which', ['truth', 'detections', 'both'])
def test_nothing_there(which):
  there, found = truth(), poses()
  if which == 'truth':
    found = poses((1, PLACE, 0.5))
  if which == 'detections':
    there = truth((1, PLACE, False))
  result = figures(there, found)
  if which == 'detections':
    assert set(result.values()) == {0.0} and 'ap_medium' in result
  else:
    assert result == {}


def test_mistakes_are_named():
  there, found = truth((1, PLACE, False)), poses((1, PLACE, 0.5))
  with pytest.raises(ValueError, match=r'2 keypoints need as many sigmas'):
    figures(there, found, [0.05])
  with pytest.raises(ValueError, match=r'sigmas must be positive'):
    figures(there, found, [0.05, 0.0])
  three = Poses(
    np.ones(1, int), np.zeros(1, int), np.zeros((1, 3, 3)), np.ones(1)
  )
  with pytest.raises(ValueError, match=r'detections have 3 .* the truth 2'):
    figures(there, three)
  with pytest.raises(ValueError, match=r'keypoints of entry 0 .* \(image 4\)'):
    poses((4, [[0, np.nan, 1], [0, 0, 1]], 0.5))
  with pytest.raises(ValueError, match=r'keypoints must be \[n, K, 3\]'):
    Poses(np.ones(1, int), np.ones(1, int), np.zeros((1, 6)), np.ones(1))
  other = Truth(**{**vars(there), 'labels': np.array([1])})
  with pytest.raises(ValueError, match=r'labels must lie in \[0, 1\), got 1'):
    figures(other, found)
