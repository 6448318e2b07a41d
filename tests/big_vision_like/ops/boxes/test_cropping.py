"""Crops against the formula in float64; torch's sampling is in tests/peers."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from big_vision_like.ops.boxes import cropping
from tests.big_vision_like.ops.boxes import plain

STRIDE, SIZE = 16, 6


def _crop(method, **options):
  run = functools.partial(
    cropping.crop_and_resize, stride=STRIDE, method=method, **options
  )
  return jax.jit(run)


def _made_up(seed=0):
  """Two images of another size on one canvas, whose rest is not zero."""
  rng = np.random.default_rng(seed)
  features = rng.normal(size=(2, 7, 9, 5)).astype(np.float32)
  sizes = np.array([[112, 144], [90, 70]], np.int32)
  boxes = np.stack(
    [np.clip(plain.random_boxes(rng, 4), 0, [*s, *s]) for s in sizes]
  ).astype(np.float32)
  boxes[:, 0] = [[0, 0, *s] for s in sizes]  # the whole image
  boxes[:, 3] = 0  # padding
  return features, boxes, sizes


def _plain(features, boxes, sizes, size=SIZE):
  """tf.image.crop_and_resize's rule, clamped, point by point."""
  result = np.zeros((*boxes.shape[:2], size, size, features.shape[-1]))
  for b, r in np.ndindex(boxes.shape[:2]):
    h, w = -(-sizes[b] // STRIDE)
    y0, x0, y1, x1 = boxes[b, r].astype(np.float64) / np.tile(sizes[b], 2)
    for i, j in np.ndindex(size, size):
      y = y0 * (h - 1) + i * (y1 - y0) * (h - 1) / (size - 1)
      x = x0 * (w - 1) + j * (x1 - x0) * (w - 1) / (size - 1)
      for p in range(h):
        for q in range(w):
          near = max(0, 1 - abs(y - p)) * max(0, 1 - abs(x - q))
          result[b, r, i, j] += near * features[b, p, q]
  return result


@pytest.mark.parametrize('method', ['gather', 'matmul'])
def test_float64(method):
  made = _made_up()
  expected = _plain(*made)
  crops = _crop(method, size=SIZE)(*made)
  np.testing.assert_allclose(crops, expected, atol=2e-5)
  # The corners of the whole image are the corner features of its own map.
  np.testing.assert_array_equal(expected[1, 0, -1, -1], made[0][1, 5, 4])
  pool = functools.partial(
    cropping.crop_and_pool, stride=STRIDE, size=SIZE, method=method
  )
  pooled = jax.jit(pool)(*made)
  blocks = expected.reshape(2, 4, SIZE // 2, 2, SIZE // 2, 2, 5)
  np.testing.assert_allclose(pooled, blocks.max(axis=(3, 5)), atol=2e-5)


@pytest.mark.parametrize('method', ['gather', 'matmul'])
def test_gradient(method):
  """The crop is linear in the features: its gradient is the transpose."""
  features, boxes, sizes = _made_up()
  rng = np.random.default_rng(5)
  weight = rng.normal(size=(2, 4, SIZE, SIZE, 5)).astype(np.float32)

  def loss(features, boxes):
    crops = cropping.crop_and_resize(
      features, boxes, sizes, stride=STRIDE, size=SIZE, method=method
    )
    return (crops * weight).sum()

  got, of_boxes = jax.jit(jax.grad(loss, (0, 1)))(features, boxes)
  other = rng.normal(size=features.shape)
  forward = (_plain(other, boxes, sizes) * weight).sum()
  np.testing.assert_allclose((got * other).sum(), forward, rtol=1e-4)
  assert not of_boxes.any()
  # Beyond the map of the second image's own (6 x 5) nothing is read.
  assert not got[1, 6:].any() and not got[1, :, 5:].any() and got[1].any()


def test_no_row_is_lost_at_the_border():
  """TensorFlow's rounding puts some last rows beyond the map and reads 0."""
  rng = np.random.default_rng(0)
  features = jnp.ones((1, 38, 64, 1))
  size = np.array([[600, 1024]], np.int32)
  boxes = plain.random_boxes(rng, 300, extent=400)[None]
  boxes[..., :2] = np.maximum(boxes[..., :2], 0)
  boxes[..., 2:] = size
  for method in ('gather', 'matmul'):
    crops = _crop(method)(features, jnp.asarray(boxes), size)
    np.testing.assert_allclose(crops, 1, rtol=1e-6)


def test_maps_of_one_feature():
  features = jnp.full((1, 1, 1, 2), 3.0)
  box, size = jnp.array([[[2.0, 3.0, 9.0, 12.0]]]), jnp.array([[13, 16]])
  for method in ('gather', 'matmul'):
    crops = _crop(method, size=2)(features, box, size)
    np.testing.assert_array_equal(crops, np.full((1, 1, 2, 2, 2), 3))


def test_padding_and_boxes_that_are_none_read_the_map():
  features, boxes, _ = _made_up()
  boxes[:, 1] = np.nan
  boxes[:, 2] = [-np.inf, -1e9, np.inf, 1e9]
  for method in ('gather', 'matmul'):
    crops = _crop(method)(features, boxes, np.array([[0, 0], [900, 900]]))
    assert np.isfinite(crops).all()


def test_low_precision_stays():
  features, boxes, sizes = _made_up()
  for method in ('gather', 'matmul'):
    low = jnp.asarray(features, jnp.bfloat16)
    crops = jax.eval_shape(_crop(method), low, boxes, sizes)
    assert crops.dtype == jnp.bfloat16


def test_mistakes_are_named():
  made = _made_up()
  with pytest.raises(ValueError, match=r"auto, gather, matmul, got 'einsum'"):
    cropping.crop_and_resize(*made, stride=16, method='einsum')
  with pytest.raises(ValueError, match='at least 2 is needed, got 1'):
    cropping.crop_and_resize(*made, stride=16, size=1)
  with pytest.raises(ValueError, match='must be even, got 7'):
    cropping.crop_and_pool(*made, stride=16, size=7)
