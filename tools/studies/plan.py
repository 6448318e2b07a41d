"""From a study's config to jobs: which runs, with which config, in what order.

Everything that can be wrong is found here, before anything runs. A job is one
run with one seed; what it starts from is another job, so that the jobs form a
directed graph without cycles.
"""

import dataclasses
import functools
import hashlib
import json
import pathlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from big_vision_like.config import (
  loading,
  overrides,
  plugins,
  settings,
  stream_names,
)
from configs import studies

from . import entries

_LENGTH = ('total_steps', 'total_epochs', 'total_examples')
# Keys that change neither the weights at the end nor what is known of them.
_IGNORED = tuple(k for k in settings.FREE_SECTIONS if k not in _LENGTH)
START = 'init_from.path'
_AVERAGES = 'init_from.ema'


@dataclasses.dataclass(frozen=True)
class Job:
  """One run with one seed.

  Attributes:
    run: what it belongs to.
    seed: of this job.
    workdir: its folder.
    config: complete and plain, as main gets it.
    parent: the job that it starts from, or None.
    trusted: whether main may run code that the config or its data name: it
      began as a file of the user's own.
  """

  run: entries.Run
  seed: int
  workdir: pathlib.Path
  config: Mapping[str, Any]
  parent: 'Job | None'
  trusted: bool = False

  @property
  def name(self) -> str:
    """'scratch seed 0'."""
    return f'{self.run.name} seed {self.seed}'

  @functools.cached_property
  def training(self) -> dict[str, Any]:
    """Flat keys that decide what the weights at the end are.

    Where the folder of the study lies is not among them; what the job starts
    from is, with all of its own keys.
    """
    flat = settings.flat(self.config)
    kept = {k: v for k, v in flat.items() if not within(k, _IGNORED)}
    if not flat[START]:
      del kept[_AVERAGES]  # of no checkpoint; older records do not have it
    if self.parent is not None:
      kept[START] = f'{self.parent.name}, step {self.run.start_step or "last"}'
      kept['start_from'] = self.parent.identity
    return kept

  @functools.cached_property
  def identity(self) -> str:
    """Short digest of `training`."""
    text = json.dumps(self.training, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclasses.dataclass(frozen=True)
class Study:
  """A checked study.

  Attributes:
    source: 'file.py:arguments' of its config.
    folder: --workdir.
    title, text: for the report.
    runs: name -> its jobs, in the order of the config.
    jobs: all, each after the one that it starts from.
    tables, figures: of the report.
  """

  source: str
  folder: pathlib.Path
  title: str
  text: str
  runs: Mapping[str, Sequence[Job]]
  jobs: Sequence[Job]
  tables: Sequence[entries.Table]
  figures: Sequence[entries.Figure]

  def title_of(self, run: str) -> str:
    """How tables and figures call a run."""
    return self.runs[run][0].run.title or run


def within(key: str, sections: Iterable[str]) -> bool:
  """Whether a dotted key is one of the sections or lies in one.

  The keys of a stream are as those of `input`.
  """
  key = stream_names.as_main(key)
  return any(key == s or key.startswith(f'{s}.') for s in sections)


def build(
  config: Any, source: str, folder: pathlib.Path, *, trusted: bool = False
) -> Study:
  """Checks a study's config and plans its jobs; opens no data.

  Args:
    config: of the study.
    source: where it comes from, for messages.
    folder: of the study.
    trusted: whether a config.json among its configs may name modules of others.

  Raises:
    ValueError, FileNotFoundError: naming the key of the study's config.
  """
  given = config.to_dict() if isinstance(config, ConfigDict) else dict(config)
  known = studies.base('')
  for key in given:
    if key not in known:
      raise ValueError(
        f'{source} is no study: unknown key {key!r}'
        f'{plugins.suggest(key, known)}; valid: {", ".join(known)}'
      )
  given = {**known.to_dict(), **given}
  entries.check_seeds(given['seeds'], 'seeds')
  runs = _unique(
    [entries.read_run(r, f'runs[{i}]') for i, r in enumerate(given['runs'])],
    'runs',
  )
  if not runs:
    raise ValueError(f'{source}: runs is empty')
  jobs: dict[str, list[Job]] = {}
  for name in _in_order(runs):
    jobs[name] = _jobs(runs[name], given['seeds'], jobs, folder, trusted)
  read = lambda kind, make: [
    make(entry, f'{kind}[{i}]') for i, entry in enumerate(given[kind])
  ]
  study = Study(
    source=source,
    folder=folder,
    title=given['title'],
    text=given['text'],
    runs={name: jobs[name] for name in runs},
    jobs=[job for name in jobs for job in jobs[name]],
    tables=read('tables', entries.read_table),
    figures=read('figures', entries.read_figure),
  )
  _unique([*study.tables, *study.figures], 'tables and figures')
  _check_tables(study)
  _check_figures(study)
  return study


def chosen(study: Study, only: Collection[str]) -> list[Job]:
  """The jobs of the runs named, and those that they start from.

  Raises:
    ValueError: no such run.
  """
  for name in only:
    if name not in study.runs:
      raise ValueError(
        f'--only: no run {name!r}{plugins.suggest(name, study.runs)}; valid: '
        f'{", ".join(study.runs)}'
      )
  wanted: set[str] = set()
  for job in reversed(study.jobs):  # children first
    if not only or job.run.name in only or job.name in wanted:
      wanted.add(job.name)
      if job.parent is not None:
        wanted.add(job.parent.name)
  return [job for job in study.jobs if job.name in wanted]


def arms(study: Study, figure: entries.Figure) -> list[str]:
  """Names of the runs that a figure shows."""
  if figure.runs:
    return list(figure.runs)
  has_x = lambda jobs: not figure.x or figure.x in jobs[0].run.axes
  return [name for name, jobs in study.runs.items() if has_x(jobs)]


def _unique(items: Sequence[Any], where: str) -> dict[str, Any]:
  """{name: item}; names must differ, in letter case not only."""
  seen: dict[str, Any] = {}
  for item in items:
    if item.name.lower() in {name.lower() for name in seen}:
      raise ValueError(f'{where}: the name {item.name!r} stands twice')
    seen[item.name] = item
  return seen


def _in_order(runs: Mapping[str, entries.Run]) -> list[str]:
  """Names of the runs, each after the one that it starts from."""
  order: list[str] = []
  for name in runs:
    chain = [name]
    while (parent := runs[chain[-1]].start_from) and parent not in order:
      where = f'runs, {chain[-1]!r}: start_from={parent!r}'
      if parent not in runs:
        raise ValueError(
          f'{where}: no such run{plugins.suggest(parent, runs)}; valid: '
          f'{", ".join(runs)}'
        )
      if parent in chain:
        raise ValueError(f'{where}: runs start from each other in a circle')
      chain.append(parent)
    order += [n for n in reversed(chain) if n not in order]
  return order


def _jobs(
  run: entries.Run,
  seeds: Sequence[int],
  jobs: Mapping[str, Sequence[Job]],
  folder: pathlib.Path,
  trusted: bool,
) -> list[Job]:
  where = f'runs, {run.name!r}'
  config = loading.load(run.config, f'{where}: config', trusted=trusted)
  config = overrides.apply(config, run.overrides, where)
  planned = []
  for seed in seeds if run.seeds is None else run.seeds:
    parent = None
    values: dict[str, Any] = {'seed': seed}
    if run.start_from:
      parent = _parent(run, seed, jobs[run.start_from])
      values[START] = str(parent.workdir)
      if run.start_step is not None:
        values[START] += f'/checkpoints/{run.start_step}'
    complete = overrides.apply(config, values, where)
    planned.append(
      Job(
        run=run,
        seed=seed,
        workdir=folder / 'runs' / run.name / f'seed{seed}',
        config=json.loads(settings.to_json(complete)),
        parent=parent,
        trusted=trusted or not run.config.endswith('.json'),
      )
    )
  return planned


def _parent(run: entries.Run, seed: int, candidates: Sequence[Job]) -> Job:
  """Of the same seed, or the only one."""
  same = [job for job in candidates if job.seed == seed]
  if same or len(candidates) == 1:
    return (same or list(candidates))[0]
  raise ValueError(
    f'runs, {run.name!r}: start_from={run.start_from!r} has the seeds '
    f'{[job.seed for job in candidates]}: neither seed {seed} nor just one'
  )


def _check_metric(study: Study, where: str, run: str, metric: str) -> None:
  """The run must be known and have the evaluator of the metric."""
  if run not in study.runs:
    raise ValueError(
      f'{where}: no run {run!r}{plugins.suggest(run, study.runs)}; valid: '
      f'{", ".join(study.runs)}'
    )
  evaluator = metric.partition('/')[0]
  valid = ['train', *study.runs[run][0].config['evals']]
  if evaluator not in valid:
    raise ValueError(
      f'{where}: metric {metric!r}: run {run!r} has no evaluator '
      f'{evaluator!r}{plugins.suggest(evaluator, valid)}; valid: '
      f'{", ".join(f"{name}/..." for name in valid)}'
    )


def _check_tables(study: Study) -> None:
  for table in study.tables:
    for row in table.rows:
      for column in table.columns if row.run else ():
        _check_metric(study, f'table {table.name}', row.run, column.metric)


def _check_figures(study: Study) -> None:
  for figure in study.figures:
    where = f'figure {figure.name}'
    names = arms(study, figure)
    if not names:
      raise ValueError(f'{where}: no run has the axis {figure.x!r}')
    for name in names:
      _check_metric(study, where, name, figure.metric)
      axes = study.runs[name][0].run.axes
      for axis in filter(None, (figure.x, figure.group)):
        if axis not in axes:
          raise ValueError(
            f'{where}: run {name!r} has no axis {axis!r}; it has: '
            f'{", ".join(axes) or "none"}'
          )
      if not figure.x:
        continue
      value = axes[figure.x]
      number = isinstance(value, int | float) and not isinstance(value, bool)
      if not number or (figure.log_x and value <= 0):
        raise ValueError(
          f'{where}: x={figure.x!r} of run {name!r} is {value!r}, no number'
          f'{" above 0" if figure.log_x else ""}'
        )
