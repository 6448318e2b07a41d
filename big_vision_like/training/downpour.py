"""Downpour SGD, simulated: many workers, one set of weights, no barrier.

The paper's training (Sun et al. 2017, section 4: 50 workers, 17 parameter
servers; Dean et al. 2012, section 4.1, with n_fetch = n_push = 1). A worker
fetches the weights, computes a gradient on its own batch and pushes it; the
servers apply it at once to weights that others have moved meanwhile.

One step is one push: which worker makes it is a function of the state, so runs
are deterministic and resume exactly. For one worker the step is that of
step.py to the bit.
"""

import dataclasses
from collections.abc import Callable
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
import optax

from big_vision_like.config import option_types
from big_vision_like.config.option_types import AtLeast, Count
from big_vision_like.protocols import Task
from big_vision_like.training import skipping, step
from big_vision_like.training.state import TrainState, Workers

# Keeps the numbers that order the workers apart from those of the task.
_STREAM = 0x646F776E


@dataclasses.dataclass(frozen=True)
class Options:
  """Who pushes when.

  Attributes:
    workers: number of workers, N.
    policy: 'round_robin' (worker t mod N pushes at step t), 'random' (a worker
      drawn uniformly), or 'event' (the worker that is ready first; the times
      of its computations are log-normal with median 1).
    event_sigma: standard deviation of the logarithm of a time of 'event'.
    bn_updates: whose batches move the shared statistics of batch norm: 'all'
      workers', or the 'first' worker's only.
    decay_of_server: take weight decay of the servers' weights instead of the
      worker's: right for decoupled decay, which is no part of the gradient.
  """

  workers: Count
  policy: Literal['round_robin', 'random', 'event'] = 'round_robin'
  event_sigma: Annotated[float, AtLeast(0)] = 0.25
  bn_updates: Literal['all', 'first'] = 'all'
  decay_of_server: bool = False

  def __post_init__(self):
    option_types.check_fields('train.downpour', self)


def make_init(
  init: Callable[[jax.Array, step.Batch], TrainState], options: Options
) -> Callable[[jax.Array, step.Batch], TrainState]:
  """As `init` of step.py; every worker has just fetched the first weights."""

  def downpour_init(rng: jax.Array, batch: step.Batch) -> TrainState:
    state = init(rng, batch)
    num = options.workers
    remaining = None
    if options.policy == 'event':
      key = jax.random.fold_in(state.rng, _STREAM)
      remaining = _draw_times(key, options, (num,))
    workers = Workers(
      params=jax.tree.map(
        lambda x: jnp.broadcast_to(x, (num, *x.shape)), state.params
      ),
      version=jnp.zeros((num,), jnp.int32),
      remaining=remaining,
    )
    return state.replace(workers=workers)

  return downpour_init


def make_train_step(
  task: Task,
  tx: optax.GradientTransformation,
  options: Options,
  *,
  accum_steps: int = 1,
  ema_decay: float | None = None,
  skip: skipping.Options = skipping.NOTHING,
) -> Callable[[TrainState, step.Batch], tuple[TrainState, step.Metrics]]:
  """Makes the step of one push: g = grad L(W_i; batch), W <- apply(W, g).

  Then the worker fetches: W_i <- W. Weight decay, as a part of the loss, is
  that of W_i. The moving statistics of batch norm, the average of the weights
  and the optimizer slots are the servers'. Steps that are not finite, and
  accum_steps: as in step.py.

  Returns:
    train_step(state, batch) -> (state, metrics); beside the metrics of step.py
    'staleness', the number of updates since the worker fetched its weights.
  """
  gradients = step.make_gradients(task, accum_steps=accum_steps)
  update = step.make_update(tx, ema_decay=ema_decay, skip=skip)

  def train_step(state: TrainState, batch: step.Batch):
    workers = state.workers
    assert workers is not None, 'the state has no workers'
    rng = jax.random.fold_in(state.rng, state.step)
    key = jax.random.fold_in(rng, _STREAM)
    worker = _next_worker(options, state, key)
    held = jax.tree.map(lambda x: _row(x, worker), workers.params)
    result = gradients(held, state.extra, batch, rng)
    if options.bn_updates == 'first':
      extra = jax.tree.map(
        lambda a, b: jnp.where(worker == 0, a, b), result.extra, state.extra
      )
      result = result._replace(extra=extra)
    decayed = state.params if options.decay_of_server else held
    new, metrics = update(state, result, decayed)
    metrics['staleness'] = (state.step - workers.version[worker]).astype(
      jnp.float32
    )
    applied = new.step > state.step
    if skip:
      applied &= metrics[skipping.FLAG] == 0
    workers = _fetch(options, workers, worker, new, held, applied, key)
    return new.replace(workers=workers), metrics

  return train_step


def refetch(state: TrainState) -> TrainState:
  """The state with every worker holding the servers' weights, in place."""
  if state.workers is None:
    return state

  def copies(placed: jax.Array, weight: jax.Array) -> jax.Array:
    repeat = lambda x: jnp.broadcast_to(x, placed.shape)
    return jax.jit(repeat, out_shardings=placed.sharding)(weight)

  params = jax.tree.map(copies, state.workers.params, state.params)
  return state.replace(workers=state.workers._replace(params=params))


def _next_worker(
  options: Options, state: TrainState, key: jax.Array
) -> jax.Array:
  """int32 []: the worker that pushes now."""
  if options.policy == 'round_robin':
    return state.step % options.workers
  if options.policy == 'random':
    return jax.random.randint(key, (), 0, options.workers)
  remaining = state.workers and state.workers.remaining
  assert remaining is not None, 'the state has no times'
  return jnp.argmin(remaining).astype(jnp.int32)


def _fetch(
  options: Options,
  workers: Workers,
  worker: jax.Array,
  new: TrainState,
  held: Any,
  applied: jax.Array,
  key: jax.Array,
) -> Workers:
  """The workers after one of them fetched the new weights, if applied."""
  # Row by row: a select over all copies would read and write N models a step.
  params = jax.tree.map(
    lambda rows, a, b: _set_row(rows, jnp.where(applied, a, b), worker),
    workers.params,
    new.params,
    held,
  )
  version = workers.version.at[worker].set(new.step)
  version = jnp.where(applied, version, workers.version)
  remaining = workers.remaining
  if remaining is not None:
    # Times count from the latest push, so that they keep their precision.
    later = (
      (remaining - remaining[worker])
      .at[worker]
      .set(_draw_times(key, options, ()))
    )
    remaining = jnp.where(applied, later, remaining)
  return Workers(params, version, remaining)


def _draw_times(
  key: jax.Array, options: Options, shape: tuple[int, ...]
) -> jax.Array:
  """Times of one computation, float32 [*shape], log-normal of median 1."""
  return jnp.exp(options.event_sigma * jax.random.normal(key, shape))


def _row(rows: jax.Array, index: jax.Array) -> jax.Array:
  """[N, ...] -> [...].

  As a gather, which the partitioner turns into one device's row and a sum; a
  dynamic slice along a split axis would bring all N rows to every device.
  """
  return jnp.take(rows, index[None], axis=0, mode='clip')[0]


def _set_row(rows: jax.Array, row: jax.Array, index: jax.Array) -> jax.Array:
  return jax.lax.dynamic_update_index_in_dim(rows, row, index, 0)
