"""Losses of a pose net against float64 numpy, position by position."""

import functools
import math

import jax
import numpy as np
import pytest

from big_vision_like.losses import pose as losses
from big_vision_like.ops.keypoints import discs
from tests.big_vision_like.losses import plain_pose

SHAPE, STRIDE, RADIUS = (5, 6), 4, 7.25
KEYPOINTS = np.array(
  [
    [[9.25, 12.5, 2], [0.0, 25.75, 1], [11, 11, 0]],
    [[-3.5, 4.0, 2], [np.nan, 3, 0], [19.5, 22.5, 2]],
  ],
  np.float32,
)
OTHERS = np.array(
  [
    [[[14, 12.5, 2], [4, 20, 1], [6, 6, 2]], [[2, 2, 1], [9, 9, 0], [1, 1, 2]]],
    [[[0.0, 0, 0]] * 3] * 2,
  ],
  np.float32,
)
REDUCTIONS = 'mean', 'sum'


def maps(*shape):
  return np.random.default_rng(0).normal(0, 2, shape).astype(np.float32)


LOGITS, OFFSETS = maps(2, 3, *SHAPE), 4 * maps(2, 2, 3, *SHAPE)


def near(keypoint, i, j):
  return plain_pose.near(keypoint, i, j, STRIDE, RADIUS)


def positions():
  return [(i, j) for i in range(SHAPE[0]) for j in range(SHAPE[1])]


def run(loss, values, of_others=None, keypoints=KEYPOINTS, **options):
  def program(values, keypoints):
    grid = dict(stride=STRIDE, radius=RADIUS)
    more = dict(options)
    if of_others is not None:
      more['excluded'] = discs.of_others(of_others, SHAPE, **grid)
    targets = discs.targets(keypoints, SHAPE, **grid)
    return loss(values, targets, **more)

  found = jax.jit(program)(values, keypoints)
  grads = jax.jit(jax.grad(lambda *args: program(*args).sum()))
  return np.asarray(found), np.asarray(grads(values, keypoints))


def made():
  grid = dict(stride=STRIDE, radius=RADIUS)
  return jax.jit(functools.partial(discs.targets, shape=SHAPE, **grid))(
    KEYPOINTS
  )


def divided(expected, reduction):
  return np.array(expected) / (30 if reduction == 'mean' else 1)


@pytest.mark.parametrize('reduction', REDUCTIONS)
@pytest.mark.parametrize('unlabelled', ['mask', 'negative'])
def test_heatmaps(unlabelled, reduction):
  options: dict = dict(unlabelled=unlabelled, reduction=reduction)
  found, grads = run(losses.of_heatmaps, LOGITS, **options)
  expected = [
    plain_pose.heatmap(*p, STRIDE, RADIUS, unlabelled)
    for p in zip(LOGITS, KEYPOINTS)
  ]
  np.testing.assert_allclose(found, divided(expected, reduction), rtol=1e-5)
  assert grads[0, 2].any() == (unlabelled == 'negative')
  assert found.dtype == np.float32


@pytest.mark.parametrize('unlabelled', ['mask', 'negative'])
def test_heatmaps_without_the_discs_of_others(unlabelled):
  """They count where they lie in the person's own."""
  found, grads = run(
    losses.of_heatmaps, LOGITS, OTHERS, unlabelled=unlabelled, reduction='sum'
  )
  expected = [
    plain_pose.heatmap(*p, STRIDE, RADIUS, unlabelled, others)
    for *p, others in zip(LOGITS, KEYPOINTS, OTHERS)
  ]
  np.testing.assert_allclose(found, expected, rtol=1e-5)
  silent = [ij for ij in positions() if not grads[0, 0][ij]]
  own = [ij for ij in positions() if near(KEYPOINTS[0, 0], *ij)]
  theirs = [ij for ij in positions() if any(near(o[0], *ij) for o in OTHERS[0])]
  assert silent and set(silent) == set(theirs) - set(own)
  assert set(theirs) & set(own)


