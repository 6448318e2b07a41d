"""Classification losses from label ids, one value per example.

Targets never become a [batch, classes] array: for labels that are not mutually
exclusive (Sun et al. 2017, section 3.2),

    sum_c softplus(z_c) - y_c z_c  =  sum_c softplus(z_c) - sum_{c in ids} z_c.

Logits stay split by class over the mesh's 'model' axis; each device looks at
its own columns, and only the sums [batch] travel. Without a mesh the same
functions run on the whole array.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from big_vision_like.ops import sharding

REDUCTIONS = ('sum_classes', 'mean_classes')


def sigmoid_sparse(
  logits: jax.Array,
  label_ids: jax.Array,
  num_classes: int,
  reduction: str = 'sum_classes',
) -> jax.Array:
  """Logistic loss over all classes; absent labels are negatives.

  Ids outside [0, num_classes) contribute nothing to the picked sum, so -1 pads
  a row. The input pipeline is where labels are validated. Ids of one row
  must be unique: a repeated id is picked, and its gradient counted, once per
  occurrence.

  Args:
    logits: float [B, C_pad], C_pad >= num_classes; further columns are padding
      and get an exactly zero gradient.
    label_ids: int32 [B, L] positive labels, padded with -1.
    num_classes: number of classes, without padding.
    reduction: 'sum_classes', or 'mean_classes' for the sum over num_classes
      (pair that one with a small RMSProp epsilon).

  Returns:
    float32 [B] loss per example, in nats.

  Raises:
    ValueError: unknown reduction, or shapes that do not fit.
  """
  if reduction not in REDUCTIONS:
    raise ValueError(
      f'reduction must be one of {", ".join(REDUCTIONS)}, got {reduction!r}'
    )
  _check(logits, num_classes, label_ids, rank=2)

  def local(logits: jax.Array, ids: jax.Array, axis: str | None) -> jax.Array:
    valid = _valid_columns(logits.shape[1], num_classes, axis)
    ids = _local_ids(ids, logits.shape[1], num_classes, axis)
    loss = _softplus_minus_picked(logits, ids, valid)
    return loss if axis is None else jax.lax.psum(loss, axis)

  loss = _per_example(local, logits, label_ids, P('data', None))
  return loss / num_classes if reduction == 'mean_classes' else loss


def softmax_sparse(
  logits: jax.Array,
  label: jax.Array,
  num_classes: int,
  label_smoothing: float = 0.0,
) -> jax.Array:
  """Softmax cross-entropy with one label per example.

  Args:
    logits: float [B, C_pad], C_pad >= num_classes; further columns are padding
      and get an exactly zero gradient.
    label: int32 [B]; -1, or any id outside [0, num_classes), gives zero loss
      and zero gradient.
    num_classes: number of classes, without padding.
    label_smoothing: share of the target spread evenly over all classes
      (Szegedy et al. 2016, section 7), in [0, 1).

  Returns:
    float32 [B] loss per example, in nats.

  Raises:
    ValueError: smoothing out of range, or shapes that do not fit.
  """
  if not 0 <= label_smoothing < 1:
    raise ValueError(
      f'label_smoothing must be in [0, 1), got {label_smoothing}'
    )
  _check(logits, num_classes, label, rank=1)

  def local(logits: jax.Array, ids: jax.Array, axis: str | None) -> jax.Array:
    counted = (ids >= 0) & (ids < num_classes)
    valid = _valid_columns(logits.shape[1], num_classes, axis)
    ids = _local_ids(ids[:, None], logits.shape[1], num_classes, axis)
    smoothing = label_smoothing / num_classes
    loss: Any = _cross_entropy(
      axis, smoothing, label_smoothing, logits, ids, valid
    )
    return jnp.where(counted, loss, 0.0)

  return _per_example(local, logits, label, P('data'))


def _check(
  logits: jax.Array, num_classes: int, labels: jax.Array, rank: int
) -> None:
  if logits.ndim != 2 or not 1 <= num_classes <= logits.shape[1]:
    raise ValueError(
      f'logits must be [batch, at least {num_classes} classes], got shape '
      f'{logits.shape}'
    )
  if labels.ndim != rank or labels.shape[0] != logits.shape[0]:
    raise ValueError(
      f'labels must have rank {rank} and the batch size of the logits '
      f'{logits.shape}, got shape {labels.shape}'
    )
  if not jnp.issubdtype(labels.dtype, jnp.signedinteger):
    raise ValueError(f'labels must be signed integers, got {labels.dtype}')


def _per_example(
  local: Callable[[jax.Array, jax.Array, str | None], jax.Array],
  logits: jax.Array,
  labels: jax.Array,
  labels_spec: P,
) -> jax.Array:
  """Runs `local` on every device's columns, or on the whole array."""
  logits = logits.astype(jnp.float32)
  axes = sharding.mesh_axes()
  if not {'data', 'model'} <= axes.keys():
    return local(logits, labels, None)
  sharding.check_divisible(logits.shape, ('data', 'model'))
  axis = 'model' if axes['model'] > 1 else None  # no sum over one device
  loss = jax.shard_map(
    lambda logits, labels: local(logits, labels, axis),
    in_specs=(P('data', axis), labels_spec),
    out_specs=P('data'),
    axis_names={'data', 'model'},
  )(logits, labels)
  return sharding.constrain(loss, sharding.BATCH)


