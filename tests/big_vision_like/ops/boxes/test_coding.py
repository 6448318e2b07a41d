"""The box code against the API's test, float64 numpy and by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from big_vision_like.ops.boxes import coding
from tests.big_vision_like.ops.boxes import plain

FACTORS = np.array([10, 10, 5, 5])


def test_numbers_of_the_apis_own_test():
  """faster_rcnn_box_coder_test.py, there without factors."""
  boxes = jnp.array([[10, 10, 20, 15], [0.2, 0.1, 0.5, 0.4]], jnp.float32)
  anchors = jnp.array([[15, 12, 30, 18], [0.1, 0.0, 0.7, 0.9]], jnp.float32)
  expected = [
    [-0.5, -0.416666, -0.405465, -0.182321],
    [-0.083333, -0.222222, -0.693147, -1.098612],
  ]
  codes = coding.encode(boxes, anchors)
  np.testing.assert_allclose(codes / FACTORS, expected, atol=2e-6)
  np.testing.assert_allclose(
    coding.decode(codes, anchors), boxes, rtol=1e-5, atol=1e-5
  )


@pytest.mark.parametrize('seed', range(3))
def test_float64(seed):
  rng = np.random.default_rng(seed)
  boxes, anchors = (plain.random_boxes(rng, 200) for _ in range(2))
  b, a = boxes.astype(np.float64), anchors.astype(np.float64)
  side, anchor_side = b[:, 2:] - b[:, :2], a[:, 2:] - a[:, :2]
  middle = (b[:, :2] + b[:, 2:] - a[:, :2] - a[:, 2:]) / 2
  expected = FACTORS * np.concatenate(
    [middle / anchor_side, np.log(side / anchor_side)], axis=1
  )
  codes = coding.encode(jnp.asarray(boxes), jnp.asarray(anchors))
  np.testing.assert_allclose(codes, expected, rtol=1e-4, atol=1e-4)
  np.testing.assert_allclose(
    coding.decode(codes, jnp.asarray(anchors)), boxes, rtol=1e-4, atol=1e-3
  )


def test_wild_codes_and_empty_boxes():
  anchor = jnp.array([10, 10, 20, 20], jnp.float32)
  wild = jnp.array([0, 0, 1e4, 1e4], jnp.float32)
  assert np.isinf(coding.decode(wild, anchor)).all()
  limit = float(np.log(100))
  np.testing.assert_allclose(
    coding.decode(wild, anchor, limit), [-485, -485, 515, 515], rtol=1e-5
  )
  small = jnp.array([1.0, -2.0, 0.5, -0.5])
  np.testing.assert_array_equal(
    coding.decode(small, anchor, limit), coding.decode(small, anchor)
  )
  empty = jnp.zeros(4)
  for pair in ((empty, anchor), (anchor, empty), (empty, empty)):
    assert np.isfinite(coding.encode(*pair)).all()
    assert np.isfinite(
      jax.grad(lambda b, p=pair: coding.encode(b, p[1]).sum())(pair[0])
    ).all()
