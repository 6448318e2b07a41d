"""The pure train step: (state, batch) -> (state, metrics).

No jit, no sharding, no I/O here: experiment.py puts those on once, tests call
the bare function.
"""

import functools
from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from big_vision_like.config import stream_names
from big_vision_like.config.stream_names import MAIN, SHOWN
from big_vision_like.protocols import Task
from big_vision_like.training import optim, skipping
from big_vision_like.training.state import TrainState

Batch = dict[str, jax.Array]
Metrics = dict[str, jax.Array]


def make_init(
  task_init: Callable[[jax.Array, Batch], tuple[Any, Any]],
  tx: optax.GradientTransformation,
  *,
  ema: bool,
  skip: skipping.Options = skipping.NOTHING,
) -> Callable[[jax.Array, Batch], TrainState]:
  """init(rng, batch) -> TrainState at step 0; `batch` gives shapes only.

  Args:
    task_init: a task's init, (rng, batch) -> (params, extra).
    tx: the optimizer.
    ema: whether averages of the parameters are kept.
    skip: what is passed over; spikes need statistics of the losses.
  """
  spikes = skip.spike_sigma is not None

  def init(rng: jax.Array, batch: Batch) -> TrainState:
    init_rng, train_rng = jax.random.split(rng)
    params, extra = task_init(init_rng, batch)
    return TrainState(
      step=jnp.zeros((), jnp.int32),
      params=params,
      extra=extra,
      opt_state=tx.init(params),
      rng=train_rng,
      ema=jax.tree.map(jnp.copy, params) if ema else None,
      nonfinite_step=jnp.full((), -1, jnp.int32),
      ema_extra=jax.tree.map(jnp.copy, extra) if ema else None,
      loss_statistics=skipping.fresh_statistics() if spikes else None,
    )

  return init


class Result(NamedTuple):
  """What the loss gives on one batch, before the optimizer.

  Attributes:
    loss: float32 [], mean over `_mask`, added over the streams.
    aux: name -> float32 [], means of the task's aux, and 'main/loss',
      'NAME/loss' where its loss is by stream.
    extra: model state after the batch.
    grads: gradient of the loss, like the params.
  """

  loss: jax.Array
  aux: Metrics
  extra: Any
  grads: Any


def make_train_step(
  task: Task,
  tx: optax.GradientTransformation,
  *,
  accum_steps: int = 1,
  ema_decay: float | None = None,
  skip: skipping.Options = skipping.NOTHING,
) -> Callable[[TrainState, Batch], tuple[TrainState, Metrics]]:
  """Makes the train step.

  The loss is the mean of the per-example losses over `_mask`; of several
  streams it is the plain sum of their means, each over its own mask. Weight
  decay is the optimizer's (coupled L2 on the gradient). With accum_steps = k
  the batch is cut into k parts whose gradients are added: the same step with
  1/k of the activations (batch statistics are then those of the parts).

  A step whose loss, gradient or update is not finite changes nothing, and
  neither do the steps after it: `state.nonfinite_step` names it. What `skip`
  says is passed over instead (skipping.py).

  Returns:
    train_step(state, batch) -> (state, metrics), metrics being float32 scalars
    'loss', 'grad_norm', 'update_norm' and the means of the task's aux.
  """
  gradients = make_gradients(task, accum_steps=accum_steps)
  update = make_update(tx, ema_decay=ema_decay, skip=skip)

  def train_step(state: TrainState, batch: Batch):
    rng = jax.random.fold_in(state.rng, state.step)
    result = gradients(state.params, state.extra, batch, rng)
    return update(state, result, state.params)

  return train_step


def make_gradients(
  task: Task, *, accum_steps: int = 1
) -> Callable[[Any, Any, Batch, jax.Array], Result]:
  """gradients(params, extra, batch, rng) -> Result; see `make_train_step`."""

  def loss_fn(params, extra, batch, rng, num_valid):
    per_example, new_extra, aux = task.loss(params, extra, batch, rng, True)

    def mean(x, stream=MAIN):
      mask = batch[stream_names.field(stream, '_mask')]
      return jnp.sum(jnp.where(mask, x, 0.0)) / num_valid[stream]

    aux = {k: mean(x, _stream_of(k, num_valid)) for k, x in aux.items()}
    if not isinstance(per_example, Mapping):
      return mean(per_example), (new_extra, aux)
    losses = {
      name: mean(x, name) for name, x in _by_stream(per_example, batch).items()
    }
    aux |= {f'{name or SHOWN}/loss': x for name, x in losses.items()}
    return functools.reduce(jnp.add, losses.values()), (new_extra, aux)

  grad_fn = jax.value_and_grad(loss_fn, has_aux=True)

  def gradients(params: Any, extra: Any, batch: Batch, rng: jax.Array):
    num_valid = {
      stream_names.stream_of(k): jnp.maximum(jnp.sum(mask), 1).astype(
        jnp.float32
      )
      for k, mask in batch.items()
      if k.rpartition('/')[2] == '_mask'
    }
    if accum_steps == 1:
      (loss, (extra, aux)), grads = grad_fn(
        params, extra, batch, rng, num_valid
      )
      return Result(loss, aux, extra, grads)
    parts = jax.tree.map(lambda x: _parts(x, accum_steps), batch)

    def body(carry, part):
      extra, total = carry
      index, part_batch = part
      part_rng = jax.random.fold_in(rng, index)
      (loss, (extra, aux)), grads = grad_fn(
        params, extra, part_batch, part_rng, num_valid
      )
      total = jax.tree.map(jnp.add, total, (loss, aux, grads))
      return (extra, total), None

    first = jax.tree.map(lambda x: x[0], parts)
    (loss, (_, aux)), grads = jax.eval_shape(
      grad_fn, params, extra, first, rng, num_valid
    )
    zeros = jax.tree.map(
      lambda x: jnp.zeros(x.shape, x.dtype), (loss, aux, grads)
    )
    (extra, (loss, aux, grads)), _ = jax.lax.scan(
      body, (extra, zeros), (jnp.arange(accum_steps), parts)
    )
    return Result(loss, aux, extra, grads)

  return gradients


