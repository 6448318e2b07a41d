"""Which checkpoint is the best by a figure of an evaluator, and when to stop.

All follows from the figures so far, which stand in metrics.jsonl, so that a run
that is stopped and goes on decides as an undisturbed one does.
"""

import math
from collections.abc import Collection, Mapping
from typing import Any

from big_vision_like.config import plugins


class Best:
  """The best step so far.

  Args:
    metric: '<evaluator>/<metric>'; None: nothing is the best, nothing stops.
    mode: 'max' or 'min'.
    patience: evaluations in a row without a better figure, after which
      training stops; None: it does not.
    stored: step -> figure, from metrics.jsonl; those of later steps than
      `start` count when training gets there.
    start: the step that training goes on from.
    present: steps of which there is a checkpoint.
  """

  def __init__(
    self,
    metric: str | None,
    mode: str = 'max',
    patience: int | None = None,
    *,
    stored: Mapping[int, float] | None = None,
    start: int = 0,
    present: Collection[int] = (),
  ):
    self.metric, self._mode, self._patience = metric, mode, patience
    self._stored = dict(stored or {})
    self._best: tuple[int, float] | None = None
    self._since = 0  # evaluations
    for step in sorted(s for s in self._stored if s <= start):
      # One that is not there any more is none to go back to.
      self._count(step, self._stored.pop(step), step in present)

  def _count(self, step: int, value: float, present: bool = True) -> bool:
    better = present and self._is_better(value)
    if better:
      self._best = step, value
    self._since = 0 if better else self._since + 1
    return better

  def _is_better(self, value: float) -> bool:
    if not math.isfinite(value):
      return False
    if self._best is None:
      return True
    before = self._best[1]
    return value > before if self._mode == 'max' else value < before

  def figure(self, step: int, found: Mapping[str, float]) -> float | None:
    """The figure at a step; None where nothing was evaluated.

    Args:
      step: of training.
      found: figures of the evaluators that ran, '<evaluator>/<metric>'.

    Raises:
      ValueError: the evaluator ran and has no such figure.
    """
    if self.metric is None:
      return None
    name = self.metric.partition('/')[0]
    own = [key for key in found if key.partition('/')[0] == name]
    if own and self.metric not in found:
      raise ValueError(
        f'ckpt.best={self.metric!r}{plugins.suggest(self.metric, own)}; the '
        f'evaluator gives {", ".join(own)}'
      )
    return found.get(self.metric, self._stored.get(step))

  def look(self, step: int, value: float) -> bool:
    """Counts the figure of a step; whether it is the best so far."""
    return self._count(step, value)

  @property
  def over(self) -> bool:
    """Whether nothing has become better for long enough."""
    return self._patience is not None and self._since >= self._patience

  def told(self) -> dict[str, Any] | None:
    """The content of best.json; None where there is no best."""
    if self._best is None:
      return None
    step, value = self._best
    return dict(metric=self.metric, mode=self._mode, step=step, value=value)
