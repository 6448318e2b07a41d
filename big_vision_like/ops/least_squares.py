"""Ridge regression onto class indicators: the few-shot probe.

Features are standardised by the training examples, targets are +1 for the class
and -1 for the others, the bias is free:

    W = (X^T X + l2)^-1 X^T Y,  X standardised, Y centred.

Solved as [D, D] or, with fewer examples than dimensions, as [n, n].
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

_SMALLEST_STD = 1e-5


class Fit(NamedTuple):
  """A solution: kernel float32 [D, C] on the raw features, bias [C]."""

  kernel: jax.Array
  bias: jax.Array


@functools.partial(jax.jit, static_argnames='num_classes')
def fit(
  features: ArrayLike,
  label: ArrayLike,
  num_classes: int,
  l2: jax.Array | float,
) -> Fit:
  """The solution for features [n, D] and labels int32 [n].

  Args:
    features: one row an example.
    label: class of each, in 0..num_classes-1.
    num_classes: C.
    l2: above 0, added to the diagonal.
  """
  x = jnp.asarray(features, jnp.float32)
  num, dim = x.shape
  mean, std = x.mean(axis=0), x.std(axis=0) + _SMALLEST_STD
  x = (x - mean) / std
  y = 2 * jax.nn.one_hot(label, num_classes) - 1
  y_mean = y.mean(axis=0)
  y = y - y_mean
  with jax.default_matmul_precision('highest'):
    if num < dim:
      weights = x.T @ _solve(x @ x.T, l2, y)
    else:
      weights = _solve(x.T @ x, l2, x.T @ y)
    kernel = weights / std[:, None]
    return Fit(kernel, y_mean - mean @ kernel)


def _solve(
  matrix: jax.Array, l2: jax.Array | float, rhs: jax.Array
) -> jax.Array:
  """(matrix + l2 I)^-1 rhs of a symmetric matrix."""
  shifted = matrix + l2 * jnp.eye(matrix.shape[0], dtype=matrix.dtype)
  return jax.scipy.linalg.solve(shifted, rhs, assume_a='pos')


@jax.jit
def scores(fit: Fit, features: ArrayLike) -> jax.Array:
  """float32 [n, C]; the class with the highest score is the prediction."""
  with jax.default_matmul_precision('highest'):
    return jnp.asarray(features, jnp.float32) @ fit.kernel + fit.bias
