"""COCO's figures worked out by hand; pycocotools is in tests/peers."""

import numpy as np
import pytest

from big_vision_like.metrics import coco_detection
from big_vision_like.metrics.box_pairs import Detections, Truth

NAMES = ['cat', 'dog']


def truth(*rows):
  """Of (image, label, box, crowd) each."""
  boxes = np.asarray([row[2] for row in rows], np.float64).reshape(-1, 4)
  return Truth(
    np.asarray([row[0] for row in rows], np.int64),
    np.asarray([row[1] for row in rows], np.int32),
    boxes,
    boxes[:, 2] * boxes[:, 3],
    np.asarray([row[3] for row in rows], bool),
  )


def detections(*rows):
  """Of (image, label, box, score) each."""
  return Detections(
    np.asarray([row[0] for row in rows], np.int64),
    np.asarray([row[1] for row in rows], np.int32),
    np.asarray([row[2] for row in rows], np.float64).reshape(-1, 4),
    np.asarray([row[3] for row in rows], np.float64),
  )


BOX, FAR = [0, 0, 10, 10], [500, 500, 10, 10]


def test_one_box_found_behind_a_false_alarm():
  """Precision is 1/2 at all recalls and thresholds; IoU is 1."""
  found = coco_detection.figures(
    truth((7, 0, BOX, False)),
    detections((7, 0, FAR, 0.9), (7, 0, BOX, 0.8)),
    NAMES,
  )
  assert found == pytest.approx(
    {
      'ap': 50, 'ap50': 50, 'ap75': 50, 'ap_small': 50, 'ap/cat': 50,
      'ar1': 0, 'ar10': 100, 'ar100': 100, 'ar_small': 100,
    }
  )  # fmt: skip


def test_two_boxes_one_found():
  """Recall 1/2: 51 of 101 points have precision 1; IoU .7 passes 5 of 10."""
  found = coco_detection.figures(
    truth((1, 1, BOX, False), (2, 1, BOX, False)),
    detections((1, 1, [0, 0, 10, 7.2], 0.9)),
    NAMES,
  )
  assert found['ap50'] == pytest.approx(100 * 51 / 101)
  assert found['ap75'] == 0
  assert found['ap'] == pytest.approx(100 * 51 / 101 / 2)
  assert found['ar100'] == pytest.approx(25)
  assert 'ap/cat' not in found and 'ap_large' not in found


def test_crowds_take_any_number_and_count_nowhere():
  found = coco_detection.figures(
    truth((1, 0, BOX, False), (1, 0, [100, 100, 200, 200], True)),
    detections(
      (1, 0, [110, 110, 20, 20], 0.9),
      (1, 0, [150, 150, 20, 20], 0.8),
      (1, 0, BOX, 0.7),
    ),
    NAMES,
  )
  assert found['ap'] == pytest.approx(100)


@pytest.mark.parametrize('which', ['truth', 'detections', 'both'])
def test_nothing_there(which):
  rows, found = truth(), detections()
  if which == 'truth':
    found = detections((1, 0, BOX, 0.5))
  if which == 'detections':
    rows = truth((1, 0, BOX, False))
  figures = coco_detection.figures(rows, found, NAMES)
  if which == 'detections':
    assert set(figures.values()) == {0.0} and 'ap_small' in figures
  else:
    assert figures == {}


def test_mistakes_are_named():
  with pytest.raises(
    ValueError, match=r'detections: labels .* \[0, 2\), got 2'
  ):
    coco_detection.figures(truth(), detections((1, 2, BOX, 0.5)), NAMES)
  with pytest.raises(ValueError, match=r'scores of entry 0 .* \(image 4\)'):
    detections((4, 0, BOX, np.nan))
  with pytest.raises(ValueError, match=r'truth: boxes of entry 1'):
    truth((1, 0, BOX, False), (2, 0, [0, 0, np.inf, 1], False))
  with pytest.raises(ValueError, match=r'scores must have shape \(0,\)'):
    Detections(np.zeros(0, int), np.zeros(0, int), np.zeros((0, 4)), np.ones(1))
