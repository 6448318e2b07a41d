"""Crops of a map of features at boxes, bilinear, corners aligned.

tf.image.crop_and_resize as the TensorFlow Object Detection API calls it: a box
normalised by the image's size is laid on the map of h x w features, whose
first and last features are its corners; a crop's row i of n reads the map at

    y0 (h - 1) + i (y1 - y0) (h - 1) / (n - 1)

Two differences. h and w are those of the image itself, where it lies on a
larger canvas. And what lies beyond the map reads its border: TensorFlow has 0
there, and its rounding puts the last row of some boxes that end at the border
just outside.

Two forms of the same function: `gather` picks the four neighbours of every
point, `matmul` multiplies with weights of the two axes. On a CPU gathering is
faster, most of all backward; on accelerators, where its gradient is a scatter,
the products are. benchmarks/detection_ops.py measures the choice.
"""

import jax
import jax.numpy as jnp

from big_vision_like.ops import interpolation, own_images
from big_vision_like.parallel import constraints

METHODS = ('auto', 'gather', 'matmul')


def resolve(method: str) -> str:
  """'gather' or 'matmul'; 'auto' is 'gather' on CPU, 'matmul' elsewhere.

  Raises:
    ValueError: no such method.
  """
  if method not in METHODS:
    raise ValueError(
      f'crops: method must be one of {", ".join(METHODS)}, got {method!r}'
    )
  if method != 'auto':
    return method
  return 'gather' if constraints.platform() == 'cpu' else 'matmul'


def crop_and_resize(
  features: jax.Array,
  boxes: jax.Array,
  image_size: jax.Array,
  *,
  stride: int,
  size: int = 14,
  method: str = 'auto',
) -> jax.Array:
  """Crops of `size` x `size` features.

  Args:
    features: float [B, H, W, C], one every `stride` pixels of the canvas.
    boxes: float32 [B, R, 4] in pixels of the canvas; a constant, no gradient.
    image_size: int32 [B, 2] height and width of the images, which lie at the
      top left of the canvas.
    stride: pixels a feature.
    size: of the crops, at least 2.
    method: one of METHODS.

  Returns:
    [B, R, size, size, C] in the type of the features.
  """
  crop = _gather if resolve(method) == 'gather' else _matmul

  def own(
    features: jax.Array, boxes: jax.Array, image_size: jax.Array
  ) -> jax.Array:
    points = _points(boxes, image_size, features.shape, stride, size)
    return crop(features, *points)

  return own_images.run(own, features, boxes, image_size)


def crop_and_pool(
  features: jax.Array,
  boxes: jax.Array,
  image_size: jax.Array,
  *,
  stride: int,
  size: int = 14,
  method: str = 'auto',
) -> jax.Array:
  """`crop_and_resize`, then the maximum of 2x2: [B, R, size/2, size/2, C].

  Raises:
    ValueError: a size that is not even.
  """
  if size % 2:
    raise ValueError(f'crops: a pooled size must be even, got {size}')
  crops = crop_and_resize(
    features, boxes, image_size, stride=stride, size=size, method=method
  )
  above = jnp.maximum(crops[:, :, ::2], crops[:, :, 1::2])
  return jnp.maximum(above[:, :, :, ::2], above[:, :, :, 1::2])


def _points(
  boxes: jax.Array,
  image_size: jax.Array,
  shape: tuple[int, ...],
  stride: int,
  size: int,
) -> tuple[jax.Array, jax.Array]:
  """Rows and columns of the map that crops read, each float32 [B, R, size]."""
  if size < 2:
    raise ValueError(f'crops: a size of at least 2 is needed, got {size}')
  boxes = jax.lax.stop_gradient(boxes)
  canvas = jnp.asarray(shape[1:3])
  last = jnp.clip(-(-image_size // stride), 1, canvas) - 1  # [B, 2]
  scale = last / jnp.maximum(image_size, 1)  # padding has no size
  share = jnp.arange(size, dtype=jnp.float32) / (size - 1)

  def along(dim: int) -> jax.Array:
    start, end = boxes[..., dim, None], boxes[..., dim + 2, None]
    points = (start + share * (end - start)) * scale[:, None, dim, None]
    # NaN becomes 0: a place must be within the map.
    return jnp.where(
      points > 0, jnp.minimum(points, last[:, None, dim, None]), 0
    )

  return along(0), along(1)


def _gather(
  features: jax.Array, rows: jax.Array, columns: jax.Array
) -> jax.Array:
  """By the four neighbours of each point, one of the flat map's rows each."""
  batch, height, width, channels = features.shape
  flat = features.reshape(batch * height * width, channels)
  first = (jnp.arange(batch) * height * width)[:, None, None, None]

  def neighbours(points: jax.Array, num: int):
    low = jnp.minimum(jnp.floor(points).astype(jnp.int32), max(num - 2, 0))
    return low, jnp.minimum(low + 1, num - 1), points - low

  top, bottom, down = neighbours(rows, height)
  left, right, across = neighbours(columns, width)
  down = down[..., :, None, None].astype(features.dtype)
  across = across[..., None, :, None].astype(features.dtype)

  def read(row: jax.Array, column: jax.Array) -> jax.Array:
    place = first + row[..., :, None] * width + column[..., None, :]
    return flat.at[place].get(mode='promise_in_bounds')

  above = read(top, left) * (1 - across) + read(top, right) * across
  below = read(bottom, left) * (1 - across) + read(bottom, right) * across
  return above * (1 - down) + below * down


def _matmul(
  features: jax.Array, rows: jax.Array, columns: jax.Array
) -> jax.Array:
  """By products with the weights of the two axes, columns first."""
  _, height, width, _ = features.shape
  weights = lambda points, num: jax.vmap(
    jax.vmap(lambda p: interpolation.hat_weights(p, num))
  )(points).astype(features.dtype)
  exact = jax.lax.Precision.HIGHEST
  wide = jnp.einsum(
    'brxw,bhwc->brhxc', weights(columns, width), features, precision=exact
  )
  return jnp.einsum(
    'bryh,brhxc->bryxc', weights(rows, height), wide, precision=exact
  )
