"""Confusion matrix of pixels, counted on the device.

Counting is a scatter with addition, or a product of indicators row by row
where scatters are slow (TPU). Both are exact.
"""

import jax
import jax.numpy as jnp

from big_vision_like.parallel import constraints

METHODS = ('auto', 'scatter', 'product')


def matrix(
  labels: jax.Array,
  predicted: jax.Array,
  num_classes: int,
  method: str = 'auto',
) -> jax.Array:
  """Counts of (label, predicted) over the pixels of an image.

  Args:
    labels: int [H, W] true classes; those outside of [0, num_classes), such as
      255 for void, count nowhere.
    predicted: int [H, W] in [0, num_classes).
    num_classes: C.
    method: one of METHODS; 'auto' is 'product' on TPU, else 'scatter'.

  Returns:
    int32 [C, C]: true classes down, predicted ones across.
  """
  if method == 'auto':
    method = 'product' if constraints.platform() == 'tpu' else 'scatter'
  labels, predicted = labels.astype(jnp.int32), predicted.astype(jnp.int32)
  count = _by_scatter if method == 'scatter' else _by_product
  return count(labels, predicted, num_classes)


def _by_scatter(
  labels: jax.Array, predicted: jax.Array, num_classes: int
) -> jax.Array:
  size = num_classes * num_classes
  counted = (labels >= 0) & (labels < num_classes)
  place = jnp.where(counted, labels * num_classes + predicted, size)
  counts = jnp.zeros(size, jnp.int32).at[place.ravel()].add(1, mode='drop')
  return counts.reshape(num_classes, num_classes)


def _by_product(
  labels: jax.Array, predicted: jax.Array, num_classes: int
) -> jax.Array:
  classes = jnp.arange(num_classes)

  def count(row: tuple[jax.Array, jax.Array]) -> jax.Array:
    is_label, is_predicted = (
      (ids[:, None] == classes).astype(jnp.bfloat16) for ids in row
    )
    # 0 and 1 are exact in bfloat16, sums of a row in float32.
    counts = jax.lax.dot_general(
      is_label,
      is_predicted,
      (((0,), (0,)), ((), ())),
      preferred_element_type=jnp.float32,
    )
    return counts.astype(jnp.int32)

  # Not a running sum: its start would have another type inside a shard_map.
  rows = jax.lax.map(count, (labels, predicted))  # [H, C, C]
  return rows.sum(axis=0, dtype=jnp.int32)
