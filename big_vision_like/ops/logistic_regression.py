"""Multinomial logistic regression on fixed features, on the device.

Minimises mean cross-entropy + l2 / 2 * ||W||^2 over W [D, C] and an
unregularised bias, as scikit-learn's LogisticRegression does with
C = 1 / (n * l2). L-BFGS (optax) runs in the eigenbasis of the features'
covariance, each axis and the bias scaled by the curvature where all classes are
equally likely: covariance / C + l2, and 1 / C. Rotating and centring leave the
solution as it is (the bias is free). A small l2 on features of large or very
unequal scales still takes many steps.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike


class Basis(NamedTuple):
  """Features centred and rotated; made once for a whole path of l2.

  Attributes:
    mean: float32 [D] of the features.
    rotation: float32 [D, R] eigenvectors of their covariance, R = min(n, D).
    variance: float32 [R] along them.
    rotated: float32 [n, R] (features - mean) @ rotation.
  """

  mean: jax.Array
  rotation: jax.Array
  variance: jax.Array
  rotated: jax.Array


class Fit(NamedTuple):
  """A solution.

  Attributes:
    kernel: float32 [D, C].
    bias: float32 [C].
    loss: the objective, in nats.
    num_steps: of L-BFGS.
    gap: bound of what the objective is above its least value, over itself.
  """

  kernel: jax.Array
  bias: jax.Array
  loss: jax.Array
  num_steps: jax.Array
  gap: jax.Array


@jax.jit
def basis(features: ArrayLike) -> Basis:
  """Basis of features [n, D]."""
  x = jnp.asarray(features, jnp.float32)
  num, dim = x.shape
  mean = x.mean(axis=0)
  centred = x - mean
  with jax.default_matmul_precision('highest'):
    variance, vectors = jnp.linalg.eigh(centred.T @ centred / num)
    rank = min(num, dim)
    variance = jnp.maximum(variance[::-1][:rank], 0.0)
    rotation = vectors[:, ::-1][:, :rank]
    return Basis(mean, rotation, variance, centred @ rotation)


@functools.partial(jax.jit, static_argnames=('num_classes', 'max_steps'))
def fit(
  basis: Basis,
  label: ArrayLike,
  num_classes: int,
  l2: jax.Array | float,
  *,
  start: Fit | None = None,
  max_steps: int = 500,
  tolerance: float = 1e-7,
) -> Fit:
  """The solution for one l2.

  Args:
    basis: of the features [n, D].
    label: int32 [n] in 0..num_classes-1.
    num_classes: C.
    l2: above 0; l2 / 2 times the squared norm of the kernel is added to the
      mean loss.
    start: a solution to begin at, that of the l2 before on a path.
    max_steps: of L-BFGS.
    tolerance: stop when `gap` is no larger. The bound is ||gradient||^2 over
      twice the least curvature, l2; of the bias, 1 / C instead.
  """
  rotated, l2 = basis.rotated, jnp.float32(l2)
  classes = jnp.asarray(label)
  curvature = 1 / num_classes
  scale = jax.lax.rsqrt(curvature * basis.variance + l2)[:, None]  # [R, 1]
  bias_scale = curvature**-0.5
  rows = jnp.arange(classes.shape[0])

  def objective(scaled: Any) -> jax.Array:
    kernel = scaled['kernel'] * scale
    logits = rotated @ kernel + bias_scale * scaled['bias']
    losses = jax.nn.logsumexp(logits, axis=1) - logits[rows, classes]
    return losses.mean() + 0.5 * l2 * jnp.sum(kernel**2)

  def gap_of(state: Any) -> jax.Array:
    gradient = optax.tree.get(state, 'grad')
    kernel = jnp.sum(jnp.square(gradient['kernel'] / scale)) / (2 * l2)
    bias = jnp.sum(jnp.square(gradient['bias'])) / 2  # scaled by its curvature
    return (kernel + bias) / optax.tree.get(state, 'value')

  solver = optax.lbfgs(memory_size=15)
  value_and_grad = optax.value_and_grad_from_state(objective)

  def unfinished(carry: Any) -> jax.Array:
    _, state, step, _ = carry
    return (step == 0) | ((step < max_steps) & (gap_of(state) > tolerance))

  def advance(carry: Any) -> Any:
    scaled, state, step, _ = carry
    value, gradient = value_and_grad(scaled, state=state)
    updates, state = solver.update(
      gradient, state, scaled, value=value, grad=gradient, value_fn=objective
    )
    return optax.apply_updates(scaled, updates), state, step + 1, value

  with jax.default_matmul_precision('highest'):
    scaled = {
      'kernel': jnp.zeros((rotated.shape[1], num_classes), jnp.float32),
      'bias': jnp.zeros(num_classes, jnp.float32),
    }
    if start is not None:
      kernel = basis.rotation.T @ start.kernel
      bias = start.bias + basis.mean @ start.kernel
      scaled = {'kernel': kernel / scale, 'bias': bias / bias_scale}
    carry = scaled, solver.init(scaled), jnp.int32(0), jnp.float32(0)
    scaled, state, step, _ = jax.lax.while_loop(unfinished, advance, carry)
    kernel = basis.rotation @ (scaled['kernel'] * scale)
    return Fit(
      kernel,
      bias_scale * scaled['bias'] - basis.mean @ kernel,
      optax.tree.get(state, 'value'),
      step,
      gap_of(state),
    )


@jax.jit
def logits(fit: Fit, features: ArrayLike) -> jax.Array:
  """float32 [n, C]."""
  with jax.default_matmul_precision('highest'):
    return jnp.asarray(features, jnp.float32) @ fit.kernel + fit.bias
