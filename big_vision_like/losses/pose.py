"""Losses of a pose net, one value a person.

Papandreou et al. 2017 (G-RMI), section 3.2: a logistic loss at every position
of every keypoint's map, and inside the discs a Huber loss of the distance
between the predicted and the true place. The paper does not give the Huber
loss's threshold, nor what it does about keypoints that nobody labelled.
"""

from typing import Literal

import jax
import jax.numpy as jnp

from big_vision_like.ops.keypoints.discs import Targets

Unlabelled = Literal['mask', 'negative']
Reduction = Literal['mean', 'sum']


def of_heatmaps(
  logits: jax.Array,
  targets: Targets,
  *,
  unlabelled: Unlabelled = 'mask',
  excluded: jax.Array | None = None,
  reduction: Reduction = 'mean',
) -> jax.Array:
  """Logistic loss of the discs, summed over keypoints.

  Args:
    logits: float32 [..., K, h, w].
    targets: of `discs.targets` on the same map.
    unlabelled: 'mask': a keypoint without a label has no loss; 'negative': it
      is nowhere.
    excluded: bool [..., K, h, w], positions without a loss, such as the discs
      of other people; those of the person's own disc count all the same.
    reduction: 'mean' over the positions or their 'sum'.

  Returns:
    float32 [...], in nats.
  """
  losses = jax.nn.softplus(jnp.where(targets.inside, -logits, logits))
  counted = None
  if unlabelled == 'mask':
    counted = targets.labelled
  if excluded is not None:
    near = targets.inside | ~excluded
    counted = near if counted is None else counted & near
  if counted is not None:
    losses = jnp.where(counted, losses, 0.0)
  return _reduced(losses, reduction)


def of_offsets(
  offsets: jax.Array,
  targets: Targets,
  *,
  delta: float = 1.0,
  reduction: Reduction = 'mean',
) -> jax.Array:
  """Huber loss of the error's length inside the discs, summed over keypoints.

  u^2 / 2 for an error of u <= delta pixels, else delta (u - delta / 2).

  Args:
    offsets: float32 [..., 2, K, h, w], down and to the right.
    targets: of `discs.targets` on the same map.
    delta: pixels.
    reduction: 'mean': divided by the number of positions, those outside of the
      discs among them; or 'sum'.

  Returns:
    float32 [...].
  """
  down = offsets[..., 0, :, :, :] - targets.down
  right = offsets[..., 1, :, :, :] - targets.right
  square = down * down + right * right
  near = square <= delta * delta
  # The root of 0 has no gradient: it is taken of what is far alone.
  length = jnp.sqrt(jnp.where(near, delta * delta, square))
  losses = jnp.where(near, 0.5 * square, delta * (length - 0.5 * delta))
  return _reduced(jnp.where(targets.inside, losses, 0.0), reduction)


def _reduced(losses: jax.Array, reduction: Reduction) -> jax.Array:
  """[..., K, h, w] -> [...]."""
  total = losses.sum(axis=(-3, -2, -1))
  if reduction == 'sum':
    return total
  return total / (losses.shape[-2] * losses.shape[-1])
