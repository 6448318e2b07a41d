"""What the console says of a study: a line a job, with time and ETA.

On a terminal the last line is alive: what runs now, and how far it is.
"""

import shutil
import sys
import time
from collections.abc import Mapping, Sequence

from big_vision_like.runtime.clock import duration

from . import record as records
from .jobs import Job
from .runner import Outcome

_TAIL_LINES = 15  # of the log of a failed job
_REFRESH_S = 1.0
_CLEAR = '\r\x1b[K'  # of a terminal's line


class Progress:
  """Follows the jobs and prints.

  Args:
    jobs: all of this command.
    num_parallel: jobs at a time, for the ETA.
  """

  def __init__(self, jobs: Sequence[Job], num_parallel: int):
    self._live = sys.stdout.isatty()
    self._num_parallel = num_parallel
    self._total = len(jobs)
    self._left = {job.name: job for job in jobs}
    self._seconds: dict[str, list[float]] = {}  # of finished jobs, by run
    self._elapsed: dict[str, float] = {}
    self._refreshed = 0.0
    for job in jobs:
      record = records.read(job)
      if record is not None and record.finished:
        self._seconds.setdefault(job.run.name, []).append(record.seconds)

  def say(self, text: str) -> None:
    """Prints a line that stays, in place of the live one."""
    print(f'{_CLEAR if self._live else ""}{text}', flush=True)

  def started(self, job: Job) -> None:
    """A job has started; on a terminal the live line tells of it."""
    if not self._live:
      self.say(f'{self._count(job)} {job.name}: started')

  def ended(self, job: Job, outcome: Outcome, figures: str) -> None:
    """The line of a job; `figures` is what came out."""
    count = self._count(job)
    del self._left[job.name]
    if outcome.status == 'kept':
      self.say(f'{count} {job.name}: had finished before{figures}')
      return
    if outcome.status == 'finished':
      self._seconds.setdefault(job.run.name, []).append(outcome.seconds)
    reason = f' ({outcome.reason})' if outcome.reason else ''
    took = f' in {duration(outcome.seconds)}' if outcome.seconds else ''
    line = f'{count} {job.name}: {outcome.status}{reason}{took}{figures}'
    eta = self.eta_s()
    if self._left and eta is not None and outcome.status != 'stopped':
      line += f'; ETA {duration(eta)}'
    self.say(line)
    if outcome.status == 'failed':
      self.say(f'the end of {job.workdir / records.LOG}:')
      self.say(_indented(records.tail(job, _TAIL_LINES)))

  def waiting(self, elapsed: Mapping[str, float]) -> None:
    """Called often; refreshes the live line."""
    self._elapsed = dict(elapsed)
    now = time.monotonic()
    if not (self._live and elapsed) or now - self._refreshed < _REFRESH_S:
      return
    self._refreshed = now
    shown = '; '.join(
      f'{name} {duration(seconds)} {_last_step(self._left[name])}'.rstrip()
      for name, seconds in elapsed.items()
    )
    eta = self.eta_s()
    rest = '' if eta is None else f'; ETA {duration(eta)}'
    room = shutil.get_terminal_size().columns - 1
    print(f'{_CLEAR}{shown}{rest}'[: room + len(_CLEAR)], end='', flush=True)

  def eta_s(self) -> float | None:
    """Seconds to the end; None before a job has finished.

    A job takes as long as its run's others took, or as the average job.
    """
    known = [s for seconds in self._seconds.values() for s in seconds]
    if not known:
      return None
    rest = 0.0
    for name, job in self._left.items():
      like_it = self._seconds.get(job.run.name, known)
      guess = sum(like_it) / len(like_it)
      rest += max(guess - self._elapsed.get(name, 0.0), 0.0)
    return rest / self._num_parallel

  def _count(self, job: Job) -> str:
    done = self._total - len(self._left) + 1
    return f'[{done:{len(str(self._total))}}/{self._total}]'


def _last_step(job: Job) -> str:
  """'step 120/700', from the log."""
  for line in reversed(records.tail(job, 10).splitlines()):
    if line.startswith('step '):
      return ' '.join(line.split()[:2])
  return ''


def _indented(text: str) -> str:
  return '\n'.join(f'  | {line}' for line in text.splitlines())
