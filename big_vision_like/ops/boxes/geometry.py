"""Areas and overlaps of boxes, clipping, and the way back to another size.

A box whose sides are not both positive and finite is degenerate: its area is 0
and so is its IoU with any other.
"""

import jax
import jax.numpy as jnp


def area(boxes: jax.Array) -> jax.Array:
  """Boxes [..., 4] -> pixels^2 [...]."""
  y0, x0, y1, x1 = (boxes[..., i] for i in range(4))
  return jnp.where(is_degenerate(boxes), 0.0, (y1 - y0) * (x1 - x0))


def is_degenerate(boxes: jax.Array) -> jax.Array:
  """Boxes [..., 4] -> bool [...]: a side is not positive, or not finite."""
  y0, x0, y1, x1 = (boxes[..., i] for i in range(4))
  finite = jnp.isfinite(boxes).all(axis=-1)
  return ~((y1 > y0) & (x1 > x0) & finite)


def intersection(a: jax.Array, b: jax.Array) -> jax.Array:
  """Shared pixels^2 of boxes [..., 4] and [..., 4], which broadcast: [...]."""
  height = jnp.minimum(a[..., 2], b[..., 2]) - jnp.maximum(a[..., 0], b[..., 0])
  width = jnp.minimum(a[..., 3], b[..., 3]) - jnp.maximum(a[..., 1], b[..., 1])
  return jnp.maximum(height, 0.0) * jnp.maximum(width, 0.0)


def iou(a: jax.Array, b: jax.Array) -> jax.Array:
  """Intersection over union of boxes [..., 4] and [..., 4], which broadcast.

  For all pairs of [N, 4] and [M, 4]: iou(a[:, None], b), float32 [N, M].
  """
  shared, area_a, area_b = intersection(a, b), area(a), area(b)
  sound = (area_a > 0) & (area_b > 0)
  return _ratio(jnp.where(sound, shared, 0.0), area_a + area_b - shared)


def ioa(a: jax.Array, b: jax.Array) -> jax.Array:
  """Share of the area of `a` that lies in `b`; broadcasts as `iou` does."""
  return _ratio(intersection(a, b), area(a))


def clip(boxes: jax.Array, size: jax.Array) -> jax.Array:
  """Boxes [..., 4] cut at the borders of an image of `size` (height, width)."""
  height, width = size[0], size[1]
  limits = jnp.stack([height, width, height, width]).astype(boxes.dtype)
  return jnp.clip(boxes, 0.0, limits)


def rescale(
  boxes: jax.Array, size: jax.Array, new_size: jax.Array
) -> jax.Array:
  """Boxes [..., 4] of an image of `size` [2], in pixels of one of `new_size`.

  From the image as the net saw it to the original: the two sides are scaled
  by their own ratios, so that the rounding of the resized side cancels.
  """
  ratio = jnp.asarray(new_size, boxes.dtype) / jnp.asarray(size, boxes.dtype)
  return boxes * jnp.concatenate([ratio, ratio])


def _ratio(part: jax.Array, whole: jax.Array) -> jax.Array:
  """part / whole; 0 where there is no part, and no NaN in gradients either."""
  there = (part > 0) & (whole > 0)
  return jnp.where(there, part, 0.0) / jnp.where(there, whole, 1.0)
