"""Interpolation of logits against torch and float64 numpy, point by point."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from big_vision_like.ops import interpolation
from input_pipeline.ops import bilinear as image_bilinear

_to_pixels = jax.jit(interpolation.to_pixels, static_argnums=(1, 2))


def _random(*shape, seed=0):
  return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def _at(grid, row, column):
  """float64 [C]: the value of [h, w, C] at a point, the border beyond it."""
  height, width, _ = grid.shape
  row, column = min(max(row, 0), height - 1), min(max(column, 0), width - 1)
  top, left = int(np.floor(row)), int(np.floor(column))
  bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
  down, across = row - top, column - left
  upper = (1 - across) * grid[top, left] + across * grid[top, right]
  lower = (1 - across) * grid[bottom, left] + across * grid[bottom, right]
  return (1 - down) * upper + down * lower


def _reference(logits, stride, image_size, full_size):
  """float64 [H, W, C]: pixel centres are mapped, one pixel after another."""
  height, width = full_size
  out = np.empty((height, width, logits.shape[-1]))
  for y in range(height):
    for x in range(width):
      row = ((y + 0.5) * image_size[0] / height - 0.5) / stride
      column = ((x + 0.5) * image_size[1] / width - 0.5) / stride
      out[y, x] = _at(logits.astype(np.float64), row, column)
  return out


def test_stride_of_every_size():
  """A net of stride s has ceil(n / s) features, one after n pixels."""
  for stride in (1, 2, 4, 8, 16, 32):
    for pixels in range(1, 601):
      features = -(-pixels // stride)
      found = interpolation.stride_of(pixels, features)
      # One feature is at 0 whatever the stride.
      assert found == stride or (features == 1 and pixels <= found < stride)


def test_a_low_image_has_the_stride_of_its_width():
  """3 pixels at stride 8 make one row, which tells nothing of the stride."""
  maps = _random(1, 1, 9, 2)
  pixels = _to_pixels(jnp.asarray(maps), 3, 65)
  expected = _reference(maps[0], 8, (3, 65), (3, 65))
  np.testing.assert_allclose(
    pixels[0], expected.transpose(2, 0, 1), rtol=0, atol=1e-6
  )


@pytest.mark.parametrize(
  ('height', 'width', 'stride'),
  [(65, 33, 8), (33, 129, 16), (9, 17, 4), (41, 1, 8), (1, 41, 8)],
)
def test_to_pixels_is_torchs_aligned_corners(height, width, stride):
  """On 8 n + 1 pixels the last feature lies on the last pixel."""
  torch = pytest.importorskip('torch')
  shape = -(-height // stride), -(-width // stride)
  maps = _random(2, *shape, 3)
  expected = torch.nn.functional.interpolate(
    torch.from_numpy(maps.astype(np.float64).transpose(0, 3, 1, 2)),
    size=(height, width),
    mode='bilinear',
    align_corners=True,
  )
  pixels = _to_pixels(jnp.asarray(maps), height, width)
  assert pixels.shape == (2, 3, height, width)
  np.testing.assert_allclose(pixels, expected.numpy(), rtol=0, atol=2e-6)


def test_to_pixels_beyond_the_last_feature():
  """20 pixels at stride 8: features at 0, 8 and 16, which 17 to 19 repeat."""
  maps = _random(1, 3, 3, 2)
  pixels = np.asarray(_to_pixels(jnp.asarray(maps), 20, 20))
  expected = _reference(maps[0], 8, (20, 20), (20, 20)).transpose(2, 0, 1)
  np.testing.assert_allclose(pixels[0], expected, rtol=0, atol=1e-6)
  for edge in (17, 18, 19):
    np.testing.assert_array_equal(pixels[..., edge], pixels[..., 16])


# (grid, stride, image as the net saw it, original image, canvas)
SHAPES = {
  'warped down': ((9, 9), 8, (65, 65), (91, 70), (100, 100)),
  'warped up': ((9, 9), 8, (65, 65), (21, 37), (40, 40)),
  'padded': ((9, 9), 8, (50, 61), (50, 61), (64, 64)),
  'padded and resized': ((9, 9), 8, (65, 43), (33, 22), (40, 30)),
  'odd sides': ((4, 6), 16, (55, 83), (71, 29), (71, 29)),
  'one row': ((1, 7), 8, (5, 53), (11, 60), (11, 64)),
  'one column': ((7, 1), 8, (53, 1), (40, 1), (40, 8)),
  'one pixel': ((9, 9), 8, (65, 65), (1, 1), (3, 3)),
}


@pytest.mark.parametrize('method', ['rows', 'product'])
@pytest.mark.parametrize('name', SHAPES)
def test_class_ids(name, method):
  grid, stride, image_size, full_size, canvas = SHAPES[name]
  logits = _random(*grid, 6, seed=len(name))
  exact = _reference(logits, stride, image_size, full_size)
  run = functools.partial(
    interpolation.class_ids, shape=canvas, stride=stride, method=method
  )
  sizes = dict(image_size=np.array(image_size), full_size=np.array(full_size))
  ids = jax.jit(run)(logits, **sizes)
  assert ids.shape == canvas and ids.dtype == jnp.int32
  height, width = full_size
  ids = np.asarray(ids)[:height, :width]
  best = exact.max(-1)
  chosen = np.take_along_axis(exact, ids[..., None], -1)[..., 0]
  # Of classes within rounding of each other either may win.
  assert (best - chosen).max() < 1e-5
  assert (ids == exact.argmax(-1)).mean() > 0.999


@pytest.mark.parametrize('method', ['rows', 'product'])
def test_equal_logits_give_the_lower_class(method):
  logits = jnp.zeros((3, 3, 5)).at[..., [2, 4]].set(1.0)
  size = jnp.array([17, 17])
  ids = interpolation.class_ids(logits, (17, 17), 8, size, size, method=method)
  assert (np.asarray(ids) == 2).all()


@pytest.mark.parametrize('method', ['rows', 'product'])
def test_a_part_of_the_canvas(method):
  """Parts of an image, from their own origin, are the whole."""
  logits = jnp.asarray(_random(5, 6, 4))
  seen, full = jnp.array([33, 41]), jnp.array([50, 30])
  run = jax.jit(
    functools.partial(interpolation.class_ids, stride=8, method=method),
    static_argnames='shape',
  )
  ids = functools.partial(run, logits, image_size=seen, full_size=full)
  whole = ids(shape=(50, 30))
  for first in (0, 20):
    part = ids(shape=(30, 30), origin=jnp.array([first, 0]))
    np.testing.assert_array_equal(part, whole[first : first + 30])


@pytest.mark.parametrize('method', ['rows', 'product'])
def test_without_logits_the_class_is_one_of_them(method):
  """Blanks that pad a batch have no size; what they give is not looked at."""
  logits = jnp.full((3, 3, 5), jnp.nan)
  none = jnp.zeros(2, jnp.int32)
  ids = interpolation.class_ids(logits, (9, 9), 8, none, none, method=method)
  assert 0 <= int(ids.min()) <= int(ids.max()) < 5


@pytest.mark.parametrize('full_size', [(40, 52), (150, 131)])
def test_it_undoes_the_pipelines_resize(full_size):
  """A ramp, resized, sampled at the features and back, is the ramp."""
  height, width = full_size
  slopes = 200 / height, 200 / width
  ramps = [
    np.broadcast_to(np.rint(np.arange(height) * slopes[0])[:, None], full_size),
    np.broadcast_to(np.rint(np.arange(width) * slopes[1]), full_size),
  ]
  image = np.stack([*ramps, ramps[0]], -1).astype(np.uint8)
  resized = image_bilinear.resize(image, 129, 129)
  features = jnp.asarray(resized[::8, ::8], jnp.float32)

  @jax.jit
  def scaled_back(features):
    rows, columns = (
      interpolation.pixel_coordinates(n, 8, 129 / n) for n in full_size
    )
    return interpolation.bilinear(features, rows, columns)

  back = scaled_back(features)
  error = np.moveaxis(np.asarray(back), 0, -1) - image
  # Rounded to whole levels three times; a shift by half a pixel is more.
  inside = error[5:-5, 5:-5]
  assert np.abs(inside).max() < 1.1
  assert np.abs(inside.mean((0, 1))).max() < 0.1 * min(slopes)
