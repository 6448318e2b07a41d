"""Targets of both stages, and that nothing sampled is no NaN."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from big_vision_like.ops.boxes import coding, matching, targets
from tests.big_vision_like.ops.boxes import plain

KEY = jax.random.key(0)


def _truth(boxes, labels, mask):
  return matching.truth(
    jnp.asarray(boxes, jnp.float32), jnp.asarray(labels, jnp.int32),
    jnp.asarray(mask, bool),
  )  # fmt: skip


def _anchors():
  rng = np.random.default_rng(0)
  return jnp.asarray(plain.random_boxes(rng, 120, smallest=20))


def test_anchors():
  anchors = _anchors()
  usable = jnp.arange(120) % 4 > 0
  true = np.concatenate([np.asarray(anchors)[[5, 9]] + 0.5, np.zeros((1, 4))])
  truth = _truth(true, [3, 7, 0], [True, True, False])
  found = jax.jit(functools.partial(targets.for_anchors, size=16))(
    KEY, anchors, usable, truth
  )
  match = matching.match(
    anchors, truth, positive_iou=0.7, negative_iou=0.3, force=True,
    usable=usable,
  )  # fmt: skip
  owner = np.asarray(match)[found.index]
  positive = np.asarray(found.positive)
  assert found.mask.all() and 2 <= positive.sum() <= 8
  assert (owner[positive] >= 0).all()
  assert (owner[~positive] == matching.NEGATIVE).all()
  assert np.asarray(usable)[found.index].all()
  np.testing.assert_array_equal(found.labels, positive)  # not the class
  decoded = coding.decode(found.codes, anchors[found.index])
  np.testing.assert_allclose(
    decoded[positive], true[owner[positive]], rtol=1e-4, atol=1e-3
  )
  assert not found.codes[~positive].any()


def test_proposals():
  proposals = _anchors()[:40]
  mask = jnp.arange(40) < 30
  true = np.concatenate([np.asarray(proposals)[[2, 4, 35]], np.zeros((1, 4))])
  truth = _truth(true, [3, 0, 5, 6], [True, True, True, False])
  found = jax.jit(functools.partial(targets.for_proposals, size=24))(
    KEY, proposals, mask, truth
  )
  assert (np.asarray(found.index)[found.mask] < 30).all()
  labels = dict(zip(found.index.tolist(), found.labels.tolist()))
  assert labels[2] == 4 and labels[4] == 1  # classes + 1
  assert found.positive.sum() <= 6
  assert not found.labels[~found.positive].any()
  own = np.flatnonzero(found.index == 2)[0]
  np.testing.assert_allclose(found.codes[own], 0, atol=1e-4)


def test_images_without_boxes_give_negatives_and_nothing_gives_nothing():
  anchors = _anchors()
  nobody = _truth(np.zeros((3, 4)), [0, 0, 0], [False] * 3)
  first, second = (
    jax.jit(functools.partial(stage, size=8))
    for stage in (targets.for_anchors, targets.for_proposals)
  )
  everyone, no_one = jnp.ones(120, bool), jnp.zeros(120, bool)
  for usable, num in ((everyone, 8), (no_one, 0)):
    for found in (
      first(KEY, anchors, usable, nobody),
      second(KEY, anchors, usable, nobody),
    ):
      assert int(found.mask.sum()) == num
      assert not found.positive.any() and not found.labels.any()
      assert np.isfinite(found.codes).all() and not found.codes.any()


def test_batches():
  truths = [
    _truth(np.asarray(_anchors()[i : i + 2]), [0, 1], [True, i > 0])
    for i in range(3)
  ]
  stacked = jax.tree.map(lambda *x: jnp.stack(x), *truths)
  keys = jax.random.split(KEY, 3)
  run = jax.jit(functools.partial(targets.for_anchors, size=8))
  anchors, usable = _anchors(), jnp.ones(120, bool)
  together = jax.jit(jax.vmap(run, (0, None, None, 0)))(
    keys, anchors, usable, stacked
  )
  for number, truth in enumerate(truths):
    one = run(keys[number], anchors, usable, truth)
    for a, b in zip(one, together):
      np.testing.assert_allclose(a, b[number], rtol=1e-6, atol=1e-6)
