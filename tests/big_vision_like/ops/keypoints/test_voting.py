"""Votes against float64 numpy; the peak of perfect maps is known."""

import functools
import math

import jax
import numpy as np
import pytest

from big_vision_like.ops.keypoints import poses, voting
from tests.big_vision_like.ops.keypoints import plain

METHODS = 'scatter', 'matmul'
SHAPE, GRID, STRIDE, RADIUS = (65, 41), (9, 6), 8, 12.0  # 2,665 pixels


@functools.partial(jax.jit, static_argnums=(1, 2))
def _fuse(maps, shape, options):
  return voting.fuse(maps, shape, **dict(options))


def fuse(maps, shape=SHAPE, radius=RADIUS, **options):
  options = tuple({'radius': radius, **options}.items())
  return np.asarray(_fuse(maps, shape, options))


def noisy(seed=0, num=2, reach=20.0):
  """Logits and offsets of a net that knows nothing: some leave the crop."""
  rng = np.random.default_rng(seed)
  logits = rng.normal(0, 2, (*GRID, num))
  offsets = rng.uniform(-reach, reach, (*GRID, 2 * num))
  return np.concatenate([logits, offsets], -1).astype(np.float32)


@pytest.mark.parametrize('method', METHODS)
@pytest.mark.parametrize('which', voting.VOTING)
def test_the_peak_of_a_disc(which, method):
  """Each of the 1,961 pixels of a disc votes for its centre."""
  shape = 57, 61
  maps = plain.perfect([(28.5, 30.5)], shape, 1, 25)
  fused = fuse(maps, shape, 25.0, voting=which, method=method)
  assert fused.max() == pytest.approx(1961 / (math.pi * 625), rel=1e-5)
  assert np.unravel_index(fused[0].argmax(), shape) == (28, 30)
  assert fused.sum() == pytest.approx(fused.max(), rel=1e-5)


@pytest.mark.parametrize('method', METHODS)
def test_exact_is_numpy(method):
  maps = noisy()
  expected = plain.votes(plain.fine(maps, SHAPE, STRIDE), SHAPE, 1, RADIUS)
  found = fuse(maps, voting='exact', method=method)
  np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)
  all_votes = plain.votes(
    plain.fine(maps, SHAPE, STRIDE), (200, 200), 1, RADIUS
  )
  assert found.sum() < 0.95 * all_votes.sum()  # some fell outside


@pytest.mark.parametrize('method', METHODS)
def test_top_is_numpy_on_the_strongest_cells(method):
  maps = noisy(1)
  num = voting.num_cells(RADIUS, STRIDE)
  assert num == 34 < len(maps[..., 0].ravel()) == 54
  fine = plain.fine(maps, SHAPE, STRIDE)
  chosen = plain.strongest_cells(maps, SHAPE, STRIDE, num)
  expected = plain.votes(fine, SHAPE, 1, RADIUS, chosen)
  np.testing.assert_allclose(
    fuse(maps, voting='top', method=method), expected, rtol=0, atol=1e-6
  )
  assert abs(expected - plain.votes(fine, SHAPE, 1, RADIUS)).max() > 1e-4


@pytest.mark.parametrize('method', METHODS)
def test_grid_is_numpy_on_the_features(method):
  maps = noisy(2)
  expected = plain.votes(np.moveaxis(maps, -1, 0), SHAPE, STRIDE, RADIUS)
  np.testing.assert_allclose(
    fuse(maps, voting='grid', method=method), expected, rtol=0, atol=1e-6
  )


@pytest.mark.parametrize('radius', [3.0, 12.0, 20.0])
def test_the_strongest_cells_hold_a_disc(radius):
  """Of any size, wherever it lies between the features."""
  for place in ((32.5, 20.5), (29.0, 17.0), (27.25, 23.5)):
    maps = plain.perfect([place], GRID, STRIDE, radius)
    maps[..., 0] = np.clip(radius - np.hypot(*maps[..., 1:].T).T, -40, 40)
    top, exact = (fuse(maps, radius=radius, voting=w) for w in ('top', 'exact'))
    assert top.argmax() == exact.argmax()
    assert top.max() > 0.99 * exact.max()


@pytest.mark.parametrize('which', voting.VOTING)
@pytest.mark.parametrize(
  'place', [(0.5, 0.5), (64.5, 40.5), (0.5, 40.5), (32.5, 0.5)]
)
def test_keypoints_at_borders_are_found(which, place):
  """A quarter or a half of a disc is left to vote for them."""
  # Seen from pixels, or the interpolated border of a coarse disc decides.
  stride = STRIDE if which == 'grid' else 1
  grid = GRID if which == 'grid' else SHAPE
  fused = fuse(plain.perfect([place], grid, stride, RADIUS), voting=which)
  points, confidences = jax.jit(poses.peaks)(fused)
  assert points[0].tolist() == list(place)
  count = plain.disc(place, grid, stride, RADIUS).sum()
  expected = count * stride**2 / (math.pi * RADIUS**2)
  assert confidences[0] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize('method', METHODS)
@pytest.mark.parametrize('wild', [np.nan, np.inf, -np.inf, 1e30, -1e9])
def test_wild_offsets_vote_for_nothing(method, wild):
  maps = noisy(3)
  maps[..., 2:] = wild  # of both keypoints, in both directions
  for which in voting.VOTING:
    assert not fuse(maps, voting=which, method=method).any()


def test_ties_and_empty_maps():
  """Of equal pixels the first; without votes the first pixel and 0."""
  maps = np.zeros((3, 2, 3), np.float32)
  maps[1, 1, 0] = maps[1, 0, 2] = maps[1, 1, 2] = 0.5
  maps[2, 1, 2] = 1
  points, values = jax.jit(poses.peaks)(maps)
  assert values.tolist() == [0, 0.5, 1]
  assert points.tolist() == [[0.5, 0.5], [0.5, 2.5], [1.5, 2.5]]


def test_a_pose_in_its_image():
  """A crop from (100, 40), halved: by hand."""
  places = [(28.5, 30.5), (10.5, 20.5)]
  maps = plain.perfect(places, (57, 61), 1, 8)
  back = np.array([[2, 0, 100], [0, 2, 40]], np.float32)
  pose = functools.partial(poses.pose, shape=(57, 61), radius=8.0)
  found = jax.jit(pose)(maps, back)
  np.testing.assert_allclose(
    found.keypoints[:, :2], [(157, 101), (121, 81)], rtol=0, atol=0
  )
  peak = 197 / (math.pi * 64)
  np.testing.assert_allclose(found.keypoints[:, 2], peak, rtol=1e-5)
  assert found.scores == pytest.approx(peak, rel=1e-5)


def test_a_rotation_is_a_product():
  rng = np.random.default_rng(0)
  points, back = rng.normal(size=(3, 5, 2)), rng.normal(size=(3, 2, 3))
  homogeneous = np.concatenate([points, np.ones((3, 5, 1))], -1)
  expected = np.einsum('bij,bkj->bki', back, homogeneous)
  found = poses.to_image(np.float32(points), np.float32(back))
  np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
