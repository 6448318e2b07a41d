"""Losses of a two-stage detector, one value per image.

Of each stage a softmax cross-entropy over the sampled places and a smooth L1
distance of the codes of positives, both over the number of sampled places: the
TensorFlow Object Detection API's (2017), but for an image of which nothing is
sampled: its losses are 0, where the API divides 0 by 0.
"""

import jax
import jax.numpy as jnp

from big_vision_like.ops.boxes.targets import Targets


def smooth_l1(predicted: jax.Array, true: jax.Array) -> jax.Array:
  """Sum over the last axis of x^2 / 2 where |x| < 1, else |x| - 1 / 2.

  Girshick 2015, equation 3. [..., 4] and [..., 4] -> float32 [...].
  """
  x = jnp.abs(predicted.astype(jnp.float32) - true.astype(jnp.float32))
  return jnp.where(x < 1, 0.5 * x * x, x - 0.5).sum(axis=-1)


def of_anchors(
  logits: jax.Array, codes: jax.Array, targets: Targets
) -> tuple[jax.Array, jax.Array]:
  """The first stage's losses of an image.

  Args:
    logits: float [N, 2] of background and object, of all anchors.
    codes: float [N, 4] of all anchors.
    targets: of `targets.for_anchors`.

  Returns:
    Objectness and localisation, float32 scalars, in nats and in codes.
  """
  return _stage(logits[targets.index], codes[targets.index], targets)


def of_proposals(
  logits: jax.Array, codes: jax.Array, targets: Targets
) -> tuple[jax.Array, jax.Array]:
  """The second stage's losses of an image.

  Args:
    logits: float [M, C + 1], background first, of the sampled proposals.
    codes: float [M, C, 4] of each class; that of the true class counts.
    targets: of `targets.for_proposals`.

  Returns:
    Classification and localisation, float32 scalars.
  """
  true_class = jnp.maximum(targets.labels - 1, 0)
  own = jnp.take_along_axis(codes, true_class[:, None, None], axis=1)[:, 0]
  return _stage(logits, own, targets)


def _stage(
  logits: jax.Array, codes: jax.Array, targets: Targets
) -> tuple[jax.Array, jax.Array]:
  logits = logits.astype(jnp.float32)
  log_prob = jax.nn.log_softmax(logits)
  loss = -jnp.take_along_axis(log_prob, targets.labels[:, None], axis=1)[:, 0]
  distance = smooth_l1(codes, targets.codes)
  sampled = jnp.maximum(targets.mask.sum(), 1)
  return (
    jnp.where(targets.mask, loss, 0.0).sum() / sampled,
    jnp.where(targets.positive, distance, 0.0).sum() / sampled,
  )