def _offset(width: int, axis: str | None) -> jax.Array | int:
  """Class id of this device's first column."""
  return 0 if axis is None else jax.lax.axis_index(axis) * width


def _valid_columns(width: int, num_classes: int, axis: str | None) -> jax.Array:
  """bool [width]: False for this device's padded columns."""
  return jnp.arange(width) + _offset(width, axis) < num_classes


def _local_ids(
  ids: jax.Array, width: int, num_classes: int, axis: str | None
) -> jax.Array:
  """Global ids -> this device's columns; `width` for all that is not here."""
  local = ids - _offset(width, axis)
  here = (local >= 0) & (local < width) & (ids >= 0) & (ids < num_classes)
  return jnp.where(here, local, width)


def _picked(logits: jax.Array, ids: jax.Array) -> jax.Array:
  """Sum of logits [b, c] at ids [b, L]; id c picks nothing. -> [b]"""
  last = logits.shape[1] - 1
  values = jnp.take_along_axis(logits, jnp.minimum(ids, last), axis=1)
  return jnp.sum(jnp.where(ids <= last, values, 0.0), axis=1)


def _subtract_at(
  array: jax.Array, ids: jax.Array, values: jax.Array
) -> jax.Array:
  """array [b, c] minus values [b] at ids [b, L]; id c is dropped."""
  rows = jnp.arange(array.shape[0])[:, None]
  return array.at[rows, ids].add(-values[:, None], mode='drop')


def _without_padding(logits: jax.Array, valid: jax.Array) -> jax.Array:
  """logits [b, c], far below zero in the columns that are not valid [c].

  An added row, because XLA's CPU backend fuses that into the sum over classes;
  a select it does not, and writes a [b, c] array (4 times slower).
  """
  return logits + jnp.where(valid, 0.0, jnp.finfo(jnp.float32).min)


def _softplus(x: jax.Array) -> jax.Array:
  """log(1 + exp(x)); the first term is max(x, 0), without an array of zeros."""
  return 0.5 * (x + jnp.abs(x)) + jnp.log1p(jnp.exp(-jnp.abs(x)))


@jax.custom_vjp
def _softplus_minus_picked(
  logits: jax.Array, ids: jax.Array, valid: jax.Array
) -> jax.Array:
  """logits [b, c], local ids [b, L], valid [c] -> [b].

  The gradient is written by hand: sigmoid(z) - y in one [b, c] array that the
  labels are subtracted from in place, with nothing but the logits kept.
  """
  positive = jnp.sum(_softplus(_without_padding(logits, valid)), axis=1)
  return positive - _picked(logits, ids)


def _softplus_forward(logits, ids, valid):
  return _softplus_minus_picked(logits, ids, valid), (logits, ids, valid)


def _softplus_backward(residuals, g):
  logits, ids, valid = residuals
  gradient = jnp.where(valid, jax.nn.sigmoid(logits) * g[:, None], 0.0)
  return _subtract_at(gradient, ids, g), None, None


_softplus_minus_picked.defvjp(_softplus_forward, _softplus_backward)


def _log_sum_exp(
  logits: jax.Array, valid: jax.Array, axis: str | None
) -> jax.Array:
  """Over the valid columns of all devices, [b]."""
  logits = _without_padding(logits, valid)
  highest = jnp.max(logits, axis=1)
  if axis is not None:
    highest = jax.lax.pmax(highest, axis)
  total = jnp.sum(jnp.exp(logits - highest[:, None]), axis=1)
  if axis is not None:
    total = jax.lax.psum(total, axis)
  return highest + jnp.log(total)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def _cross_entropy(
  axis: str | None,
  per_class: float,
  smoothing: float,
  logits: jax.Array,
  ids: jax.Array,
  valid: jax.Array,
) -> jax.Array:
  """Loss [b], the same on every device of `axis`.

  Args:
    axis: mesh axis that the columns are split over.
    per_class: target of every class, smoothing / number of classes.
    smoothing: their sum; the label gets 1 - smoothing besides.
    logits: [b, c] of this device.
    ids: [b, 1] local id of the label, c where it is on another device.
    valid: [c].
  """
  loss, _ = _cross_entropy_forward(
    axis, per_class, smoothing, logits, ids, valid
  )
  return loss


def _cross_entropy_forward(axis, per_class, smoothing, logits, ids, valid):
  target_logit = (1 - smoothing) * _picked(logits, ids)
  if per_class:
    spread = jnp.sum(jnp.where(valid, logits, 0.0), axis=1)
    target_logit = target_logit + per_class * spread
  if axis is not None:
    target_logit = jax.lax.psum(target_logit, axis)
  normaliser = _log_sum_exp(logits, valid, axis)
  return normaliser - target_logit, (logits, ids, valid, normaliser)


def _cross_entropy_backward(axis, per_class, smoothing, residuals, g):
  logits, ids, valid, normaliser = residuals
  probability = jnp.exp(logits - normaliser[:, None])
  gradient = (probability - per_class) * g[:, None]
  gradient = jnp.where(valid, gradient, 0.0)
  return _subtract_at(gradient, ids, (1 - smoothing) * g), None, None


_cross_entropy.defvjp(_cross_entropy_forward, _cross_entropy_backward)
