"""Areas and overlaps against float64 numpy, and by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from big_vision_like.ops.boxes import geometry
from tests.big_vision_like.ops.boxes import plain

UNIT = [0, 0, 1, 1]


def test_by_hand():
  a = jnp.array([[0, 0, 10, 10], [0, 0, 4, 5]], jnp.float32)
  b = jnp.array([[5, 5, 15, 15], [0, 0, 8, 5], [20, 20, 30, 30]], jnp.float32)
  np.testing.assert_allclose(geometry.area(a), [100, 20])
  np.testing.assert_allclose(
    geometry.iou(a[:, None], b), [[25 / 175, 40 / 100, 0], [0, 0.5, 0]]
  )
  np.testing.assert_allclose(
    geometry.ioa(a[:, None], b), [[0.25, 0.4, 0], [0, 1, 0]]
  )


@pytest.mark.parametrize('seed', range(3))
def test_random_boxes(seed):
  rng = np.random.default_rng(seed)
  a, b = plain.random_boxes(rng, 30), plain.random_boxes(rng, 20)
  expected = plain.iou_matrix(a, b)
  assert (expected > 0.3).any() and (expected == 0).any()
  found = geometry.iou(jnp.asarray(a)[:, None], b)
  np.testing.assert_allclose(found, expected, rtol=2e-5, atol=1e-7)


@pytest.mark.parametrize(
  'box',
  [
    [3, 3, 3, 8], [3, 3, 8, 3], [8, 3, 3, 8], [3, 8, 8, 3], [8, 8, 3, 3],
    [0, 0, 0, 0], [np.nan, 0, 1, 1], [0, 0, 1, np.inf],
  ],
)  # fmt: skip
def test_degenerate_boxes_overlap_nothing(box):
  box = jnp.array(box, jnp.float32)
  assert geometry.is_degenerate(box)
  assert geometry.area(box) == 0
  others = jnp.array([[0, 0, 10, 10], [3, 3, 3, 8], UNIT], jnp.float32)
  assert not geometry.iou(box, others).any()
  assert not geometry.iou(box, box)
  assert not geometry.is_degenerate(others).all()


def test_clip_and_the_way_to_another_size():
  boxes = jnp.array([[-5, -7, 30, 50], [70, 10, 80, 20]], jnp.float32)
  size = jnp.array([60, 40])
  np.testing.assert_array_equal(
    geometry.clip(boxes, size), [[0, 0, 30, 40], [60, 10, 60, 20]]
  )
  whole = geometry.rescale(
    jnp.array([[0, 0, 60, 40]], jnp.float32), size, jnp.array([375, 251])
  )
  np.testing.assert_array_equal(whole, [[0, 0, 375, 251]])


def test_gradient_of_an_iou_is_finite():
  boxes = jnp.array([UNIT, [0, 0, 0, 0]], jnp.float32)
  total = lambda b: geometry.iou(b[:, None], b).sum()
  gradient = jax.jit(jax.grad(total))(boxes)
  assert np.isfinite(gradient).all()
