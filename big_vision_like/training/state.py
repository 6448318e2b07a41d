"""All that a run carries from step to step, and all that a resume needs."""

from typing import TYPE_CHECKING, Any, NamedTuple

import flax.struct
import jax


class Workers(NamedTuple):
  """The N workers of asynchronous training (downpour.py).

  Attributes:
    params: params as each worker fetched them, leaves [N, ...].
    version: int32 [N], number of finished updates when it fetched them.
    remaining: float32 [N], time until each pushes; None unless the order of
      the pushes follows from it.
  """

  params: Any
  version: jax.Array
  remaining: jax.Array | None


class LossStatistics(NamedTuple):
  """Of the losses so far, where spikes are looked for (skipping.py).

  Attributes:
    mean, variance: float32 [], the newest losses weighing most.
    count: int32 [], number of losses.
  """

  mean: jax.Array
  variance: jax.Array
  count: jax.Array


@flax.struct.dataclass
class TrainState:
  """State of training.

  Attributes:
    step: int32 scalar, number of finished updates.
    params: parameters {'backbone': ..., 'head': ...}, float32.
    extra: model state that is not trained {'batch_stats': ...}.
    opt_state: optimizer slots.
    rng: typed PRNG key; step t uses fold_in(rng, t).
    ema: average of the parameters, or None.
    nonfinite_step: int32 scalar, -1, or the step whose loss or gradient was
      not finite; from then on no update is applied.
    workers: of asynchronous training, else None.
    ema_extra: average of `extra` over the same steps as `ema`, or None:
      averaged weights see other activations than the last ones, which the last
      batch statistics would not fit.
    loss_statistics: of the losses so far, or None.
  """

  step: jax.Array
  params: Any
  extra: Any
  opt_state: Any
  rng: jax.Array
  ema: Any
  nonfinite_step: jax.Array
  workers: Workers | None = None
  ema_extra: Any = None
  loss_statistics: LossStatistics | None = None

  if TYPE_CHECKING:

    def replace(self, **changes: Any) -> 'TrainState':
      """The state with other fields; flax defines it."""
      ...

  def for_evaluation(self) -> 'TrainState':
    """The state of the averages, statistics too, where they are kept."""
    if self.ema is None:
      return self
    extra = self.extra if self.ema_extra is None else self.ema_extra
    return self.replace(params=self.ema, extra=extra)
