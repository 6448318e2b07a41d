"""All that a run carries from step to step, and all that a resume needs."""

from typing import Any

import flax.struct
import jax


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
  """

  step: jax.Array
  params: Any
  extra: Any
  opt_state: Any
  rng: jax.Array
  ema: Any
  nonfinite_step: jax.Array

  def for_evaluation(self) -> 'TrainState':
    """The state whose parameters are the averages, where they are kept."""
    return self if self.ema is None else self.replace(params=self.ema)
