"""Multinomial logistic regression on fixed features, on the device.

Minimises mean cross-entropy + l2 / 2 * ||W||^2 over W [D, C] and an
unregularised bias, as scikit-learn's LogisticRegression does with
C = 1 / (n * l2). L-BFGS (optax) runs in the eigenbasis of the features'
covariance, each axis and the bias scaled by the curvature where all classes are
equally likely: covariance / C + l2, and 1 / C. Rotating and centring leave the
solution as it is (the bias is free).

In float32 the rounding of gradients is seen as curvature where l2 is small, and
the steps lead nowhere: at 1e-5 500 of them may end further from the least than
50 in float64. So a fit that does not get nearer is finished in float64.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

_PATIENCE = 25  # steps without half the gap, after which float32 has no more


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
    max_steps: of L-BFGS, in float32 and in float64 together.
    tolerance: stop when `gap` is no larger. The bound is ||gradient||^2 over
      twice the least curvature, l2; of the bias, 1 / C instead.
  """
  found = _fit(
    basis, label, num_classes, l2, start, max_steps, tolerance, _PATIENCE
  )
  taken = int(found.num_steps)
  if float(found.gap) <= tolerance or taken >= max_steps:
    return found
  with jax.enable_x64(True):
    wide = lambda tree: jax.tree.map(
      lambda x: jnp.asarray(x, jnp.float64), tree
    )
    exact = _fit(
      wide(basis), label, num_classes, l2,
      wide(found)._replace(num_steps=found.num_steps),
      max_steps - taken, tolerance, max_steps,
    )  # fmt: skip
    narrow = {
      name: jnp.asarray(value, jnp.float32)
      for name, value in exact._asdict().items()
    }
  return Fit(**{**narrow, 'num_steps': exact.num_steps + taken})


@functools.partial(
  jax.jit, static_argnames=('num_classes', 'max_steps', 'patience')
)
def _fit(
  basis: Basis,
  label: ArrayLike,
  num_classes: int,
  l2: jax.Array | float,
  start: Fit | None,
  max_steps: int,
  tolerance: float,
  patience: int,
) -> Fit:
  """`fit` in the precision of the basis.

  It also stops where the gap has not been halved for `patience` steps.
  """
  rotated, dtype = basis.rotated, basis.rotated.dtype
  l2 = jnp.asarray(l2, dtype)
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
    _, state, step, _, since = carry
    goes_on = (step < max_steps) & (step - since < patience)
    return (step == 0) | (goes_on & (gap_of(state) > tolerance))

  def advance(carry: Any) -> Any:
    scaled, state, step, least, since = carry
    value, gradient = value_and_grad(scaled, state=state)
    updates, state = solver.update(
      gradient, state, scaled, value=value, grad=gradient, value_fn=objective
    )
    scaled, step = optax.apply_updates(scaled, updates), step + 1
    gap = gap_of(state)
    nearer = gap < least / 2
    least, since = jnp.where(nearer, gap, least), jnp.where(nearer, step, since)
    return scaled, state, step, least, since

  with jax.default_matmul_precision('highest'):
    scaled = {
      'kernel': jnp.zeros((rotated.shape[1], num_classes), dtype),
      'bias': jnp.zeros(num_classes, dtype),
    }
    if start is not None:
      kernel = basis.rotation.T @ start.kernel
      bias = start.bias + basis.mean @ start.kernel
      scaled = {'kernel': kernel / scale, 'bias': bias / bias_scale}
    none = jnp.int32(0)
    carry = scaled, solver.init(scaled), none, jnp.asarray(jnp.inf, dtype), none
    scaled, state, step, *_ = jax.lax.while_loop(unfinished, advance, carry)
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
