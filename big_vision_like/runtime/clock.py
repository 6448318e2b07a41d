"""Speed and time left of a run, from a clock that never steps back."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Clock:
  """Rates over the steps since the last reading; pauses are left out.

  Args:
    total_steps: where the run ends.
    batch_size: examples a step.
    step: where it stands.
    now: seconds, monotonic; a test passes its own.
  """

  def __init__(
    self,
    total_steps: int,
    batch_size: int,
    step: int,
    now: Callable[[], float] = time.monotonic,
  ):
    self._total_steps = total_steps
    self._batch_size = batch_size
    self._now = now
    self._step = step
    self._since = now()
    self._paused = 0.0
    self._spent: dict[str, float] = {}
    self._seconds_per_step: float | None = None

  @contextmanager
  def pause(self) -> Iterator[None]:
    """Leaves the time of an evaluation out of the rates."""
    start = self._now()
    try:
      yield
    finally:
      self._paused += self._now() - start

  def spend(self, name: str, seconds: float) -> None:
    """Counts seconds as `name`, for `breakdown`."""
    self._spent[name] = self._spent.get(name, 0.0) + seconds

  @contextmanager
  def timed(self, name: str) -> Iterator[None]:
    """Counts the time inside as `name`."""
    start = self._now()
    yield
    self.spend(name, self._now() - start)

  def breakdown(self, step: int) -> dict[str, float]:
    """Seconds per step since the last reading; call it before `read`.

    {'step_s', 'data_wait_s', ...: what `spend` counted, 'data_wait_share'}.
    """
    steps = step - self._step
    seconds = self._now() - self._since - self._paused
    if steps < 1 or seconds <= 0:
      return {}
    shares = {f'{k}_s': v / steps for k, v in self._spent.items()}
    return {
      'step_s': seconds / steps,
      **shares,
      'data_wait_share': self._spent.get('data_wait', 0.0) / seconds,
    }

  def read(self, step: int) -> dict[str, float]:
    """{'images_per_s', 'eta_s'} over the steps since the last reading."""
    seconds = max(self._now() - self._since - self._paused, 1e-9)
    if step > self._step:
      self._seconds_per_step = seconds / (step - self._step)
    self.restart(step)
    per_step = self._seconds_per_step
    if per_step is None:
      return {}
    return {
      'images_per_s': self._batch_size / per_step,
      'eta_s': max(self._total_steps - step, 0) * per_step,
    }

  def restart(self, step: int) -> None:
    """Starts a new interval, as after the first step and its compilation."""
    self._step, self._since, self._paused = step, self._now(), 0.0
    self._spent = {}


def duration(seconds: float) -> str:
  """'1d02h', '3h07m', '5m09s' or '42s'."""
  whole = max(round(seconds), 0)
  days, rest = divmod(whole, 86400)
  hours, rest = divmod(rest, 3600)
  minutes, secs = divmod(rest, 60)
  if days:
    return f'{days}d{hours:02d}h'
  if hours:
    return f'{hours}h{minutes:02d}m'
  if minutes:
    return f'{minutes}m{secs:02d}s'
  return f'{secs}s'
