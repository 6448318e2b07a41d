"""Losses of a detector against float64 numpy and by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from big_vision_like.losses import detection
from big_vision_like.ops.boxes.targets import Targets


def test_smooth_l1_by_hand():
  predicted = jnp.array([[0, 0.5, 1, -3], [1, 1, 1, 1]], jnp.float32)
  true = jnp.array([[0, 0, 0, 0], [1, 1, 1, 1.5]], jnp.float32)
  np.testing.assert_allclose(
    detection.smooth_l1(predicted, true), [0.125 + 0.5 + 2.5, 0.125]
  )
  slope = jax.grad(lambda x: detection.smooth_l1(x, jnp.zeros(4)))
  np.testing.assert_allclose(
    slope(jnp.array([0.0, 0.5, -0.5, 7.0])), [0, 0.5, -0.5, 1]
  )


def _targets(seed, size, classes, num):
  rng = np.random.default_rng(seed)
  positive = np.arange(size) < 3
  mask = np.arange(size) < size - 2
  codes = rng.normal(0, 2, (size, 4)) * positive[:, None]
  return Targets(
    jnp.asarray(rng.permutation(num)[:size], jnp.int32),
    jnp.asarray(positive * rng.integers(1, classes + 1, size), jnp.int32),
    jnp.asarray(codes, jnp.float32),
    jnp.asarray(positive),
    jnp.asarray(mask),
  )


def _plain(logits, codes, targets):
  """float64 sums over the sampled places, over their number."""
  cross, distance, num = 0.0, 0.0, int(targets.mask.sum())
  for m in range(len(targets.mask)):
    if not targets.mask[m]:
      continue
    z = logits[m].astype(np.float64)
    cross += np.log(np.exp(z).sum()) - z[int(targets.labels[m])]
    if targets.positive[m]:
      x = np.abs(np.float64(codes[m]) - np.float64(targets.codes[m]))
      distance += np.where(x < 1, x**2 / 2, x - 0.5).sum()
  return cross / num, distance / num


def test_anchors():
  rng = np.random.default_rng(1)
  logits = rng.normal(0, 2, (30, 2)).astype(np.float32)
  codes = rng.normal(0, 2, (30, 4)).astype(np.float32)
  targets = _targets(0, 9, 1, 30)
  index = np.asarray(targets.index)
  found = jax.jit(detection.of_anchors)(logits, codes, targets)
  expected = _plain(logits[index], codes[index], targets)
  np.testing.assert_allclose(found, expected, rtol=1e-5)
  both = lambda x, y: sum(detection.of_anchors(x, y, targets))
  gradient = jax.jit(jax.grad(both, (0, 1)))(
    jnp.asarray(logits), jnp.asarray(codes)
  )
  used = np.isin(np.arange(30), index[:7])
  assert not gradient[0][~used].any() and gradient[0][used].any(axis=1).all()
  assert not gradient[1][~np.isin(np.arange(30), index[:3])].any()


def test_proposals():
  rng = np.random.default_rng(2)
  logits = rng.normal(0, 2, (9, 6)).astype(np.float32)
  codes = rng.normal(0, 2, (9, 5, 4)).astype(np.float32)
  targets = _targets(1, 9, 5, 9)
  own = np.maximum(np.asarray(targets.labels) - 1, 0)
  found = jax.jit(detection.of_proposals)(logits, codes, targets)
  expected = _plain(logits, codes[np.arange(9), own], targets)
  np.testing.assert_allclose(found, expected, rtol=1e-5)
  gradient = jax.grad(
    lambda y: detection.of_proposals(jnp.asarray(logits), y, targets)[1]
  )(jnp.asarray(codes))
  touched = np.argwhere(np.asarray(gradient).any(axis=2))
  assert touched.tolist() == [[m, own[m]] for m in range(3)]


@pytest.mark.parametrize('stage', ['anchors', 'proposals'])
def test_nothing_sampled_is_a_loss_of_zero(stage):
  nothing = Targets(
    jnp.zeros(4, jnp.int32), jnp.zeros(4, jnp.int32), jnp.zeros((4, 4)),
    jnp.zeros(4, bool), jnp.zeros(4, bool),
  )  # fmt: skip
  logits = jnp.full((4, 2), 3.0)
  codes = jnp.ones((4, 4)) if stage == 'anchors' else jnp.ones((4, 1, 4))
  loss = getattr(detection, f'of_{stage}')
  both = lambda x, y: sum(loss(x, y, nothing))
  assert jax.jit(both)(logits, codes) == 0
  for gradient in jax.jit(jax.grad(both, (0, 1)))(logits, codes):
    assert np.isfinite(gradient).all() and not gradient.any()
