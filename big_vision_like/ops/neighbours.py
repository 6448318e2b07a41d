"""Votes of the nearest neighbours by cosine similarity.

A neighbour votes for its class with weight exp(similarity / temperature), as in
the evaluation of Wu et al. (2018, section 3.4) and Caron et al. (2021).
"""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike


def normalise(features: ArrayLike) -> jax.Array:
  """Rows of unit length, float32; a row of zeros stays."""
  x = jnp.asarray(features, jnp.float32)
  norm = jnp.linalg.norm(x, axis=1, keepdims=True)
  return x / jnp.maximum(norm, 1e-12)


@functools.partial(jax.jit, static_argnames=('num_classes', 'ks'))
def vote(
  known: ArrayLike,
  label: ArrayLike,
  asked: ArrayLike,
  num_classes: int,
  ks: Sequence[int],
  temperature: jax.Array | float,
) -> jax.Array:
  """Predicted classes int32 [len(ks), B], for each number of neighbours.

  Of equal votes the lower class wins, of equally near neighbours the first.

  Args:
    known: [n, D] normalised features with classes.
    label: int32 [n].
    asked: [B, D] normalised features.
    num_classes: C.
    ks: numbers of neighbours, each in 1..n.
    temperature: of the weights; above 0.
  """
  with jax.default_matmul_precision('highest'):
    similarities = jnp.asarray(asked) @ jnp.asarray(known).T  # [B, n]
  similarity, found = jax.lax.top_k(similarities, max(ks))  # [B, k]
  # Relative to the nearest, so that no exponential overflows.
  weight = jnp.exp((similarity - similarity[:, :1]) / temperature)
  num = similarity.shape[0]
  rows = jnp.arange(num)[:, None]
  predictions = []
  for k in ks:
    votes = jnp.zeros((num, num_classes), jnp.float32)
    votes = votes.at[rows, jnp.asarray(label)[found[:, :k]]].add(weight[:, :k])
    predictions.append(jnp.argmax(votes, axis=1))
  return jnp.stack(predictions).astype(jnp.int32)
