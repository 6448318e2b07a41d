"""Rank of the true class and cross-entropy, from logits split by class."""

import jax
import jax.numpy as jnp


def rank_and_loss(
  logits: jax.Array, label: jax.Array, num_classes: int
) -> dict[str, jax.Array]:
  """How many classes come before the true one, and the cross-entropy.

  Args:
    logits: float [B, C_pad]; columns from `num_classes` on are padding.
    label: int [B].
    num_classes: C.

  Returns:
    'rank' int32 [B] (0: the true class is first), 'loss' float32 [B].
  """
  column = jnp.arange(logits.shape[1])
  logits = logits.astype(jnp.float32)
  logits = jnp.where(column < num_classes, logits, -jnp.inf)
  is_label = column == label[:, None]  # [B, C_pad], fused into the sums
  true = jnp.sum(jnp.where(is_label, logits, 0.0), axis=1, keepdims=True)
  before = (logits > true) | ((logits == true) & (column < label[:, None]))
  loss = jax.nn.logsumexp(logits, axis=1) - true[:, 0]
  return {'rank': before.sum(axis=1, dtype=jnp.int32), 'loss': loss}
