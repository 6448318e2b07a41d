"""Boxes relative to anchors: the box code of Faster R-CNN.

With centres, heights and widths of a box (y, x, h, w) and of its anchor
(a), Ren et al. 2015, section 3.1.2, and the factors of the TensorFlow Object
Detection API's faster_rcnn_box_coder.py,

    10 (y - ya) / ha,  10 (x - xa) / wa,  5 ln(h / ha),  5 ln(w / wa)
"""

import jax
import jax.numpy as jnp

FACTORS = (10.0, 10.0, 5.0, 5.0)
_EPSILON = 1e-8  # added to the sides of boxes and anchors before dividing


def encode(boxes: jax.Array, anchors: jax.Array) -> jax.Array:
  """Codes [..., 4] of boxes [..., 4] by anchors [..., 4].

  Finite for sides that are not negative, 0 included.
  """
  centre, side = _centred(boxes)
  anchor_centre, anchor_side = _centred(anchors)
  side, anchor_side = side + _EPSILON, anchor_side + _EPSILON
  codes = [(centre - anchor_centre) / anchor_side, jnp.log(side / anchor_side)]
  return jnp.concatenate(codes, axis=-1) * jnp.asarray(FACTORS, boxes.dtype)


def decode(
  codes: jax.Array, anchors: jax.Array, max_log_size: float | None = None
) -> jax.Array:
  """Boxes [..., 4] of codes [..., 4] by anchors [..., 4].

  Args:
    codes: of `encode`.
    anchors: what they are relative to.
    max_log_size: upper limit of ln(h / ha) and ln(w / wa), so that a wild code
      gives a large box and no infinity; None: no limit.
  """
  centre, side = _centred(anchors)
  codes = codes / jnp.asarray(FACTORS, codes.dtype)
  log_size = codes[..., 2:]
  if max_log_size is not None:
    log_size = jnp.minimum(log_size, max_log_size)
  centre = codes[..., :2] * side + centre
  side = jnp.exp(log_size) * side
  return jnp.concatenate([centre - side / 2, centre + side / 2], axis=-1)


def _centred(boxes: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Centres and sides, both [..., 2]."""
  side = boxes[..., 2:] - boxes[..., :2]
  return boxes[..., :2] + side / 2, side