def make_update(
  tx: optax.GradientTransformation,
  *,
  ema_decay: float | None = None,
  skip: skipping.Options = skipping.NOTHING,
) -> Callable[[TrainState, Result, Any], tuple[TrainState, Metrics]]:
  """update(state, result, weights) -> (state, metrics).

  One finished update of params, slots, extra and averages, or none of it where
  something is not finite: see `make_train_step`. `weights` are the params that
  weight decay is taken of. `state.workers` stays as it is.
  """

  def update(state: TrainState, result: Result, weights: Any):
    grad_norm = optax.tree.norm(result.grads)
    updates, opt_state = tx.update(result.grads, state.opt_state, weights)
    params = optax.apply_updates(state.params, updates)
    ema, ema_extra = state.ema, state.ema_extra
    if ema_decay is not None:
      ema = optim.ema_update(ema, params, ema_decay)
      ema_extra = optim.ema_update(ema_extra, result.extra, ema_decay)
    update_norm = optax.tree.norm(updates)
    finite = jnp.isfinite(result.loss + grad_norm + update_norm)
    spike = skipping.is_spike(skip, state, result.loss)
    healthy = jnp.array(True) if skip.nonfinite else finite
    proceed = healthy & (state.nonfinite_step < 0)
    skipped = proceed & (~finite | spike)
    new = state.replace(
      step=state.step + 1,
      params=params,
      extra=result.extra,
      opt_state=opt_state,
      ema=ema,
      ema_extra=ema_extra,
    )
    if skip:
      if state.loss_statistics is not None:
        seen = skipping.with_loss(state.loss_statistics, result.loss)
        new = new.replace(loss_statistics=seen)
      new = jax.tree.map(
        lambda a, b: jnp.where(skipped, a, b),
        skipping.passed_over(state, new).replace(rng=None, workers=None),
        new.replace(rng=None, workers=None),
      )
    kept = {
      'rng': state.rng,
      'nonfinite_step': state.nonfinite_step,
      'workers': state.workers,
    }
    new = jax.tree.map(
      lambda a, b: jnp.where(proceed, a, b),
      new.replace(**dict.fromkeys(kept)),
      state.replace(**dict.fromkeys(kept)),
    )
    nonfinite_step = jnp.where(
      healthy | (state.nonfinite_step >= 0),
      state.nonfinite_step,
      state.step + 1,
    )
    new = new.replace(**{**kept, 'nonfinite_step': nonfinite_step})
    metrics = {
      'loss': result.loss,
      'grad_norm': grad_norm,
      'update_norm': update_norm,
    }
    if skip:
      metrics[skipping.FLAG] = skipped.astype(jnp.float32)
    return new, {**metrics, **result.aux}

  return update


def _stream_of(aux: str, streams: Collection[str]) -> str:
  """The stream whose examples an aux 'NAME/...' is of; else the main one."""
  name = stream_names.stream_of(aux)
  return name if name in streams else MAIN


def _by_stream(
  per_example: Mapping[str, jax.Array], batch: Batch
) -> dict[str, jax.Array]:
  """The losses of a task that gives them by stream, by its name in batches.

  Raises:
    ValueError: a stream that is none, or not one loss for each of its examples.
  """
  found = {}
  for key, losses in per_example.items():
    name = MAIN if key == SHOWN else key
    mask = batch.get(stream_names.field(name, '_mask'))
    if mask is None or name in found:
      raise ValueError(
        f'the loss of the task has the stream {key!r}; valid: {SHOWN!r} and '
        'those of input.also, each once'
      )
    if losses.shape != mask.shape:
      raise ValueError(
        f'the loss of the stream {key!r} must be one number an example, '
        f'{list(mask.shape)}, got {list(losses.shape)}'
      )
    found[name] = losses
  if not found:
    raise ValueError('the loss of the task is of no stream')
  return found


def _parts(x: jax.Array, num: int) -> jax.Array:
  """[B, ...] -> [num, B / num, ...], strided so that shards stay in place."""
  return jnp.swapaxes(x.reshape(-1, num, *x.shape[1:]), 0, 1)
