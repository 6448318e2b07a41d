"""A fixed number of anchors or proposals by chance, positives first.

The rule is that of balanced_positive_negative_sampler.py of the TensorFlow
Object Detection API (2017). Chance is a random priority of each candidate; the
highest are taken.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp


class Sample(NamedTuple):
  """Candidates taken: M places, positives, then negatives, then nothing.

  Attributes:
    index: int32 [M] of the candidate; 0 where nothing is.
    positive: bool [M].
    mask: bool [M], False where nothing is.
  """

  index: jax.Array
  positive: jax.Array
  mask: jax.Array


def num_positives(size: int, fraction: float) -> int:
  """floor(fraction * size).

  Raises:
    ValueError: a size below 1 or a fraction outside of [0, 1].
  """
  if size < 1 or not 0 <= fraction <= 1:
    raise ValueError(
      'sampling: at least 1 with a fraction of positives in [0, 1], got '
      f'size={size} and fraction={fraction}'
    )
  return int(fraction * size)


def sample(
  key: jax.Array,
  positive: jax.Array,
  negative: jax.Array,
  size: int,
  fraction: float,
) -> Sample:
  """At most floor(fraction * size) positives, filled up with negatives.

  Args:
    key: of jax.random.
    positive: bool [N].
    negative: bool [N]; candidates that are neither are never taken.
    size: M. Fewer are taken where there are not enough.
    fraction: of positives, at most.
  """
  most = num_positives(size, fraction)
  num = positive.shape[0]
  priority = jax.random.uniform(key, (num,))

  def best(candidate: jax.Array, k: int) -> tuple[jax.Array, jax.Array]:
    values, index = jax.lax.top_k(jnp.where(candidate, priority, -1.0), k)
    return index, (values >= 0).sum(dtype=jnp.int32)

  places = jnp.arange(size, dtype=jnp.int32)
  first, num_first = jnp.zeros(1, jnp.int32), jnp.int32(0)
  if most and num:
    first, num_first = best(positive, min(most, num))
  then, num_then = jnp.zeros(1, jnp.int32), jnp.int32(0)
  if num:
    then, num_then = best(negative, min(size, num))
  is_positive = places < num_first
  mask = places < num_first + num_then
  behind = jnp.clip(places - num_first, 0, then.shape[0] - 1)
  index = jnp.where(
    is_positive, first[jnp.minimum(places, first.shape[0] - 1)], then[behind]
  )
  return Sample(jnp.where(mask, index, 0), is_positive, mask)
