"""Polygons and run lengths against hand-made cases and pycocotools."""

import fractions

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from input_pipeline.examples import outlines

SQUARE = [[1.0, 2.0, 5.0, 2.0, 5.0, 4.0, 1.0, 4.0]]  # x 1 to 5, y 2 to 4


def test_pixels_of_a_square_by_hand():
  expected = np.zeros((6, 8), bool)
  expected[2:4, 1:5] = True
  np.testing.assert_array_equal(outlines.mask(SQUARE, 6, 8), expected)
  assert outlines.area(SQUARE) == 8


def test_several_polygons_are_united():
  two = [*SQUARE, [4.0, 3.0, 7.0, 3.0, 7.0, 6.0, 4.0, 6.0]]
  expected = np.zeros((6, 8), bool)
  expected[2:4, 1:5] = True
  expected[3:6, 4:7] = True
  np.testing.assert_array_equal(outlines.mask(two, 6, 8), expected)


def brute_force(polygon, height, width):
  """Winding by the angle sum around each pixel's centre."""
  corners = np.reshape(polygon, (-1, 2))
  inside = np.zeros((height, width), bool)
  for row in range(height):
    for column in range(width):
      a = corners - (column + 0.5, row + 0.5)
      b = np.roll(a, -1, axis=0)
      cross = a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]
      angles = np.arctan2(cross, (a * b).sum(1))
      inside[row, column] = abs(angles.sum()) > np.pi
  return inside


@pytest.mark.parametrize('seed', range(8))
def test_a_triangle_is_filled_by_pixel_centres(seed):
  corners = np.random.default_rng(seed).uniform(-3, 15, 6).tolist()
  np.testing.assert_array_equal(
    outlines.mask([corners], 11, 13), brute_force(corners, 11, 13)
  )


def test_run_lengths_by_hand():
  # Down the columns: 3 pixels out, 2 in, 1 out, 2 in, 1 out of a 3x3 image.
  runs = {'size': [3, 3], 'counts': [3, 2, 1, 2, 1]}
  expected = np.array([[0, 1, 1], [0, 1, 1], [0, 0, 0]], bool)
  np.testing.assert_array_equal(outlines.mask(runs, 3, 3), expected)
  assert outlines.area(runs) == 4
  # Twice the size: every pixel becomes four.
  double = outlines.mask(runs, 6, 6)
  np.testing.assert_array_equal(double, expected.repeat(2, 0).repeat(2, 1))


def test_packed_run_lengths_by_hand():
  # 3 -> '3'; 2 -> '2'; 1 -> '1'; 2 - 2 = 0 -> '0'; 1 - 1 = 0 -> '0'
  runs = {'size': [3, 3], 'counts': '32100'}
  plain = {'size': [3, 3], 'counts': [3, 2, 1, 2, 1]}
  np.testing.assert_array_equal(
    outlines.mask(runs, 3, 3), outlines.mask(plain, 3, 3)
  )


def test_runs_that_do_not_add_up_are_refused():
  with pytest.raises(ValueError, match='add up to 7 where their size is 3x3'):
    outlines.mask({'size': [3, 3], 'counts': [3, 4]}, 3, 3)


@pytest.mark.filterwarnings('ignore:__array__:DeprecationWarning')
@pytest.mark.parametrize('seed', range(5))
def test_masks_are_those_of_pycocotools(seed):
  api = pytest.importorskip('pycocotools.mask')
  rng = np.random.default_rng(seed)
  inside = rng.random((37, 53)) < rng.choice([0.02, 0.5, 0.98])
  packed = api.encode(np.asfortranarray(inside.astype(np.uint8)))
  np.testing.assert_array_equal(outlines.mask(packed, 37, 53), inside)
  assert outlines.area(packed) == api.area(packed)
  angle = np.sort(rng.uniform(0, 2 * np.pi, 12))
  reach = rng.uniform(10, 25, 12)
  x, y = 30 + reach * np.cos(angle), 28 + reach * np.sin(angle)
  star = [np.stack([x, y], 1).ravel().tolist()]
  theirs = api.decode(api.merge(api.frPyObjects(star, 60, 61))).astype(bool)
  ours = outlines.mask(star, 60, 61)
  # The mask API rounds corners to a fifth of a pixel first.
  assert (ours ^ theirs).sum() < 0.05 * theirs.sum()


@pytest.mark.parametrize('seed', range(10))
def test_a_cropped_outline_fills_the_cropped_pixels(seed):
  rng = np.random.default_rng(seed)
  polygons = rng.uniform(0, 20, (2, 10)).tolist()  # may cross themselves
  runs = outlines._to_runs(rng.random((20, 20)) < 0.5)
  top, left = rng.integers(0, 12, 2).tolist()
  for outline in (polygons, runs):
    whole = outlines.mask(outline, 20, 20)
    cut = outlines.crop(outline, top, left, (8, 6), (20, 20))
    np.testing.assert_array_equal(
      outlines.mask(cut, 8, 6), whole[top : top + 8, left : left + 6]
    )


@pytest.mark.parametrize('seed', range(5))
def test_a_flipped_outline_fills_the_flipped_pixels(seed):
  rng = np.random.default_rng(seed)
  polygons = rng.uniform(0, 20, (2, 10)).tolist()
  runs = outlines._to_runs(rng.random((20, 20)) < 0.5)
  for outline in (polygons, runs):
    np.testing.assert_array_equal(
      outlines.mask(outlines.flip(outline, 20, 20), 20, 20),
      outlines.mask(outline, 20, 20)[:, ::-1],
    )


def test_a_polygon_outside_the_window_is_gone():
  assert outlines.crop(SQUARE, 0, 5, (6, 3), (6, 8)) == []


@hypothesis.given(st.integers(1, 300), st.integers(1, 300))
def test_nearest_index_is_the_pixel_of_the_centre(source, target):
  expected = [
    (fractions.Fraction(2 * i + 1, 2) * source / target).__floor__()
    for i in range(target)
  ]
  assert outlines.nearest_index(source, target).tolist() == expected
