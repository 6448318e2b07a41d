"""Bilinear interpolation from a net's grid of features to an image's pixels.

A net of explicit, symmetric padding has feature i centred on pixel i * stride
of its input (models/layers.py). Between the features values are interpolated;
beyond the last one they stay what it says. On an input of 8 n + 1 pixels this
is DeepLab's interpolation with aligned corners.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from big_vision_like.parallel import constraints


def stride_between(image: Sequence[int], grid: Sequence[int]) -> int:
  """Stride of a net that turns an input (H, W) into a map (h, w).

  The longer side tells: a single feature is short of the whole stride.
  """
  return stride_of(max(image), max(grid))


def stride_of(pixels: int, features: int) -> int:
  """Stride of a net that turns `pixels` into `features`: a power of two."""
  stride = 1
  while stride * features < pixels:
    stride *= 2
  return stride


def pixel_coordinates(
  num: int,
  stride: int,
  scale: jax.Array | float = 1.0,
  first: jax.Array | int = 0,
) -> jax.Array:
  """Where an image's pixels lie on the grid, along one axis.

  Args:
    num: number of pixels.
    stride: pixels of the net's input per feature.
    scale: the side of the net's image over that of the image in question,
      which was resized to it with pixel centres at half integers.
    first: the first of these pixels.

  Returns:
    float32 [num] coordinates in features.
  """
  pixels = (jnp.arange(num) + first).astype(jnp.float32)
  centres = (pixels + 0.5) * scale - 0.5
  return centres / stride


def hat_weights(coordinates: jax.Array, size: int) -> jax.Array:
  """float32 [n, size]: weight of each grid point at each coordinate.

  Rows sum to 1; a coordinate outside of [0, size - 1] takes the nearest point.
  """
  inside = jnp.clip(coordinates, 0, size - 1)
  distance = jnp.abs(inside[:, None] - jnp.arange(size, dtype=jnp.float32))
  return jnp.maximum(0.0, 1.0 - distance)


def bilinear(maps: jax.Array, rows: jax.Array, columns: jax.Array) -> jax.Array:
  """Values of maps at the points of a finer grid.

  Two matrix products, in full precision: a rounded logit may win an argmax.

  Args:
    maps: float [h, w, C].
    rows: float32 [H], coordinates in features.
    columns: float32 [W].

  Returns:
    float32 [C, H, W]: channels first, which has the pixels side by side.
  """
  height, width, _ = maps.shape
  exact = jax.lax.Precision.HIGHEST
  wide = jnp.einsum(
    'yxc,Xx->cyX', maps, hat_weights(columns, width), precision=exact
  )
  return jnp.einsum(
    'Yy,cyX->cYX', hat_weights(rows, height), wide, precision=exact
  )


def to_pixels(maps: jax.Array, height: int, width: int) -> jax.Array:
  """Maps float32 [B, h, w, C] -> [B, C, H, W] at the net's input pixels."""
  stride = stride_between((height, width), maps.shape[1:3])
  rows, columns = (pixel_coordinates(n, stride) for n in (height, width))
  return jax.vmap(lambda grid: bilinear(grid, rows, columns))(maps)


def class_ids(
  logits: jax.Array,
  shape: tuple[int, int],
  stride: int,
  image_size: jax.Array,
  full_size: jax.Array,
  origin: jax.Array | tuple[int, int] = (0, 0),
  method: str = 'auto',
) -> jax.Array:
  """Most likely class of every pixel of an image at another size.

  Args:
    logits: float32 [h, w, C] of an image that was resized to `image_size` and
      lies at the top left of the net's input.
    shape: (H, W) of the canvas to fill: at least `full_size`, or a part of it.
    stride: see `stride_between`.
    image_size: int [2] height and width as the net saw it.
    full_size: int [2] height and width of the image in question.
    origin: int [2] row and column of the canvas's first pixel: large images are
      filled part by part.
    method: 'product' as `bilinear`; 'rows' of the canvas one after the other,
      which stay in a processor's cache (benchmarks/segmentation.py); 'auto' is
      'rows' on CPU, else 'product'.

  Returns:
    int32 [H, W]; beyond `full_size` without meaning. Of equal logits the lower
    class.
  """
  scale = image_size.astype(jnp.float32) / full_size.astype(jnp.float32)
  rows, columns = (
    pixel_coordinates(n, stride, scale[axis], origin[axis])
    for axis, n in enumerate(shape)
  )
  if method == 'auto':
    method = 'rows' if constraints.platform() == 'cpu' else 'product'
  best = _best_by_rows if method == 'rows' else _best_by_product
  return best(logits, rows, columns)


def _best_by_product(
  logits: jax.Array, rows: jax.Array, columns: jax.Array
) -> jax.Array:
  values = bilinear(logits, rows, columns)
  return jnp.argmax(values, axis=0).astype(jnp.int32)


def _best_by_rows(
  logits: jax.Array, rows: jax.Array, columns: jax.Array
) -> jax.Array:
  height, width, num_classes = logits.shape
  wide = jnp.einsum(
    'yxc,Xx->ycX',
    logits,
    hat_weights(columns, width),
    precision=jax.lax.Precision.HIGHEST,
  )
  inside = jnp.clip(rows, 0, height - 1)
  upper = jnp.floor(inside).astype(jnp.int32)
  lower = jnp.minimum(upper + 1, height - 1)
  classes = jnp.arange(num_classes, dtype=jnp.int32)[:, None]

  def best(row: tuple[jax.Array, ...]) -> jax.Array:
    above, below, share = row
    values = wide[above] * (1 - share) + wide[below] * share  # [C, W]
    # Two plain reductions: XLA's argmax on CPU takes several times as long.
    is_best = values == values.max(axis=0)
    return jnp.where(is_best, classes, num_classes - 1).min(axis=0)

  return jax.lax.map(best, (upper, lower, inside - upper))
