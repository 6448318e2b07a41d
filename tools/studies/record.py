"""What the study tool keeps in the folder of a job: whether it is done.

`study_run.json` says which training the folder holds, whether it has finished,
in what time and on what. It is what lets a repeated command leave finished
jobs alone, go on with others, and refuse a folder that holds something else.
"""

import dataclasses
import importlib.metadata
import json
import os
import pathlib
import platform
from collections.abc import Sequence
from typing import Any

from big_vision_like.checkpoints import folders
from big_vision_like.config import json_text, redaction, settings
from big_vision_like.runtime import writers
from input_pipeline.files import atomic

from .jobs import START, Job

RECORD = 'study_run.json'
CONFIG = 'study_config.json'  # what main is given
LOG = 'log.txt'
_PACKAGES = ('jax', 'flax', 'optax', 'orbax-checkpoint', 'grain', 'numpy')


@dataclasses.dataclass
class Record:
  """The state of a job's folder.

  Attributes:
    training: the flat keys that decide the weights (Job.training).
    evals: options of the evaluators.
    command: as it was started last.
    attempts: how often it was started.
    seconds: of all attempts together.
    exit_code: of the last attempt; None while it runs, or if the tool died.
    finished: whether main went to the end, with these evaluators.
    versions, machine: of the last attempt.
    choice: of a run with best_of, the one chosen and the figures by which; {}
      of others.
  """

  training: dict[str, Any]
  evals: dict[str, Any]
  command: list[str] = dataclasses.field(default_factory=list)
  attempts: int = 0
  seconds: float = 0.0
  exit_code: int | None = None
  finished: bool = False
  versions: dict[str, str] = dataclasses.field(default_factory=dict)
  machine: str = ''
  choice: dict[str, Any] = dataclasses.field(default_factory=dict)


def new(job: Job) -> Record:
  """The record of a job that has never run."""
  return Record(training=_plain(job.training), evals=_evals(job))


def read(job: Job) -> Record | None:
  """The record in a job's folder; None if there is none.

  Raises:
    ValueError: it is not what this tool writes.
  """
  path = job.workdir / RECORD
  if not path.exists():
    return None
  try:
    return Record(**json_text.parse(path.read_bytes()))
  except (ValueError, TypeError) as error:
    raise ValueError(f'{path} is no record of a run: {error}') from None


def write(job: Job, record: Record) -> None:
  """Stores the record."""
  write_json(job.workdir / RECORD, dataclasses.asdict(record))


def write_json(path: pathlib.Path, value: Any) -> None:
  """Writes a file whole or not at all."""
  path.parent.mkdir(parents=True, exist_ok=True)
  atomic.write_text(path, json.dumps(value, indent=2, sort_keys=True) + '\n')


def is_finished(job: Job, record: Record | None) -> bool:
  """Whether it was trained and evaluated, and its figures are there."""
  return (
    record is not None
    and record.finished
    and record.evals == _evals(job)
    and (job.workdir / writers.METRICS).exists()
  )


def to_do(jobs: Sequence[Job]) -> set[str]:
  """Names of the jobs that have to run.

  A job that has finished runs again only if its checkpoint is gone and
  another has to start from it; so checkpoints may be deleted for room.

  Args:
    jobs: each after those that it stands on. Open ones, and what starts from
      them, have to run: whether they have finished is known once it is chosen.
  """
  needed: set[str] = set()
  needed_checkpoints: set[str] = set()
  for job in reversed(jobs):
    gone = job.name in needed_checkpoints and not _has_checkpoint(job)
    if gone or not job.is_known or not is_finished(job, read(job)):
      needed.add(job.name)
      needed_checkpoints |= job.parents.keys()
  return needed


def _has_checkpoint(job: Job) -> bool:
  return bool(folders.by_step(folders.of_workdir(job.workdir)))


def changes(job: Job, record: Record) -> list[str]:
  """Lines 'key: before -> now' where the folder holds another training."""
  before, now = record.training, _plain(job.training)
  lines = [
    f'  {key}: {before.get(key)!r} -> {now.get(key)!r}'
    for key in sorted(before.keys() | now.keys())
    if before.get(key) != now.get(key)
  ]
  told = '  start_from: what it starts from is trained otherwise'
  lines = [told if x.startswith('  start_from: ') else x for x in lines]
  return [*lines, *(_other_choice(job, record) if lines else ())]


def _other_choice(job: Job, record: Record) -> list[str]:
  """A line where the search has chosen another run than it had."""
  before, now = record.choice, job.choice and job.choice.to_json()
  if not before or not now or before['run'] == now['run']:
    return []
  of = lambda choice: (
    f'{choice["run"]} ('
    + ', '.join(
      f'{run} {f"{value:.6g}" if isinstance(value, float) else value}'
      for run, value in choice['figures'].items()
    )
    + ')'
  )
  return [f'  best by {now["metric"]}: {of(before)} -> {of(now)}']


def differences(jobs: Sequence[Job]) -> dict[str, list[str]]:
  """{job name: changes} of the jobs whose folder holds another training.

  Also where main went on there by hand, under another config than recorded.
  """
  found = {}
  for job in jobs:
    if job.variants:
      # Its folder must fit one of them; which, is found when it is chosen.
      either = [_differences(v) for v in job.variants.values() if v.is_known]
      sure = len(either) == len(job.variants)
      lines = min(either, key=len) if sure else []
    else:
      lines = _differences(job) if job.is_known else []
    if lines:
      found[job.name] = lines
  return found


def _differences(job: Job) -> list[str]:
  record = read(job)
  if record is None:
    return _of_main(job)
  return changes(job, record) or _since(job)


def _of_main(job: Job) -> list[str]:
  """The same for a folder in which main was run by hand."""
  stored = job.workdir / settings.FILE
  if not stored.exists():
    return []
  planned = settings.complete(dict(job.config))
  return settings.differences(settings.from_json(stored), planned)


def _since(job: Job) -> list[str]:
  """The same for one in which main went on by hand since it was recorded.

  The folder of a study may have moved: where the parent lies does not count.
  """
  stored = job.workdir / settings.FILE
  if not stored.exists():
    return []
  found = settings.flat(settings.stored(settings.from_json(stored)))
  planned = settings.flat(_plain(job.config))
  return [
    f'  {key}: {planned[key]!r} -> {found.get(key)!r}, by another command'
    for key in sorted(job.training.keys() & planned.keys())
    if planned[key] != found.get(key)
    and not (key == START and job.parent is not None)
  ]


def versions() -> dict[str, str]:
  """Python and the packages that decide what comes out."""
  return {
    'python': platform.python_version(),
    **{name: importlib.metadata.version(name) for name in _PACKAGES},
  }


def machine() -> str:
  """Processor, number of cores and system."""
  name = platform.processor() or platform.machine()
  info = pathlib.Path('/proc/cpuinfo')
  if info.exists():
    for line in info.read_text().splitlines():
      if line.startswith('model name'):
        name = line.partition(':')[2].strip()
        break
  return f'{os.cpu_count()} cores of {name}, {platform.system()}'


def tail(job: Job, num_lines: int) -> str:
  """The last lines of a job's log."""
  path = job.workdir / LOG
  if not path.exists():
    return ''
  with path.open('rb') as file:
    file.seek(max(path.stat().st_size - 20_000, 0))
    lines = file.read().decode(errors='replace').splitlines()
  return '\n'.join(lines[-num_lines:])


def _evals(job: Job) -> dict[str, Any]:
  return _plain(job.config['evals'])


def _plain(value: Any) -> Any:
  """As it comes back from JSON, without secrets."""
  return redaction.plain(json.loads(json.dumps(value)))
