"""Discs and offsets against plain numpy; what is not labelled has none."""

import functools

import jax
import numpy as np
import pytest

from big_vision_like.ops.keypoints import discs
from tests.big_vision_like.ops.keypoints import plain


def keypoints(*rows):
  return np.array(rows, np.float32)


def targets(keypoints, shape, *, stride, radius, of=discs.targets):
  run = functools.partial(of, shape=shape, stride=stride, radius=radius)
  return jax.jit(run)(keypoints)


def test_a_disc_of_the_paper_has_1961_pixels():
  found = targets(keypoints([30.5, 30.5, 2]), (61, 61), stride=1, radius=25)
  assert found.inside.sum() == 1961


def test_its_border_belongs_to_it():
  """3, 4 and 5: the pixel centre is as far as the radius."""
  inside = targets(keypoints([0.5, 0.5, 2]), (8, 8), stride=1, radius=5).inside[
    0
  ]
  assert inside[3, 4] and inside[0, 5] and not inside[3, 5]


@pytest.mark.parametrize('stride', [1, 4])
def test_against_loops(stride):
  """Inside, at the border, beyond it, far away."""
  shape, radius = (7, 9), 6.25
  places = [(9.25, 14.5), (0.0, 0.0), (28.0, 36.0), (-3.5, 10.0), (90, 90)]
  given = keypoints(*((*place, 1 + n % 2) for n, place in enumerate(places)))
  found = targets(given, shape, stride=stride, radius=radius)
  for k, place in enumerate(places):
    np.testing.assert_array_equal(
      found.inside[k], plain.disc(place, shape, stride, radius)
    )
    down, right = plain.way(place, shape, stride)
    np.testing.assert_array_equal(found.down[k, :, 0], down[:, 0])
    np.testing.assert_array_equal(found.right[k, 0], right[0])
  assert not found.inside[4].any()
  assert found.inside[1].any()


@pytest.mark.parametrize('place', [0.0, np.nan, np.inf])
def test_what_is_not_labelled_has_no_disc(place):
  found = targets(keypoints([place, place, 0]), (4, 4), stride=1, radius=9)
  assert not found.inside.any() and not found.labelled.any()
  assert np.isfinite(found.down).all() and np.isfinite(found.right).all()


def test_the_discs_of_others_are_joined():
  """By keypoint; the places of nobody have none."""
  shape, grid = (6, 6), dict(stride=2, radius=3.0)
  people = keypoints(
    [1, 1, 2], [9, 9, 1], [11, 2, 2], [0, 0, 0], [0, 0, 0], [0, 0, 0]
  ).reshape(3, 2, 3)
  found = targets(people, shape, **grid, of=discs.of_others)
  expected = [
    plain.disc((1, 1), shape, 2, 3) | plain.disc((11, 2), shape, 2, 3),
    plain.disc((9, 9), shape, 2, 3),
  ]
  np.testing.assert_array_equal(found, expected)
  nobody = targets(np.zeros((4, 0, 2, 3)), shape, **grid, of=discs.of_others)
  assert nobody.shape == (4, 2, *shape) and not nobody.any()
