"""SIGTERM and SIGINT: finish the step, save, leave with a documented code.

The first signal is noted and the loop acts on it between two steps; inside
`interruptible` (an evaluation, which changes nothing) it raises at once. A
second signal ends the process immediately.
"""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType

EXIT_CODE = 143  # 128 + SIGTERM; also used after Ctrl-C


class Preempted(SystemExit):
  """The run was asked to stop; `code` is the exit code of the process."""

  def __init__(self, message: str):
    super().__init__(EXIT_CODE)
    self.message = message


class Guard:
  """Context manager that turns the first signal into a request to stop."""

  SIGNALS = (signal.SIGTERM, signal.SIGINT)

  def __init__(self) -> None:
    self.requested = False
    self._interruptible = False
    self._old: dict[int, object] = {}

  def __enter__(self) -> 'Guard':
    for number in self.SIGNALS:
      self._old[number] = signal.signal(number, self._handle)
    return self

  def __exit__(
    self,
    kind: type[BaseException] | None,
    value: BaseException | None,
    trace: TracebackType | None,
  ) -> None:
    for number, handler in self._old.items():
      signal.signal(number, handler)  # type: ignore[arg-type]

  @contextmanager
  def interruptible(self) -> Iterator[None]:
    """Inside, a signal raises `Preempted` where the program stands."""
    self._interruptible = True
    try:
      if self.requested:
        raise Preempted('asked to stop')
      yield
    finally:
      self._interruptible = False

  def _handle(self, number: int, frame: FrameType | None) -> None:
    if self.requested:
      os._exit(EXIT_CODE)
    self.requested = True
    if self._interruptible:
      raise Preempted('asked to stop')
