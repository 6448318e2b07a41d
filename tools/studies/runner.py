"""Runs jobs: `python -m main` in processes of their own, parents first.

A job that fails takes nothing with it but those that start from it; a search
goes on without it. A signal is passed on once, so that every run saves and
leaves; a second one kills.
"""

import dataclasses
import os
import shlex
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from big_vision_like.config import shipped, trust

from . import record as records
from .jobs import Job

# What every job runs, before its arguments.
PROGRAM: Sequence[str] = tuple(shipped.command('train'))
STOPPED = 143  # exit code of main after a signal, and of this tool
NOTHING_SAVED = 75  # that of main where it had nothing to save yet
_POLL_S = 0.1


@dataclasses.dataclass(frozen=True)
class Outcome:
  """How a job ended.

  Attributes:
    status: 'finished', 'kept' (had finished before), 'failed', 'skipped' (what
      it stands on is not there) or 'stopped' (by a signal).
    reason: for 'failed' and 'skipped'.
    seconds: of this attempt.
  """

  status: str
  reason: str = ''
  seconds: float = 0.0

  @property
  def good(self) -> bool:
    return self.status in ('finished', 'kept')


_NOTHING = Outcome('kept')  # of a job that starts from no other


class Stop:
  """Context manager that counts SIGINT and SIGTERM instead of dying of them."""

  def __init__(self) -> None:
    self.count = 0
    self._old: dict[int, Any] = {}

  def __enter__(self) -> 'Stop':
    for number in (signal.SIGTERM, signal.SIGINT):
      self._old[number] = signal.signal(number, self._handle)
    return self

  def __exit__(self, *exception: Any) -> None:
    for number, handler in self._old.items():
      signal.signal(number, handler)

  def _handle(self, number: int, frame: Any) -> None:
    self.count += 1


@dataclasses.dataclass
class _Running:
  job: Job
  record: records.Record
  process: subprocess.Popen
  begun: float


def command(job: Job) -> list[str]:
  """The command line of a job."""
  return [
    *PROGRAM,
    '--config', str(job.workdir / records.CONFIG),
    '--workdir', str(job.workdir),
    *([trust.FLAG] if job.trusted and trust.runs_code(job.config) else ()),
  ]  # fmt: skip


def shown(job: Job) -> str:
  """The command line as one would type it."""
  return shlex.join(['python', *command(job)[1:]])


def run(
  jobs: Sequence[Job],
  *,
  num_parallel: int,
  stop: Stop,
  settle: Callable[[Sequence[Job], Mapping[str, Outcome]], list[Job]],
  on_start: Callable[[Job], None],
  on_end: Callable[[Job, Outcome], None],
  on_wait: Callable[[Mapping[str, float]], None],
) -> dict[str, Outcome]:
  """Runs the jobs; returns how each ended, by name.

  Args:
    jobs: each after those that it stands on.
    num_parallel: processes at a time.
    stop: tells when to end early.
    settle: makes of open jobs what has been chosen, by how others ended.
    on_start, on_end: called for every job that is started, that ends.
    on_wait: called about ten times a second with the seconds of what runs.
  """
  needed = records.to_do(jobs)
  waiting = [job for job in jobs if job.name in needed]
  running: list[_Running] = []
  outcomes: dict[str, Outcome] = {}

  def end(job: Job, outcome: Outcome) -> None:
    outcomes[job.name] = outcome
    on_end(job, outcome)

  for job in jobs:
    if job.name not in needed:
      end(job, Outcome('kept'))
  with _killing(running):
    told = num_settled = 0
    while waiting or running:
      for item in [r for r in running if r.process.poll() is not None]:
        running.remove(item)
        end(item.job, _close(item, bool(stop.count)))
      if len(outcomes) > num_settled and any(not j.is_known for j in waiting):
        num_settled = len(outcomes)
        jobs = settle(jobs, outcomes)
        waiting = _settled(waiting, jobs, end)
      if stop.count > told:
        told = stop.count
        for item in running:
          _signal(item.process, hard=told > 1)
      if stop.count:
        for job in waiting:
          end(job, Outcome('stopped', 'not started'))
        waiting = []
      for job in _ready(waiting, outcomes, end):
        if len(running) < num_parallel:
          waiting.remove(job)
          running.append(_start(job))
          on_start(job)
      now = time.monotonic()
      on_wait({r.job.name: now - r.begun for r in running})
      if running:
        time.sleep(_POLL_S)
  return outcomes


