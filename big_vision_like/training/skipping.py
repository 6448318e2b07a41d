"""Steps that are passed over: not finite, or of a loss far above the others'.

All of it is decided inside the step, by selects, so that the host need not wait
for any figure. A step passed over leaves parameters, slots, statistics and
averages as they were; the step and the optimizer's count of steps move on, so
that data and rates are those of the steps after it.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from big_vision_like.training.optim import OptState
from big_vision_like.training.state import LossStatistics, TrainState

POLICIES = ('stop', 'skip', 'rollback')
FLAG = 'skipped'  # the metric: 1 where the step was passed over
WARMUP = 100  # steps before the first spike is one
_LEAST_SHARE = 0.01  # of the newest loss in the running mean and variance


class Options(NamedTuple):
  """What is passed over.

  Attributes:
    nonfinite: steps that are not finite; otherwise they freeze the state.
    spike_sigma: losses so many standard deviations above the mean; None: none.
  """

  nonfinite: bool = False
  spike_sigma: float | None = None

  def __bool__(self) -> bool:
    return self.nonfinite or self.spike_sigma is not None


NOTHING = Options()


def fresh_statistics() -> LossStatistics:
  """Those of no step yet."""
  zero = jnp.zeros((), jnp.float32)
  return LossStatistics(zero, zero, jnp.zeros((), jnp.int32))


def is_spike(
  options: Options, state: TrainState, loss: jax.Array
) -> jax.Array | bool:
  """bool []: whether a loss lies too far above those of the steps before."""
  seen = state.loss_statistics
  if options.spike_sigma is None or seen is None:
    return False
  limit = seen.mean + options.spike_sigma * jnp.sqrt(seen.variance)
  return (seen.count >= WARMUP) & (loss > limit)


def with_loss(seen: LossStatistics, loss: jax.Array) -> LossStatistics:
  """The statistics with one loss more: exact at first, then a running mean."""
  count = seen.count + 1
  share = jnp.maximum(1.0 / count, _LEAST_SHARE)
  off = loss - seen.mean
  variance = (1 - share) * (seen.variance + share * jnp.square(off))
  return LossStatistics(seen.mean + share * off, variance, count)


def moved_on(state: TrainState, step: int) -> TrainState:
  """`state` as it counts steps after `step`, in place."""
  past = step - int(state.step)
  opt_state: Any = state.opt_state
  if isinstance(opt_state, OptState):
    opt_state = opt_state._replace(count=opt_state.count + past)
  return state.replace(step=state.step + past, opt_state=opt_state)


def passed_over(state: TrainState, finished: TrainState) -> TrainState:
  """`state` one step on, and nothing else of the `finished` update."""
  opt_state: Any = state.opt_state
  if isinstance(opt_state, OptState):
    opt_state = opt_state._replace(count=finished.opt_state.count)
  return state.replace(step=finished.step, opt_state=opt_state)
