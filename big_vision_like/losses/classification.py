"""Classification losses from label ids, one value per example.

Targets never become a [batch, classes] array: for labels that are not mutually
exclusive (Sun et al. 2017, section 3.2),

    sum_c softplus(z_c) - y_c z_c  =  sum_c softplus(z_c) - sum_{c in ids} z_c.

Labels that are merely unknown, and labels that are only probable, change the
two terms: see `sigmoid_sparse`.

Logits stay split by class over the mesh's 'model' axis; each device looks at
its own columns, and only the sums [batch] travel. Without a mesh the same
functions run on the whole array.
"""

import functools
from collections.abc import Callable
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from big_vision_like.config import option_types
from big_vision_like.config.option_types import Between
from big_vision_like.parallel import constraints

Reduction = Literal['sum_classes', 'mean_classes']
Unknown = Literal['negative', 'ignore']
Confidence = Literal['ignore', 'target', 'weight']
Smoothing = Annotated[float, Between(0, 1, open='high')]


def sigmoid_sparse(
  logits: jax.Array,
  label_ids: jax.Array,
  num_classes: int,
  reduction: Reduction = 'sum_classes',
  *,
  unknown: Unknown = 'negative',
  confidence: Confidence = 'ignore',
  label_conf: jax.Array | None = None,
  negative_ids: jax.Array | None = None,
) -> jax.Array:
  """Logistic loss over the classes, each present, absent or unknown.

  With s(z) = softplus(z), the loss if a class is absent, and s(-z) that if it
  is present, the loss of an image with labels P of confidence q is

      unknown='negative':  sum of s(z_c) over all classes c not in P
      unknown='ignore':    sum of s(z_c) over the verified negatives

  plus, over the labels c in P,

      confidence='ignore':  s(-z_c)
      confidence='target':  q s(-z_c) + (1 - q) s(z_c), a soft target q
      confidence='weight':  q s(-z_c)

  The default is the paper's: all that is not labelled counts as absent.

  Ids outside [0, num_classes) contribute nothing, so -1 pads a row. The input
  pipeline is where labels are validated. Ids of one row must be unique, and
  labels and negatives disjoint: a repeated id is counted once per occurrence.

  Args:
    logits: float [B, C_pad], C_pad >= num_classes; further columns are padding
      and get an exactly zero gradient.
    label_ids: int32 [B, L] positive labels, padded with -1.
    num_classes: number of classes, without padding.
    reduction: 'sum_classes', or 'mean_classes' for the sum over num_classes
      (pair that one with a small RMSProp epsilon); with unknown='ignore' over
      the number of known labels of the image, at least 1.
    unknown: what a class that is not listed is.
    confidence: what `label_conf` does.
    label_conf: float [B, L] in [0, 1], q of each label; a constant, no
      gradient. Needed unless confidence='ignore'.
    negative_ids: int32 [B, N] labels known to be absent, padded with -1.
      Needed, and read, where unknown='ignore'.

  Returns:
    float32 [B] loss per example, in nats.

  Raises:
    ValueError: unknown choice, a missing array, or shapes that do not fit.
  """
  choices = dict(reduction=reduction, unknown=unknown, confidence=confidence)
  option_types.check('', sigmoid_sparse, choices)
  _check(logits, num_classes, label_ids, rank=2)
  if confidence == 'ignore':
    label_conf = None
  elif label_conf is None or label_conf.shape != label_ids.shape:
    raise ValueError(
      f'confidence={confidence!r} needs label_conf of shape {label_ids.shape}, '
      f'got {None if label_conf is None else label_conf.shape}'
    )
  if unknown == 'negative':
    negative_ids = None
  elif negative_ids is None:
    raise ValueError("unknown='ignore' needs negative_ids")
  else:
    _check(logits, num_classes, negative_ids, rank=2)

  def local(logits: jax.Array, labels: Any, axis: str | None) -> jax.Array:
    ids, conf, negatives = labels
    valid = _valid_columns(logits.shape[1], num_classes, axis)
    weights = _weights(unknown, confidence, ids, conf, negatives)
    if negatives is not None:
      ids = jnp.concatenate([ids, negatives], axis=1)
    ids = _local_ids(ids, logits.shape[1], num_classes, axis)
    loss: Any = _sparse_logistic(
      unknown == 'negative', logits, ids, weights, valid
    )
    return loss if axis is None else jax.lax.psum(loss, axis)

  loss = _per_example(local, logits, (label_ids, label_conf, negative_ids))
  if reduction == 'sum_classes':
    return loss
  if negative_ids is None:
    return loss / num_classes
  known = sum(
    jnp.sum((ids >= 0) & (ids < num_classes), axis=1)
    for ids in (label_ids, negative_ids)
  )
  return loss / jnp.maximum(known, 1)


def softmax_sparse(
  logits: jax.Array,
  label: jax.Array,
  num_classes: int,
  label_smoothing: Smoothing = 0.0,
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
  option_types.check_value('label_smoothing', Smoothing, label_smoothing)
  _check(logits, num_classes, label, rank=1)

  def local(logits: jax.Array, ids: Any, axis: str | None) -> jax.Array:
    counted = (ids >= 0) & (ids < num_classes)
    valid = _valid_columns(logits.shape[1], num_classes, axis)
    ids = _local_ids(ids[:, None], logits.shape[1], num_classes, axis)
    smoothing = label_smoothing / num_classes
    loss: Any = _cross_entropy(
      axis, smoothing, label_smoothing, logits, ids, valid
    )
    return jnp.where(counted, loss, 0.0)

  return _per_example(local, logits, label)


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
  local: Callable[[jax.Array, Any, str | None], jax.Array],
  logits: jax.Array,
  labels: Any,
) -> jax.Array:
  """Runs `local` on every device's columns, or on the whole array.

  `labels` is a tree of [B, ...] arrays, of which each device sees its rows.
  """
  logits = logits.astype(jnp.float32)
  axes = constraints.mesh_axes()
  if not {'data', 'model'} <= axes.keys():
    return local(logits, labels, None)
  constraints.check_divisible(logits.shape, ('data', 'model'))
  axis = 'model' if axes['model'] > 1 else None  # no sum over one device
  loss = jax.shard_map(
    lambda logits, labels: local(logits, labels, axis),
    in_specs=(P('data', axis), P('data')),
    out_specs=P('data'),
    axis_names={'data', 'model'},
  )(logits, labels)
  return constraints.constrain(loss, constraints.BATCH)


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


