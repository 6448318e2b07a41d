"""Which boxes are outside, beyond, or without an area, by hand."""

import numpy as np

from input_pipeline.image_sets import box_checks

# y0, x0, y1, x1 in an image of 10 x 20 -> outside, beyond, empty.
CASES = [
  ([0, 0, 10, 20], (0, 0, 0)),
  ([2, 3, 2, 9], (0, 0, 1)),
  ([2, 3, 5, 3], (0, 0, 1)),
  ([-1, 3, 5, 9], (0, 1, 0)),
  ([2, 3, 5, 20.5], (0, 1, 0)),
  ([10, 3, 12, 9], (1, 0, 0)),
  ([2, 20, 5, 20], (1, 0, 0)),
  ([-4, 3, 0, 9], (1, 0, 0)),
  ([2, -5, 2, 25], (0, 1, 1)),
]


def checked(sizes):
  boxes = np.array([box for box, _ in CASES], np.float32)
  return box_checks.check(boxes, np.array([sizes] * len(CASES)))


def test_by_hand():
  found = checked((10, 20))
  for row, (_, wanted) in enumerate(CASES):
    got = found.outside[row], found.beyond[row], found.empty[row]
    assert got == tuple(map(bool, wanted)), CASES[row]


def test_of_an_image_of_unknown_size_only_the_near_border_is_known():
  found = checked((0, 0))
  assert found.outside.tolist() == [False] * 7 + [True, False]
  assert found.beyond.tolist() == [False] * 3 + [True] + [False] * 4 + [True]


def test_no_boxes():
  found = box_checks.check(np.zeros((0, 4)), np.zeros((0, 2)))
  text = box_checks.line(found, str, 3)
  assert text == (
    '0 boxes, 0 without an area (kept), 0 outside their images (left out), 0 '
    'reach beyond the image (kept), 3 images without a box (kept)'
  )


def test_at_most_three_are_named():
  found = checked((10, 20))
  text = box_checks.line(found, lambda i: f'box {i}', 0)
  assert '3 without an area (kept): box 1; box 2; box 8, 3 outside' in text
