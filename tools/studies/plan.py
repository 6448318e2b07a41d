"""From a study's config to jobs: which runs, with which config, in what order.

Everything that can be wrong is found here, before anything runs.
"""

import dataclasses
import json
import pathlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from big_vision_like.config import loading, overrides, plugins, settings
from configs import studies

from . import entries, search_checks
from .jobs import START, Job


@dataclasses.dataclass(frozen=True)
class Study:
  """A checked study.

  Attributes:
    source: 'file.py:arguments' of its config.
    folder: --workdir.
    title, text: for the report.
    runs: name -> its jobs, in the order of the config.
    jobs: all, each after those that it stands on.
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
  bases: dict[str, Any] = {}
  for name in _in_order(runs):
    run = runs[name]
    of_start = _configs(run, runs, bases, trusted)
    jobs[name] = [
      _job(of_start, seed, jobs, folder, trusted)
      for seed in (given['seeds'] if run.seeds is None else run.seeds)
    ]
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
  search_checks.check(
    {name: job[0] for name, job in study.runs.items()}, [*reported(study)]
  )
  return study


def chosen(study: Study, only: Collection[str]) -> list[Job]:
  """The jobs of the runs named, and those that they stand on.

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
      wanted |= {job.name, *job.parents, *(j.name for j in job.search)}
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
  """Names of the runs, each after those that it stands on."""
  order: list[str] = []

  def place(name: str, above: tuple[str, ...]) -> None:
    if name in order:
      return
    for key, other in _stands_on(runs[name]):
      where = f'runs, {name!r}: {key}={other!r}'
      if other not in runs:
        raise ValueError(
          f'{where}: no such run{plugins.suggest(other, runs)}; valid: '
          f'{", ".join(runs)}'
        )
      if other in (*above, name):
        raise ValueError(f'{where}: runs stand on each other in a circle')
      if key == 'best_of.runs' and runs[other].best_of is not None:
        raise ValueError(f'{where}: that run is the best of others itself')
      place(other, (*above, name))
    order.append(name)

  for name in runs:
    place(name, ())
  return order


def _stands_on(run: entries.Run) -> list[tuple[str, str]]:
  """(key, name) of the runs that one needs before it."""
  searched = run.best_of.runs if run.best_of else ()
  found = [('best_of.runs', name) for name in searched]
  return [*([('start_from', run.start_from)] if run.start_from else ()), *found]


def _configs(
  run: entries.Run,
  runs: Mapping[str, entries.Run],
  bases: dict[str, Any],
  trusted: bool,
) -> dict[str, tuple[entries.Run, Any]]:
  """Candidate -> the run if that is chosen, and its config; '': no search.

  Args:
    run: to be planned.
    runs: all.
    bases: configs of the runs planned, without seed and start; gets this one.
    trusted: see `build`.
  """
  where = f'runs, {run.name!r}'
  own = None
  if run.config:
    own = loading.load(run.config, f'{where}: config', trusted=trusted)
  if run.best_of is None:
    bases[run.name] = overrides.apply(own, run.overrides, where)
    return {'': (run, bases[run.name])}
  taken = search_checks.taken({n: bases[n] for n in run.best_of.runs})
  found = {}
  for name, values in taken.items():
    config = bases[name] if own is None else own
    config = overrides.apply(config, {**values, **run.overrides}, where)
    as_chosen = run
    if not run.start_from:
      as_chosen = dataclasses.replace(
        run,
        start_from=runs[name].start_from,
        start_step=runs[name].start_step,
      )
    found[name] = as_chosen, config
  return found


def _job(
  of_choice: Mapping[str, tuple[entries.Run, Any]],
  seed: int,
  jobs: Mapping[str, Sequence[Job]],
  folder: pathlib.Path,
  trusted: bool,
) -> Job:
  """The job of a seed; an open one where there is a search."""
  variants = {}
  for name, (run, config) in of_choice.items():
    parent = None
    values: dict[str, Any] = {'seed': seed}
    if run.start_from:
      parent = _parent(run, seed, jobs[run.start_from])
      values[START] = str(parent.workdir)
      if run.start_step is not None:
        values[START] += f'/checkpoints/{run.start_step}'
    complete = overrides.apply(config, values, f'runs, {run.name!r}')
    searched = run.best_of.runs if run.best_of else ()
    file = run.config or jobs[name][0].run.config
    variants[name] = Job(
      run=run,
      seed=seed,
      workdir=folder / 'runs' / run.name / f'seed{seed}',
      config=json.loads(settings.to_json(complete)),
      parent=parent,
      search=tuple(job for name in searched for job in jobs[name]),
      trusted=trusted or not file.endswith('.json'),
    )
  first = next(iter(variants.values()))
  if first.run.best_of is None:
    return first
  return dataclasses.replace(first, variants=variants)


def _parent(run: entries.Run, seed: int, candidates: Sequence[Job]) -> Job:
  """Of the same seed, or the only one."""
  same = [job for job in candidates if job.seed == seed]
  if same or len(candidates) == 1:
    return (same or list(candidates))[0]
  raise ValueError(
    f'runs, {run.name!r}: start_from={run.start_from!r} has the seeds '
    f'{[job.seed for job in candidates]}: neither seed {seed} nor just one'
  )


def reported(study: Study) -> Iterator[tuple[str, str, str]]:
  """(table or figure, run, metric) of all that the study reports."""
  for table in study.tables:
    for row in table.rows:
      for column in table.columns if row.run else ():
        yield f'table {table.name}', row.run, column.metric
  for figure in study.figures:
    for run in arms(study, figure):
      yield f'figure {figure.name}', run, figure.metric


def _check_metric(study: Study, where: str, run: str, metric: str) -> None:
  """The run must be known and have the evaluator of the metric."""
  if run not in study.runs:
    raise ValueError(
      f'{where}: no run {run!r}{plugins.suggest(run, study.runs)}; valid: '
      f'{", ".join(study.runs)}'
    )
  evals = study.runs[run][0].config['evals']
  search_checks.evaluator_of(metric, ['train', *evals], run, where)


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