@pytest.mark.parametrize('reduction', REDUCTIONS)
@pytest.mark.parametrize('delta', [1.0, 5.0])
def test_offsets(delta, reduction):
  found, _ = run(losses.of_offsets, OFFSETS, delta=delta, reduction=reduction)
  expected = [
    plain_pose.offset(*p, STRIDE, RADIUS, delta)
    for p in zip(OFFSETS, KEYPOINTS)
  ]
  np.testing.assert_allclose(found, divided(expected, reduction), rtol=1e-5)


@pytest.mark.parametrize('delta', [1.0, 5.0])
def test_gradient_of_offsets(delta):
  """The error itself where it is short, its direction where it is long."""
  _, grads = run(losses.of_offsets, OFFSETS, delta=delta, reduction='sum')
  expected = np.zeros(OFFSETS.shape)
  for b, k, (i, j) in ((b, k, p) for b in (0, 1) for k in range(3)
                       for p in positions()):  # fmt: skip
    keypoint = KEYPOINTS[b, k]
    if near(keypoint, i, j):
      place = np.array([i, j]) * STRIDE + 0.5
      error = OFFSETS[b, :, k, i, j] - (keypoint[:2] - place)
      expected[b, :, k, i, j] = error / max(np.hypot(*error) / delta, 1)
  assert (np.abs(expected) > 0).any()
  np.testing.assert_allclose(grads, expected, rtol=1e-4, atol=1e-6)


def test_gradient_of_heatmaps():
  _, grads = run(losses.of_heatmaps, LOGITS, reduction='sum')
  for k, keypoint in enumerate(KEYPOINTS[0][:2]):
    for i, j in positions():
      p = 1 / (1 + math.exp(-float(LOGITS[0, k, i, j])))
      expected = p - near(keypoint, i, j)
      assert grads[0, k, i, j] == pytest.approx(expected, rel=1e-4, abs=1e-6)


def test_perfect_offsets_have_no_loss_and_a_finite_gradient():
  targets = made()
  ways = targets.down, targets.right
  exact = np.stack([np.broadcast_to(x, LOGITS.shape) for x in ways], axis=1)
  found, grads = run(losses.of_offsets, exact, reduction='sum')
  assert not found.any() and not grads.any()


def test_silent_logits_cost_ln2_a_keypoint():
  """Whatever the size of the map and of the discs."""
  labelled = np.where([0, 0, 1], 1, KEYPOINTS).astype(np.float32)
  labelled = np.nan_to_num(labelled)
  found, _ = run(losses.of_heatmaps, 0 * LOGITS, keypoints=labelled)
  np.testing.assert_allclose(found, 3 * math.log(2), rtol=1e-6)


def test_a_person_without_labels_has_no_loss():
  """As a blank that fills a batch."""
  blank = np.zeros_like(KEYPOINTS)
  for loss, values in (
    (losses.of_heatmaps, LOGITS), (losses.of_offsets, OFFSETS),
  ):  # fmt: skip
    found, grads = run(loss, values, keypoints=blank)
    assert not found.any() and not grads.any()


@pytest.mark.parametrize('reduction', REDUCTIONS)
def test_large_values_do_not_overflow(reduction):
  for loss, values in (
    (losses.of_heatmaps, 1e4 * LOGITS), (losses.of_offsets, 1e10 * OFFSETS),
  ):  # fmt: skip
    found, grads = run(loss, values, reduction=reduction)
    assert np.isfinite(found).all() and np.isfinite(grads).all()


def test_a_labelled_place_that_is_no_number_stops_a_run():
  wrong = KEYPOINTS.copy()
  wrong[0, 0, 1] = np.nan
  found, _ = run(losses.of_offsets, OFFSETS, keypoints=wrong)
  assert np.isnan(found).tolist() == [True, False]


def test_stored_targets_give_the_same():
  """As arrays of every position, made beforehand."""
  targets = made()
  full = lambda x: np.broadcast_to(x, LOGITS.shape)
  stored = discs.Targets(*map(full, targets))
  for loss, values in (
    (losses.of_heatmaps, LOGITS), (losses.of_offsets, OFFSETS),
  ):  # fmt: skip
    both = [np.asarray(jax.jit(loss)(values, t)) for t in (targets, stored)]
    np.testing.assert_array_equal(*both)