def _taken(logits: jax.Array, ids: jax.Array) -> tuple[jax.Array, jax.Array]:
  """logits [b, c] at ids [b, L], and where the id is not c; [b, L] each."""
  last = logits.shape[1] - 1
  values = jnp.take_along_axis(logits, jnp.minimum(ids, last), axis=1)
  return values, ids <= last


def _picked(logits: jax.Array, ids: jax.Array) -> jax.Array:
  """Sum of logits [b, c] at ids [b, L]; id c picks nothing. -> [b]"""
  values, here = _taken(logits, ids)
  return jnp.sum(jnp.where(here, values, 0.0), axis=1)


def _subtract_at(
  array: jax.Array, ids: jax.Array, values: jax.Array
) -> jax.Array:
  """array [b, c] minus values [b, L or 1] at ids [b, L]; id c is dropped."""
  rows = jnp.arange(array.shape[0])[:, None]
  return array.at[rows, ids].add(-values, mode='drop')


def _without_padding(logits: jax.Array, valid: jax.Array) -> jax.Array:
  """logits [b, c], far below zero in the columns that are not valid [c].

  An added row, because XLA's CPU backend fuses that into the sum over classes;
  a select it does not, and writes a [b, c] array (4 times slower).
  """
  return logits + jnp.where(valid, 0.0, jnp.finfo(jnp.float32).min)


def _softplus(x: jax.Array) -> jax.Array:
  """log(1 + exp(x)); the first term is max(x, 0), without an array of zeros."""
  return 0.5 * (x + jnp.abs(x)) + jnp.log1p(jnp.exp(-jnp.abs(x)))


def _weights(
  unknown: str,
  confidence: str,
  ids: jax.Array,
  conf: jax.Array | None,
  negatives: jax.Array | None,
) -> tuple[jax.Array, jax.Array] | None:
  """What softplus(z) and -z count at each listed id, [b, L + N] each.

  None: 0 and 1, the paper's labels, for which nothing need be multiplied.
  """
  if unknown == 'negative' and conf is None:
    return None
  one = jnp.ones(ids.shape, jnp.float32)
  linear = one if conf is None else conf.astype(jnp.float32)
  curved = linear if confidence == 'weight' else one
  if unknown == 'negative':
    return curved - 1, linear  # all classes count softplus(z) once already
  assert negatives is not None
  absent = jnp.ones(negatives.shape, jnp.float32)
  curved = jnp.concatenate([curved, absent], axis=1)
  return curved, jnp.concatenate([linear, 0 * absent], axis=1)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _sparse_logistic(
  background: bool,
  logits: jax.Array,
  ids: jax.Array,
  weights: tuple[jax.Array, jax.Array] | None,
  valid: jax.Array,
) -> jax.Array:
  """sum_c softplus(z_c) + sum_i a_i softplus(z_i) - b_i z_i, [b].

  The gradient is written by hand: sigmoid(z) - y in one [b, c] array that the
  labels are subtracted from in place, with nothing but the logits kept.

  Args:
    background: whether the first sum is there: all classes, as negatives.
    logits: [b, c] of this device.
    ids: [b, M] local ids of the second sum, c where not on this device.
    weights: a and b, [b, M] each; None: 0 and 1.
    valid: [c].
  """
  total = jnp.zeros(logits.shape[0], jnp.float32)
  if background:
    total = jnp.sum(_softplus(_without_padding(logits, valid)), axis=1)
  if weights is None:
    return total - _picked(logits, ids)
  (curved, linear), (z, here) = weights, _taken(logits, ids)
  # a softplus(z) - b z in a form that cancels nowhere.
  slope = jnp.where(z > 0, curved - linear, -linear)
  listed = curved * jnp.log1p(jnp.exp(-jnp.abs(z))) + slope * z
  return total + jnp.sum(jnp.where(here, listed, 0.0), axis=1)


def _logistic_forward(background, logits, ids, weights, valid):
  loss = _sparse_logistic(background, logits, ids, weights, valid)
  return loss, (logits, ids, weights, valid)


def _logistic_backward(background, residuals, g):
  logits, ids, weights, valid = residuals
  if background:
    gradient = jnp.where(valid, jax.nn.sigmoid(logits) * g[:, None], 0.0)
  else:
    gradient = jnp.zeros_like(logits)
  at_ids = g[:, None]
  if weights is not None:
    (curved, linear), (z, _) = weights, _taken(logits, ids)
    at_ids = (linear - curved * jax.nn.sigmoid(z)) * at_ids
  return _subtract_at(gradient, ids, at_ids), None, None, None


_sparse_logistic.defvjp(_logistic_forward, _logistic_backward)


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
  gradient = _subtract_at(gradient, ids, (1 - smoothing) * g[:, None])
  return gradient, None, None


_cross_entropy.defvjp(_cross_entropy_forward, _cross_entropy_backward)
