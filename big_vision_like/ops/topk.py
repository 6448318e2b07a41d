"""The k best classes of every example, from logits split by class.

Each device ranks its own columns; only its k candidates travel, [batch, k *
shards] numbers in place of [batch, classes].
"""

import functools

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from big_vision_like.parallel import constraints


def top_k(
  logits: jax.Array,
  k: int,
  allowed: jax.Array | None = None,
  num_classes: int | None = None,
) -> tuple[jax.Array, jax.Array]:
  """Highest scores first; of equal scores the lower id first.

  Args:
    logits: float [B, C_pad], not NaN.
    k: how many, at most C_pad.
    allowed: bool [C_pad]; the other classes come last, with score -inf. None
      allows all.
    num_classes: if given, columns from here on are padding: not allowed.

  Returns:
    scores float32 [B, k] and ids int32 [B, k]. Where fewer than k classes are
    allowed the row ends in ids that are not, by rising id, at -inf.

  Raises:
    ValueError: k or the shape of `allowed` does not fit the logits.
  """
  width = logits.shape[1]
  if not 1 <= k <= width:
    raise ValueError(f'k must be between 1 and {width} classes, got {k}')
  if allowed is None:
    allowed = jnp.ones((width,), bool)
  if allowed.shape != (width,):
    raise ValueError(f'allowed must have shape {(width,)}, got {allowed.shape}')
  if num_classes is not None:
    allowed = allowed & (jnp.arange(width) < num_classes)
  logits = logits.astype(jnp.float32)
  if not {'data', 'model'} <= constraints.mesh_axes().keys():
    return _best(logits, allowed, k, first_id=0)
  constraints.check_divisible(logits.shape, (constraints.BATCH, 'model'))
  candidates = jax.shard_map(
    functools.partial(_local_best, k=k),
    in_specs=(P('data', 'model'), P('model')),
    out_specs=P('data', 'model'),
    axis_names={'data', 'model'},
  )(logits, allowed)
  return jax.shard_map(
    functools.partial(_merge, k=k),
    in_specs=P(constraints.BATCH),
    out_specs=P(constraints.BATCH),
    axis_names={'data', 'model'},
  )(*candidates)


def _best(
  logits: jax.Array, allowed: jax.Array, k: int, first_id: jax.Array | int
) -> tuple[jax.Array, jax.Array]:
  """Of columns [b, c], at most k: scores and ids, ties by rising id."""
  scores = jnp.where(allowed, logits, -jnp.inf)
  scores = jnp.where(scores == 0, 0.0, scores)  # -0.0 ties with 0.0
  scores, ids = jax.lax.top_k(scores, min(k, logits.shape[1]))
  return scores, ids + first_id


def _local_best(
  logits: jax.Array, allowed: jax.Array, k: int
) -> tuple[jax.Array, jax.Array]:
  first_id = jax.lax.axis_index('model') * logits.shape[1]
  return _best(logits, allowed, k, first_id)


def _merge(
  scores: jax.Array, ids: jax.Array, k: int
) -> tuple[jax.Array, jax.Array]:
  """Candidates lie by shard, so that position breaks ties as the id does."""
  scores, positions = jax.lax.top_k(scores, k)
  return scores, jnp.take_along_axis(ids, positions, axis=1)
