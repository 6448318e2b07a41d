"""Scores of a few given classes of every example, from logits split by class.

Each device looks up its own columns and the rest is a sum with zeros, so that
[batch, number of ids] travels in place of [batch, classes].
"""

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from big_vision_like.parallel import constraints


def pick(logits: jax.Array, ids: jax.Array) -> jax.Array:
  """logits [B, C_pad] at int32 ids [B, M], float32 [B, M].

  An id outside [0, C_pad) gives 0, so that -1 pads a row.

  Raises:
    ValueError: the shapes do not fit each other or the mesh.
  """
  if logits.ndim != 2 or ids.ndim != 2 or len(ids) != len(logits):
    raise ValueError(
      f'logits {logits.shape} and ids {ids.shape} must be [B, C] and [B, M]'
    )
  logits = logits.astype(jnp.float32)
  if not {'data', 'model'} <= constraints.mesh_axes().keys():
    return _own(logits, ids, 0)
  constraints.check_divisible(logits.shape, (constraints.BATCH, 'model'))

  def local(logits: jax.Array, ids: jax.Array) -> jax.Array:
    first_id = jax.lax.axis_index('model') * logits.shape[1]
    return jax.lax.psum(_own(logits, ids, first_id), 'model')

  picked = jax.shard_map(
    local,
    in_specs=(P('data', 'model'), P('data')),
    out_specs=P('data'),
    axis_names={'data', 'model'},
  )(logits, ids)
  return constraints.constrain(picked, constraints.BATCH)


def _own(
  logits: jax.Array, ids: jax.Array, first_id: jax.Array | int
) -> jax.Array:
  """Of columns [b, c] that start at class `first_id`; 0 for other ids."""
  local = ids - first_id
  here = (local >= 0) & (local < logits.shape[1])
  values = jnp.take_along_axis(logits, jnp.where(here, local, 0), axis=1)
  return jnp.where(here, values, 0.0)
