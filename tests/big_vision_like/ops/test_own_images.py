"""Work on boxes on several devices: equal results, and nobody asks."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from big_vision_like.ops import own_images
from big_vision_like.ops.boxes import anchors as grids
from big_vision_like.ops.boxes import cropping, matching, proposals, targets
from tests.big_vision_like.ops.boxes import plain

ANCHORS = grids.grid((4, 4), 16, grids.cell(32, [0.5, 1], [0.5, 1, 2]))


def _first_stage(keys, boxes, mask, codes, logits, sizes):
  """What a detector does with boxes: proposals, and targets by them."""
  found = proposals.propose(
    codes, logits, ANCHORS, sizes, train=False, k=20, iou=0.5
  )

  def assigned(key, boxes, mask, proposed, there):
    labels = jnp.zeros(boxes.shape[0], jnp.int32)
    boxes = boxes.at[0].set(proposed[3])  # so that one is found
    truth = matching.truth(boxes, labels, mask)
    return targets.for_proposals(key, proposed, there, truth, size=8)

  return found, own_images.mapped(
    assigned, keys, boxes, mask, found.boxes, found.mask
  )


def _batch(num):
  rng = np.random.default_rng(0)
  boxes = np.stack([plain.random_boxes(rng, 5, extent=64) for _ in range(num)])
  return (
    jax.random.split(jax.random.key(0), num),
    boxes,
    np.arange(5) < rng.integers(1, 6, (num, 1)),
    rng.normal(0, 1, (num, len(ANCHORS), 4)).astype(np.float32),
    rng.normal(0, 1, (num, len(ANCHORS), 2)).astype(np.float32),
    np.full((num, 2), 64, np.int32),
  )


def test_devices_work_off_their_own_images():
  batch = _batch(8)
  expected = jax.jit(_first_stage)(*batch)
  assert expected[1].positive.any()
  mesh = jax.make_mesh((4, 2), ('data', 'model'), (AxisType.Auto,) * 2)
  with jax.set_mesh(mesh):
    split = jax.device_put(batch, NamedSharding(mesh, P(('data', 'model'))))
    program = jax.jit(_first_stage).lower(*split).compile()
    found = program(*split)
  jax.tree.map(
    functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5),
    found, expected,
  )  # fmt: skip
  assert len(found[0].boxes.sharding.device_set) == 8
  text = program.as_text()
  for word in ('all-reduce', 'all-gather', 'all-to-all', 'collective'):
    assert word not in text, word


@pytest.mark.parametrize('method', ['gather', 'matmul'])
def test_crops_and_their_gradient_stay_on_their_device(method):
  rng = np.random.default_rng(1)
  boxes = np.stack([plain.random_boxes(rng, 3, extent=64) for _ in range(8)])
  batch = (
    rng.normal(size=(8, 4, 4, 3)).astype(np.float32),
    boxes,
    np.full((8, 2), 64, np.int32),
  )
  loss = lambda *batch: jnp.square(
    cropping.crop_and_pool(*batch, stride=16, size=6, method=method)
  ).sum(axis=(1, 2, 3, 4))

  def program(*batch):
    pulled = jax.vjp(lambda features: loss(features, *batch[1:]), batch[0])
    return pulled[0], pulled[1](jnp.ones(8))

  expected = jax.jit(program)(*batch)
  mesh = jax.make_mesh((4, 2), ('data', 'model'), (AxisType.Auto,) * 2)
  with jax.set_mesh(mesh):
    split = jax.device_put(batch, NamedSharding(mesh, P(('data', 'model'))))
    compiled = jax.jit(program).lower(*split).compile()
    found = compiled(*split)
  jax.tree.map(
    functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-4),
    found, expected,
  )  # fmt: skip
  assert 'all-' not in compiled.as_text()


def test_a_batch_that_the_devices_do_not_divide():
  mesh = jax.make_mesh((4, 2), ('data', 'model'), (AxisType.Auto,) * 2)
  with jax.set_mesh(mesh), pytest.raises(ValueError, match='8 devices of mesh'):
    own_images.mapped(lambda x: x, jnp.zeros((6, 3)))
