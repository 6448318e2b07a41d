"""SIGTERM, SIGINT and SIGHUP: finish the step, save, leave with a known code.

The first signal is noted and the loop acts on it between two steps; inside
`interruptible` (an evaluation, which changes nothing) it raises at once, and
while there is `nothing_to_lose` (before the first step is done, in a mode that
only evaluates) the process ends soon even from within a compiler. Schedulers
and terminals send several signals for one: those of two seconds count as one. A
later one ends the process at once, with a code that tells whether anything was
saved.

With several processes a signal to one stops all of them at the same place. The
loop of each counts the places where it may stop: before every step, before
every batch of an evaluation, the same on all. A thread of each publishes the
last place that its loop has passed, holds the loop before the next, and takes
the latest of all as the one to stop after. The loops never wait for a process
that waits for them, as the threads answer even while a loop is inside a
collective operation.
"""

import contextlib
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any

import jax

from big_vision_like.runtime import distributed

EXIT_CODE = 143  # 128 + SIGTERM; also used after Ctrl-C
NOTHING_SAVED = 75  # EX_TEMPFAIL of sysexits.h
_REPEATS_S = 2.0  # in which several signals are one
_SOON_S = 5.0
_MANY = 4096  # bytes, one a signal
_POLL_S = 0.5
_ANSWER_S = 120.0


class Preempted(SystemExit):
  """The run was asked to stop; `code` is the exit code of the process."""

  def __init__(self, message: str, *, saved: bool = True):
    super().__init__(EXIT_CODE if saved else NOTHING_SAVED)
    self.message = message


class Guard:
  """Context manager that turns the first signal into a request to stop.

  Attributes:
    requested: whether there was one.
    saved: whether all that was done is saved; set by the loop.
  """

  SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

  def __init__(self) -> None:
    self.requested = False
    self.saved = False
    self._interruptible = False
    self._nothing_to_lose = ''  # what is not yet done then
    self._old: dict[int, object] = {}
    self._agreement = _Agreement(self) if jax.process_count() > 1 else None
    self._wake: tuple[socket.socket, socket.socket] | None = None
    self._old_wake = -1
    self._unheard = False  # raised where exceptions go nowhere
    self._old_hook: Callable[[Any], Any] = sys.unraisablehook

  def __enter__(self) -> 'Guard':
    for number in self.SIGNALS:
      if signal.getsignal(number) != signal.SIG_IGN:  # as under nohup
        self._old[number] = signal.signal(number, self._handle)
    self._old_hook, sys.unraisablehook = sys.unraisablehook, self._unraisable
    # The main thread hears a signal only when it is back in Python.
    self._wake = socket.socketpair()
    self._wake[1].setblocking(False)
    self._old_wake = signal.set_wakeup_fd(
      self._wake[1].fileno(), warn_on_full_buffer=False
    )
    threading.Thread(target=self._listen, daemon=True).start()
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
    if sys.unraisablehook == self._unraisable:
      sys.unraisablehook = self._old_hook
    signal.set_wakeup_fd(self._old_wake)
    if self._wake:
      self._wake[1].close()  # ends the thread
    for number, handler in self._old.items():
      signal.signal(number, handler)  # type: ignore[arg-type]

  def must_stop(self) -> bool:
    """Whether to stop here, on all processes; asked at the same places.

    A loop that gets False goes on to the next place.
    """
    if self._agreement:
      return self._agreement.reached()
    return self.requested

  def may_stop_now(self) -> bool:
    """Whether to stop wherever this process stands; never one of several."""
    return self.requested and self._agreement is None

  def stop_here(self) -> None:
    """Raises `Preempted` inside what is `interruptible`, on all processes.

    On a single one only where the signal could not.
    """
    if self._unheard:
      self._unheard = False
      raise Preempted(self._why(), saved=self.saved)
    if self._agreement and self._interruptible and self._agreement.reached():
      raise Preempted('asked to stop', saved=self.saved)

  @contextmanager
  def interruptible(self) -> Iterator[None]:
    """Inside, a signal raises `Preempted` where the program stands.

    With several processes where it calls `stop_here`.
    """
    self._interruptible = True
    try:
      if self.may_stop_now():
        raise Preempted(self._why(), saved=self.saved)
      yield
    finally:
      self._interruptible = False

  @contextmanager
  def nothing_to_lose(self, what: str = 'the first step') -> Iterator[None]:
    """Inside, a signal ends the run soon: what is not yet done is lost.

    Of one process: several could be left waiting for each other.
    """
    if self._agreement:
      yield
      return
    self._nothing_to_lose = what
    try:
      with self.interruptible():
        yield
    finally:
      self._nothing_to_lose = ''

  def _handle(self, number: int, frame: FrameType | None) -> None:
    self.requested = True
    if self._interruptible and not self._agreement:
      self._interruptible = False  # a repeat must not break into the ending
      raise Preempted(self._why(), saved=self.saved)

  def _unraisable(self, met: Any) -> None:
    """A signal may come while Python collects garbage, say: nobody hears it."""
    if isinstance(met.exc_value, Preempted):
      self._unheard = True
    else:
      self._old_hook(met)

  def _why(self) -> str:
    if not self._nothing_to_lose:
      return 'asked to stop'
    left = 'all was saved before' if self.saved else 'nothing to save'
    return f'asked to stop before {self._nothing_to_lose} was done: {left}'

  def _listen(self) -> None:
    """Hears signals while the main thread is inside a library."""
    assert self._wake
    with self._wake[0] as ear:
      if not self._hear(ear):
        return
      self.requested = True
      if self._nothing_to_lose:
        threading.Thread(target=self._end_soon, daemon=True).start()
      # Repeats, also those that come late to a thread which had no turn.
      time.sleep(_REPEATS_S)
      with contextlib.suppress(BlockingIOError):
        ear.recv(_MANY, socket.MSG_DONTWAIT)
      if self._hear(ear):
        done = 'saved' if self.saved else 'the last steps are not saved'
        self._end(f'asked to stop again: {done}')

  def _hear(self, ear: socket.socket) -> bool:
    """Waits for a signal; False: the guard has gone."""
    while numbers := ear.recv(_MANY):
      if set(numbers) & set(self._old):
        return True
    return False

  def _end_soon(self) -> None:
    time.sleep(_SOON_S)
    if self._nothing_to_lose:  # and has not heard the signal since
      self._end(self._why())

  def _end(self, why: str) -> None:
    with contextlib.suppress(OSError):
      os.write(2, f'{why}\n'.encode())
    os._exit(EXIT_CODE if self.saved else NOTHING_SAVED)


class _Agreement:
  """Finds the place where all processes stop; see the module docstring."""

  def __init__(self, guard: Guard):
    self._guard = guard
    self._lock = threading.Lock()
    self._passed = 0  # places where the loop might have stopped
    self._target: int | None = None
    self._closed = threading.Event()
    self._thread = threading.Thread(target=self._watch, daemon=True)

  def start(self) -> None:
    self._thread.start()

  def stop(self) -> None:
    """The loop has ended; who still asks is told its last place."""
    self._closed.set()
    self._thread.join(_ANSWER_S)
    if self._target is None:
      distributed.put(f'stop/{jax.process_index()}', str(self._passed))

  def reached(self) -> bool:
    with self._lock:  # held while the processes agree
      if self._target is not None and self._passed >= self._target:
        return True
      self._passed += 1
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
      distributed.put(f'stop/{jax.process_index()}', str(self._passed))
      self._target = max(
        int(distributed.wait_for(f'stop/{process}', _ANSWER_S))
        for process in range(jax.process_count())
      )
