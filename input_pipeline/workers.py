"""Data workers as processes: which signals they have, when they end, what of
them is in shared memory.

A signal to the whole process group (Ctrl-C, systemd, schedulers) is for the
trainer, which still needs its workers to stop well. A worker ends with the
process that started it, however that one ended. What is in /dev/shm bears the
name of its owner, so that the next start of the same owner can remove what a
kill has left, and nothing else.
"""

import contextlib
import functools
import hashlib
import multiprocessing
import multiprocessing.connection
import multiprocessing.process
import os
import pathlib
import signal
import threading
from collections.abc import Callable, Iterator
from multiprocessing import resource_tracker, shared_memory

from input_pipeline.files import retries

# What ends a run in order, hence not its workers.
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
SHARED_MEMORY = pathlib.Path('/dev/shm')
_RANDOM_CHARACTERS = 12
_END_S = 1.0
_owners: set[str] = set()  # that this process has had
_owner = ''  # of what this process's workers put into shared memory


def own(name: str, folder: pathlib.Path = SHARED_MEMORY) -> list[str]:
  """What workers put into shared memory is of this owner from here on.

  Two owners of a name must not live at the same time: what an earlier one left
  is removed.

  Args:
    name: any text, such as the path of a locked folder.
    folder: where the system keeps shared memory.

  Returns:
    The names of the entries removed.
  """
  global _owner
  digest = hashlib.sha256(os.fsencode(f'{os.getuid()} {name}')).hexdigest()
  _owner = f'bvl-{digest[:12]}-'
  _owners.add(_owner)
  removed = _remove(_owner, folder)
  # Of the semaphores of its queues, which this process makes.
  multiprocessing.current_process()._config['semprefix'] = f'/{_owner}'  # type: ignore[attr-defined]
  return removed


def owner() -> str:
  """How the names of what this process's workers share begin; '': as usual."""
  return _owner


def _remove(owner: str, folder: pathlib.Path) -> list[str]:
  removed = []
  for prefix in (owner, f'sem.{owner}'):
    for path in folder.glob(f'{prefix}*'):
      with contextlib.suppress(OSError):
        path.unlink()
        removed.append(path.name)
  return sorted(removed)


def disown() -> None:
  """What comes is nobody's: names are those of Python."""
  global _owner
  _owner = ''
  multiprocessing.current_process()._config['semprefix'] = '/mp'  # type: ignore[attr-defined]


@contextlib.contextmanager
def signals_blocked() -> Iterator[None]:
  """In this thread, and in what it starts: threads and processes."""
  before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
  try:
    yield
  finally:
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


def start_up() -> Callable[[int, int], None]:
  """What every worker does first, given its index and their number."""
  return functools.partial(_in_worker, _owner, retries.policy())


def _in_worker(
  owner: str, policy: retries.Policy, index: int, count: int
) -> None:
  del index, count
  retries.use(policy)
  for number in SIGNALS:
    signal.signal(number, signal.SIG_IGN)
  parent = multiprocessing.parent_process()
  assert parent is not None
  threading.Thread(
    target=_end_with, args=(parent.sentinel,), daemon=True
  ).start()
  if owner:
    shared_memory._SHM_NAME_PREFIX = f'/{owner}'  # type: ignore[attr-defined]
    shared_memory._SHM_SAFE_NAME_LENGTH = (  # type: ignore[attr-defined]
      len(owner) + 1 + _RANDOM_CHARACTERS
    )


def _end_with(sentinel: int) -> None:
  """Waits until the parent's end of a pipe closes, as its death does it.

  PR_SET_PDEATHSIG would not do: it tells of the end of the thread that started
  this process, and those of a pipeline end before it does.
  """
  multiprocessing.connection.wait([sentinel])
  os.kill(os.getpid(), signal.SIGKILL)


def living() -> list[multiprocessing.process.BaseProcess]:
  """The data workers of this process."""
  return [
    process
    for process in multiprocessing.active_children()
    if process.name.startswith('grain-')
  ]


def kill() -> None:
  """Ends the data workers of this process, which ends itself after a fault."""
  ended = living()
  for process in ended:
    process.kill()
  for process in ended:
    process.join(_END_S)


def clear_up() -> bool:
  """Before a process that does not wait for its threads ends itself.

  Python's resource tracker, a process too, would print that what is removed
  here was left.

  Returns:
    Whether there was a tracker, which is ended: the process may only end at
    once now (os._exit), since an orderly end would look for what is gone.
  """
  kill()
  for owner in _owners:
    _remove(owner, SHARED_MEMORY)
  tracker = getattr(resource_tracker._resource_tracker, '_pid', None)
  if not _owners or tracker is None:
    return False
  with contextlib.suppress(ProcessLookupError):
    os.kill(tracker, signal.SIGKILL)
  return True
