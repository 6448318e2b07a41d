"""Poses drawn beside the truth."""

import numpy as np

from big_vision_like.pages import pose_sheet

POINTS = np.array([[[35, 30, 0.9], [60, 50, 0.1]]], np.float32)
FOUND = {
  'keypoints': POINTS,
  'scores': np.array([0.5], np.float32),
  'boxes': np.array([[20, 20, 70, 60]], np.float32),
}


def test_sure_keypoints_are_filled():
  picture = pose_sheet.detected(np.zeros((320, 320, 3), np.uint8), FOUND)
  assert picture.shape == (320, 320, 3)
  assert picture[35, 30].tolist() == [255, 255, 255]  # within the point
  assert picture[60, 50].tolist() == [0, 0, 0]  # a ring around it
  assert picture[60, 53].any() and picture[45, 20].any()  # and the box


def test_on_an_image_that_is_stored_smaller():
  """What is found is in pixels twice and four times as small."""
  larger = {
    **FOUND,
    'keypoints': POINTS * [2, 4, 1],
    'boxes': FOUND['boxes'] * [2, 4, 2, 4],
  }
  image = np.zeros((320, 320, 3), np.uint8)
  np.testing.assert_array_equal(
    pose_sheet.detected(image, larger, (1 / 2, 1 / 4)),
    pose_sheet.detected(image, FOUND),
  )


def test_nothing_found():
  image = np.full((40, 80, 3), 9, np.uint8)
  empty = {name: value[:0] for name, value in FOUND.items()}
  assert (pose_sheet.detected(image, empty) == 9).all()
