"""SIGTERM and SIGINT: finish the step, save, leave with a documented code.

The first signal is noted and the loop acts on it between two steps; inside
`interruptible` (an evaluation, which changes nothing) it raises at once. A
second signal ends the process immediately.

With several processes a signal to one stops all of them at the same step: a
thread of each publishes the last step that its loop has begun, holds the loop
before the next, and takes the latest step of all as the one to stop after. The
loops never wait for a process that waits for them, as the threads answer even
while a loop is inside a collective operation. Evaluations are then finished
first.
"""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType

import jax

from big_vision_like.runtime import distributed

EXIT_CODE = 143  # 128 + SIGTERM; also used after Ctrl-C
_POLL_S = 0.5
_ANSWER_S = 120.0


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
    self._agreement = _Agreement(self) if jax.process_count() > 1 else None

  def __enter__(self) -> 'Guard':
    for number in self.SIGNALS:
      self._old[number] = signal.signal(number, self._handle)
    if self._agreement:
      self._agreement.start()
    return self

  def __exit__(
    self,
    kind: type[BaseException] | None,
    value: BaseException | None,
    trace: TracebackType | None,
  ) -> None:
    if self._agreement:
      self._agreement.stop()
    for number, handler in self._old.items():
      signal.signal(number, handler)  # type: ignore[arg-type]

  def must_stop(self, step: int) -> bool:
    """Whether to stop after `step`, on all processes; asked before each next.

    A loop that gets False begins step + 1.
    """
    if self._agreement:
      return self._agreement.reached(step)
    return self.requested

  @contextmanager
  def interruptible(self) -> Iterator[None]:
    """Inside, a signal raises `Preempted` where the program stands."""
    if self._agreement:
      yield
      return
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


class _Agreement:
  """Finds the step after which all processes stop; see the module docstring."""

  def __init__(self, guard: Guard):
    self._guard = guard
    self._lock = threading.Lock()
    self._begun = -1  # the last step that the loop has begun
    self._target: int | None = None
    self._closed = threading.Event()
    self._thread = threading.Thread(target=self._watch, daemon=True)

  def start(self) -> None:
    self._thread.start()

  def stop(self) -> None:
    """The loop has ended; who still asks is told its last step."""
    self._closed.set()
    self._thread.join(_ANSWER_S)
    if self._target is None:
      distributed.put(f'stop/{jax.process_index()}', str(self._begun))

  def reached(self, step: int) -> bool:
    with self._lock:  # held while the processes agree
      if self._target is not None and step >= self._target:
        return True
      self._begun = step + 1
      return False

  def _watch(self) -> None:
    while not self._closed.wait(_POLL_S):
      if self._guard.requested:
        distributed.put('stop', 'requested')
      if distributed.get('stop') is not None:
        self._agree()
        return

  def _agree(self) -> None:
    with self._lock:
      distributed.put(f'stop/{jax.process_index()}', str(self._begun))
      self._target = max(
        int(distributed.wait_for(f'stop/{process}', _ANSWER_S))
        for process in range(jax.process_count())
      )
