"""What a pose net is to say at every position, made where it is compared.

Papandreou et al. 2017, section 3.2: a position is positive for a keypoint if
it is within `radius` of it, and its offset is the way to it. Both follow from
two numbers a keypoint. Made inside the train step they fuse with the loss that
reads them; stored they would be 18 MB for a person on 353x257 pixels.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp


class Targets(NamedTuple):
  """Of the keypoints of a person, or of a batch [B, ...] of them.

  Attributes:
    inside: bool [..., K, h, w], positions within the disc of a keypoint; none
      where it is not labelled.
    down: float32 [..., K, h, 1], pixels from a row down to the keypoint.
    right: float32 [..., K, 1, w], and from a column to the right.
    labelled: bool [..., K, 1, 1], whether its place is known.
  """

  inside: jax.Array
  down: jax.Array
  right: jax.Array
  labelled: jax.Array


def targets(
  keypoints: jax.Array, shape: tuple[int, int], *, stride: int, radius: float
) -> Targets:
  """Discs and offsets on a map.

  Args:
    keypoints: float32 [..., K, 3]: y, x in pixels of the crop, and visibility,
      0 where the place is not known. They may lie outside of the crop. A place
      that is NaN is that of a disc over everything, whose loss is NaN.
    shape: (h, w) of the map.
    stride: pixels a position.
    radius: of the discs in pixels; their border belongs to them.
  """
  labelled = keypoints[..., 2] > 0
  # What is not labelled may be anything, and would reach gradients as NaN.
  places = jnp.where(labelled[..., None], keypoints[..., :2], 0.0)
  at = [jnp.arange(n, dtype=jnp.float32) * stride + 0.5 for n in shape]
  down = (places[..., 0, None] - at[0])[..., :, None]
  right = (places[..., 1, None] - at[1])[..., None, :]
  labelled = labelled[..., None, None]
  outside = down * down + right * right > radius * radius
  return Targets(labelled & ~outside, down, right, labelled)


def of_others(
  keypoints: jax.Array, shape: tuple[int, int], *, stride: int, radius: float
) -> jax.Array:
  """bool [..., K, h, w]: whether any other person's keypoint k is near.

  Args:
    keypoints: float32 [..., P, K, 3] of P other people, visibility 0 where
      there is none.
    shape, stride, radius: see `targets`.
  """
  found = targets(keypoints, shape, stride=stride, radius=radius)
  return found.inside.any(axis=-4)
