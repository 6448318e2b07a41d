"""Poses from votes: the best place of every keypoint, and a score.

Papandreou et al. 2017, section 3.3: a keypoint is where its votes are most, its
confidence is how many they are, and a person's score the mean of these. There
is no refinement below a pixel.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from big_vision_like.ops.keypoints import voting as votes


class Poses(NamedTuple):
  """The pose of a person, or of a batch [B, ...] of them.

  Attributes:
    keypoints: float32 [K, 3]: y, x in pixels of the original image, and
      confidence.
    scores: float32 [], mean of the confidences.
  """

  keypoints: jax.Array
  scores: jax.Array


def pose(
  maps: jax.Array,
  crop_to_image: jax.Array,
  *,
  shape: tuple[int, int],
  radius: float,
  voting: votes.Voting = 'top',
  method: votes.Method = 'auto',
) -> Poses:
  """The pose of the person of one crop.

  Args:
    maps: float32 [h, w, 3 K], see `voting.fuse`.
    crop_to_image: float32 [2, 3], see `to_image`.
    shape, radius, voting, method: see `voting.fuse`.
  """
  fused = votes.fuse(maps, shape, radius=radius, voting=voting, method=method)
  points, confidences = peaks(fused)
  points = to_image(points, crop_to_image)
  keypoints = jnp.concatenate([points, confidences[..., None]], axis=-1)
  return Poses(keypoints, confidences.mean(-1))


def peaks(fused: jax.Array) -> tuple[jax.Array, jax.Array]:
  """(centres float32 [..., K, 2], values [..., K]) of the best pixels.

  Args:
    fused: float32 [..., K, H, W]. Of equal pixels the first in reading order
      is the best one.
  """
  *lead, height, width = fused.shape
  flat = fused.reshape(*lead, height * width)
  values = flat.max(axis=-1)
  # Two plain reductions: XLA's argmax on CPU takes several times as long.
  is_best = flat == values[..., None]
  last = height * width - 1
  index = jnp.where(is_best, jnp.arange(height * width), last).min(axis=-1)
  points = jnp.stack([index // width, index % width], axis=-1)
  return points.astype(jnp.float32) + 0.5, values


def to_image(points: jax.Array, crop_to_image: jax.Array) -> jax.Array:
  """Points of crops in their original images.

  Args:
    points: float32 [..., K, 2], (y, x) in pixels of the crop.
    crop_to_image: float32 [..., 2, 3], to be multiplied by (y, x, 1).
  """
  # Sums of products, not a matrix product, which accelerators round.
  linear = points[..., None, :] * crop_to_image[..., None, :, :2]
  return linear.sum(axis=-1) + crop_to_image[..., None, :, 2]
