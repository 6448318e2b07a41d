"""Whether this machine has room for data workers: shared memory, open files.

A worker hands over each array of a batch in a piece of shared memory of its
own, which costs the process that takes it two open files. Where shared memory
is full the system ends the worker (SIGBUS), and where files run out the reading
thread ends with pages of tracebacks. Both are known before a worker starts.
"""

import contextlib
import dataclasses
import os
import pathlib
import weakref
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from input_pipeline import workers as data_workers

try:
  import resource
except ImportError:  # not a Unix
  resource = None

_FILES_OF_A_PROCESS = 128  # libraries, checkpoints, logs, shards
_FILES_OF_A_WORKER = 21  # its queues, pipes and events
_FILES_OF_AN_ARRAY = 2
_IN_HAND = 2  # batches of a worker besides those of its queue
_TAKEN = 4  # batches that the process has taken and not yet dropped
_FEWER = (
  'or take fewer workers, a smaller input.prefetch, or input.workers=0, which '
  'reads in threads'
)


@dataclasses.dataclass(frozen=True)
class Need:
  """What the workers of one pipeline take at most.

  Attributes:
    workers: processes.
    prefetch: batches that each holds ready.
    arrays: of a batch.
    batch_bytes: of a batch.
  """

  workers: int
  prefetch: int
  arrays: int
  batch_bytes: int

  @property
  def batches(self) -> int:
    return self.workers * (self.prefetch + _IN_HAND) + _TAKEN

  @property
  def bytes(self) -> int:
    """Of shared memory."""
    return self.batches * self.batch_bytes

  @property
  def files(self) -> int:
    """Open in the process that takes the batches."""
    held = _FILES_OF_AN_ARRAY * self.arrays * self.batches
    return held + _FILES_OF_A_WORKER * self.workers


def need(
  specs: Iterable[Mapping[str, np.ndarray]],
  rows: int,
  workers: int,
  prefetch: int,
) -> Need:
  """That of batches of `rows` examples.

  Args:
    specs: an example of each canvas; the largest counts.
    rows: of a batch in this process.
    workers, prefetch: see `Need`.
  """
  sizes = [
    (len(spec), rows * sum(array.nbytes for array in spec.values()))
    for spec in specs
  ]
  return Need(workers, prefetch, *(max(column) for column in zip(*sizes)))


# Of the pipelines that are being read.
_claims: 'weakref.WeakKeyDictionary[Any, Need]' = weakref.WeakKeyDictionary()


def check(
  wanted: Need, folder: pathlib.Path = data_workers.SHARED_MEMORY
) -> None:
  """Refuses workers that this machine has no room for.

  The soft limit of open files is raised up to the hard one where that helps.

  Args:
    wanted: by a pipeline, beside those that `claim` has noted.
    folder: where the system keeps shared memory.

  Raises:
    ValueError: what is short, by how much, and what helps.
  """
  others = [*_claims.values()]
  free = _free_bytes(folder)
  total = wanted.bytes + sum(other.bytes for other in others)
  if free is not None and total > free:
    beside = ' with those beside them' if others else ''
    raise ValueError(
      f'{_told(wanted)} of {_mib(wanted.batch_bytes)} in shared memory, '
      f'{_mib(total)}{beside}, and {folder} has {_mib(free)}. Give it more '
      f'(docker run --shm-size={-(-total // 2**30)}g), {_FEWER}'
    )
  files = wanted.files + sum(other.files for other in others)
  files += _FILES_OF_A_PROCESS
  raise_file_limit(files, _told(wanted), f', {_FEWER}')


def claim(iterator: Any, wanted: Need) -> None:
  """Notes what the workers of an iterator take, as long as that lives."""
  _claims[iterator] = wanted


def release(iterator: Any) -> None:
  """Its workers have ended."""
  _claims.pop(iterator, None)


def raise_file_limit(
  files: int = _FILES_OF_A_PROCESS, what: str = 'a run', advice: str = ''
) -> None:
  """Lets this process have so many open files, if its hard limit allows it.

  Raises:
    ValueError: it does not.
  """
  if resource is None:
    return
  soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
  if soft == resource.RLIM_INFINITY or soft >= files:
    return
  wanted = files if hard == resource.RLIM_INFINITY else min(files, hard)
  with contextlib.suppress(OSError, ValueError):  # kernels with limits below
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
  soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
  if soft < files:
    raise ValueError(
      f'{what}: {files:,} open files, and this process may have {soft:,}. '
      'Raise the limit (ulimit -n 65536, LimitNOFILE= of a service, docker run '
      f'--ulimit nofile=65536){advice}'
    )


def _told(wanted: Need) -> str:
  return (
    f'{wanted.workers} data workers hold up to {wanted.batches} batches '
    f'(input.prefetch={wanted.prefetch})'
  )


def _free_bytes(folder: pathlib.Path) -> int | None:
  """Free bytes and those of this process's own workers; None: not known."""
  try:
    found = os.statvfs(folder)
  except OSError:
    return None
  own, name = 0, data_workers.owner()
  for path in folder.glob(f'{name}*') if name else ():
    with contextlib.suppress(OSError):
      own += path.stat().st_blocks * 512
  return found.f_bavail * found.f_frsize + own


def _mib(num_bytes: int) -> str:
  return f'{num_bytes / 2**20:,.0f} MiB'
