"""Waiting for data with a limit, and so that a signal is heard meanwhile.

The next batch is taken in a thread of its own: storage or a worker that hangs
keeps that thread, never the one that waits.
"""

import queue
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from input_pipeline import workers
from input_pipeline.files.retries import StorageError

_POLL_S = 0.2
_ANNOUNCED_AFTER_S = 10.0
_END_S = 5.0


class DataError(RuntimeError):
  """The data do not come; the message is for the user.

  Attributes:
    hung: something still waits for them.
  """

  def __init__(self, message: str, *, hung: bool = False):
    super().__init__(message)
    self.hung = hung


class Stopped(Exception):
  """It was asked to stop while the data did not come."""


class Patient:
  """An iterator whose next item may be waited for.

  Not thread-safe: one thread waits.

  Args:
    items: what is iterated; only ever touched by the thread of this object.
    timeout_s: for one item; 0: no limit.
    remedy: what to look at after it.
  """

  def __init__(self, items: Iterator[Any], timeout_s: float, remedy: str):
    self._items = items
    self._timeout_s = timeout_s
    self._remedy = remedy
    self._asked: queue.SimpleQueue = queue.SimpleQueue()
    self._given: queue.SimpleQueue = queue.SimpleQueue()
    self._waiting = False  # for an answer to what was asked
    self._workers: dict[int, Any] = {}  # seen alive, by process id
    self._thread = threading.Thread(target=self._serve, daemon=True)
    self._thread.start()

  def next(self, what: str, asked_to_stop: Callable[[], bool] = bool) -> Any:
    """The next item.

    Args:
      what: it is, for messages.
      asked_to_stop: looked at while nothing comes.

    Raises:
      StopIteration: there is none.
      Stopped: asked to stop; the same item may be waited for again.
      DataError: nothing came in time, or a worker has died.
    """
    if not self._waiting:
      self._asked.put(True)
      self._waiting = True
    begun, announced = time.monotonic(), False
    while True:
      try:
        item, error = self._given.get(timeout=_POLL_S)
        break
      except queue.Empty:
        pass
      if asked_to_stop():
        raise Stopped
      seconds = time.monotonic() - begun
      if self._timeout_s and seconds > self._timeout_s:
        raise DataError(
          f'{what} takes longer than {self._timeout_s:g} s; {self._remedy}',
          hung=True,
        )
      if seconds > _ANNOUNCED_AFTER_S and not announced:
        announced = True
        limit = f' (limit {self._timeout_s:g} s)' if self._timeout_s else ''
        print(
          f'waiting since {seconds:.0f} s for {what}{limit}',
          file=sys.stderr,
          flush=True,
        )
    self._waiting = False
    if error is not None:
      raise self._told(error)
    return item

  def close(self) -> bool:
    """Ends the thread; whether it could be, which a hung one cannot."""
    self._asked.put(False)
    self._thread.join(_END_S)
    return not self._thread.is_alive()

  def _serve(self) -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, workers.SIGNALS)
    while self._asked.get():
      try:
        answer = next(self._items), None
      except BaseException as error:
        answer = None, error
      self._given.put(answer)
      del answer
      for process in workers.living():
        self._workers.setdefault(process.pid or 0, process)

  def _told(self, error: BaseException) -> BaseException:
    """What storage or a dead worker is, in one line instead of a traceback."""
    if isinstance(error, StorageError):
      return DataError(f'the storage refuses: {error} (input.read_retries)')
    dead = [p for p in self._workers.values() if _died(p)]
    if not isinstance(error, RuntimeError) or 'exit code' not in str(error):
      return error
    listed = ', '.join(f'pid {p.pid} {_how(p.exitcode)}' for p in dead)
    what = 'memory'
    if any(p.exitcode == -signal.SIGBUS for p in dead):
      what = f'room in {workers.SHARED_MEMORY} (docker run --shm-size)'
    return DataError(
      f'a data worker has died ({listed or error}). Was there enough {what} '
      '(each of input.workers holds input.prefetch batches)?'
    )


def _died(process: Any) -> bool:
  try:
    return process.exitcode not in (None, 0)
  except ValueError:  # closed
    return False


def _how(code: int) -> str:
  if code >= 0:
    return f'with exit code {code}'
  try:
    return f'by {signal.Signals(-code).name}'
  except ValueError:
    return f'by signal {-code}'