def _settled(
  waiting: Sequence[Job],
  jobs: Sequence[Job],
  end: Callable[[Job, Outcome], None],
) -> list[Job]:
  """What waits, as it is known now; those that need not or cannot run end."""
  now = {job.name: job for job in jobs}
  needed = records.to_do(jobs)
  left = []
  for before in waiting:
    job = now[before.name]
    others = []
    if job.is_known and not before.is_known:
      others = records.differences([job]).get(job.name, [])
    if job.variants and job.choice is not None:
      none = f'none of its search has a figure: {job.choice.left_out}'
      end(job, Outcome('skipped', none))
    elif others:
      what = '; '.join(line.strip() for line in others)
      told = f'its folder holds a run of another config: {what}'
      end(job, Outcome('skipped', told))
    elif job.name not in needed:
      end(job, Outcome('kept'))
    else:
      left.append(job)
  return left


def _ready(
  waiting: list[Job],
  outcomes: Mapping[str, Outcome],
  end: Callable[[Job, Outcome], None],
) -> Iterator[Job]:
  """Jobs that may start; those that never will are ended.

  A generator, so that a job which ends here counts for those after it.
  """
  for job in list(waiting):
    if job.variants:
      continue  # its search goes on
    before = outcomes.get(job.parent.name) if job.parent else _NOTHING
    if before is None:
      continue
    if before.good:
      yield job
    else:
      waiting.remove(job)
      assert job.parent is not None  # _NOTHING is good
      end(job, Outcome('skipped', f'{job.parent.name} is {before.status}'))


def _start(job: Job) -> _Running:
  record = records.read(job) or records.new(job)
  record.evals = records.new(job).evals
  record.choice = job.choice.to_json() if job.choice else {}
  record.command = command(job)
  record.attempts += 1
  record.exit_code = None
  record.finished = False
  record.versions, record.machine = records.versions(), records.machine()
  records.write_json(job.workdir / records.CONFIG, job.config)
  records.write(job, record)
  with (job.workdir / records.LOG).open('ab') as log:
    log.write(f'$ {shown(job)}\n'.encode())
    log.flush()
    process = subprocess.Popen(
      record.command,
      env={'PYTHONUNBUFFERED': '1', **os.environ},
      stdin=subprocess.DEVNULL,
      stdout=log,
      stderr=subprocess.STDOUT,
      # A Ctrl-C of the terminal must reach a run once, by us: twice kills it.
      start_new_session=True,
    )
  return _Running(job, record, process, time.monotonic())


def _close(item: _Running, stopped: bool) -> Outcome:
  """Writes the record of a process that has ended."""
  code = item.process.returncode
  seconds = time.monotonic() - item.begun
  item.record.seconds += seconds
  item.record.exit_code = code
  item.record.finished = code == 0
  records.write(item.job, item.record)
  if code == 0:
    return Outcome('finished', seconds=seconds)
  ends = (STOPPED, NOTHING_SAVED, -signal.SIGTERM, -signal.SIGKILL)
  if stopped and code in ends:
    return Outcome('stopped', 'goes on with the next command', seconds)
  how = f'exit code {code}' if code > 0 else f'killed by signal {-code}'
  return Outcome('failed', how, seconds)


def _signal(process: subprocess.Popen, hard: bool) -> None:
  """SIGTERM to the run, which saves; or SIGKILL to it and its workers."""
  try:
    if hard:
      os.killpg(process.pid, signal.SIGKILL)
    else:
      process.terminate()
  except ProcessLookupError:
    pass


@contextmanager
def _killing(running: list[_Running]) -> Iterator[None]:
  """No process outlives an error of this tool."""
  try:
    yield
  finally:
    for item in running:
      _signal(item.process, hard=True)
      item.process.wait()
