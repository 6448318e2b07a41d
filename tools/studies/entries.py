"""The entries of a study config: runs, tables, figures, each checked.

Every entry is a dict in a list of the config; its keys are the fields of the
class here. What entries say of each other (start_from, rows of tables) is
checked in plan.py.
"""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

from big_vision_like.config import plugins

_NAME = re.compile(r'[A-Za-z0-9][A-Za-z0-9_.-]*')
KINDS = ('curves', 'bars', 'sweep')
MODES = ('max', 'min')


@dataclasses.dataclass(frozen=True)
class BestOf:
  """A search: what a run takes from the best of others.

  Attributes:
    runs: names of the candidates.
    metric: name in metrics.jsonl of the figure that decides, of images that no
      table and no figure reports.
    mode: 'max' or 'min' is best.
  """

  runs: Sequence[str]
  metric: str
  mode: str = 'max'


@dataclasses.dataclass(frozen=True)
class Run:
  """One experiment, for each of its seeds.

  Attributes:
    name: of its folder.
    config: 'file.py:arguments', or the config.json of a workdir; may be left
      out with best_of: then it is that of the chosen run.
    best_of: the keys in which the candidates differ get the values of the best
      one, and so do start_from and start_step if start_from is not given.
    title: how tables and figures call it; '': its name.
    overrides: dotted key -> value, set in the config.
    seeds: values of `seed`; None: those of the study.
    start_from: name of the run whose checkpoint of the same seed, or of its
      only seed, becomes init_from.path; '': none.
    start_step: of that checkpoint; None: the last one.
    axes: numbers and words that tell it from other runs, for sweeps.
  """

  name: str
  config: str = ''
  best_of: BestOf | None = None
  title: str = ''
  overrides: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  seeds: Sequence[int] | None = None
  start_from: str = ''
  start_step: int | None = None
  axes: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Row:
  """A row of a table: an arm of the study, published figures, or both.

  Attributes:
    run: name of the run; '': the row has published figures only.
    title: first cell; '': that of the run.
    published: metric -> figure of the paper.
  """

  run: str = ''
  title: str = ''
  published: Mapping[str, float] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Column:
  """A column of a table: a figure at the end of the runs.

  Attributes:
    metric: name in metrics.jsonl, 'val/top1'.
    title: heading; '': the metric.
    digits: behind the point.
  """

  metric: str
  title: str = ''
  digits: int = 1


@dataclasses.dataclass(frozen=True)
class Table:
  """Mean and standard deviation over seeds.

  Attributes:
    name: of its CSV.
    rows, columns: see Row and Column.
    title, text: heading and explanation.
    baseline: a run of the rows that the others are compared with; '': none.
    published: where the published figures come from, 'Sun et al. 2017, Table
      1, on ImageNet'.
  """

  name: str
  rows: Sequence[Row]
  columns: Sequence[Column]
  title: str = ''
  text: str = ''
  baseline: str = ''
  published: str = ''


@dataclasses.dataclass(frozen=True)
class Figure:
  """A picture of a metric.

  Attributes:
    name: of its PNG and CSV.
    kind: 'curves' (over training steps, an arm a line), 'bars' (at the end, an
      arm a bar), 'sweep' (at the end, over an axis of the runs).
    metric: name in metrics.jsonl.
    runs: arms; empty: all, of a sweep all with the axis x.
    title, text: heading and explanation.
    x: the axis of a sweep, a number in every run's `axes`.
    group: another axis; one line for each of its values.
    log_x: logarithmic x axis.
    fit: least squares of the means against x, or log10(x) with log_x.
  """

  name: str
  kind: str
  metric: str
  runs: Sequence[str] = ()
  title: str = ''
  text: str = ''
  x: str = ''
  group: str = ''
  log_x: bool = False
  fit: bool = False


def read_run(entry: Any, where: str) -> Run:
  """The run that a dict describes."""
  run = _read(Run, entry, where)
  _check_name(run.name, where)
  if run.seeds is not None:
    check_seeds(run.seeds, f'{where}.seeds')
  if run.start_step is not None and not run.start_from:
    raise ValueError(f'{where}: start_step needs start_from')
  if run.best_of is not None:
    best_of = _read_best_of(run.best_of, f'{where}.best_of')
    return dataclasses.replace(run, best_of=best_of)
  if not run.config:
    raise ValueError(f"{where}: 'config' is missing")
  return run


def _read_best_of(entry: Any, where: str) -> BestOf:
  best_of = _read(BestOf, entry, where)
  if best_of.mode not in MODES:
    raise ValueError(
      f'{where}.mode={best_of.mode!r}'
      f'{plugins.suggest(best_of.mode, MODES)}; valid: {", ".join(MODES)}'
    )
  names = best_of.runs
  words = all(isinstance(name, str) for name in names)
  if not names or not words or len(set(names)) < len(names):
    raise ValueError(
      f'{where}.runs={names!r} must be distinct names of runs, at least one'
    )
  return best_of


def read_table(entry: Any, where: str) -> Table:
  """The table that a dict describes; rows may be names of runs."""
  table = _read(Table, entry, where)
  _check_name(table.name, where)
  rows = [
    Row(run=row)
    if isinstance(row, str)
    else _read(Row, row, f'{where}.rows[{i}]')
    for i, row in enumerate(table.rows)
  ]
  columns = [
    Column(metric=column)
    if isinstance(column, str)
    else _read(Column, column, f'{where}.columns[{i}]')
    for i, column in enumerate(table.columns)
  ]
  for i, row in enumerate(rows):
    if not row.run and not (row.title and row.published):
      raise ValueError(
        f'{where}.rows[{i}] needs a run, or a title and published figures'
      )
  arms = [row.run for row in rows if row.run]
  if table.baseline and table.baseline not in arms:
    raise ValueError(
      f'{where}.baseline={table.baseline!r} is no run of the rows'
      f'{plugins.suggest(table.baseline, arms)}; valid: {", ".join(arms)}'
    )
  if not arms or not columns:
    raise ValueError(f'{where} needs a row with a run, and a column')
  return dataclasses.replace(table, rows=rows, columns=columns)


def read_figure(entry: Any, where: str) -> Figure:
  """The figure that a dict describes."""
  figure = _read(Figure, entry, where)
  _check_name(figure.name, where)
  if figure.kind not in KINDS:
    raise ValueError(
      f'{where}.kind={figure.kind!r}'
      f'{plugins.suggest(figure.kind, KINDS)}; valid: {", ".join(KINDS)}'
    )
  if (figure.kind == 'sweep') != bool(figure.x):
    raise ValueError(
      f"{where}: kind='sweep' needs x, the axis; other kinds have none"
    )
  if figure.kind != 'sweep' and (figure.group or figure.log_x or figure.fit):
    raise ValueError(f"{where}: group, log_x and fit are for kind='sweep'")
  return figure


def check_seeds(seeds: Sequence[int], where: str) -> None:
  """Refuses seeds that are no distinct integers, or none."""
  listed = list(seeds) if isinstance(seeds, list | tuple) else []
  whole = all(type(s) is int and s >= 0 for s in listed)
  if not listed or not whole or len(set(listed)) < len(listed):
    raise ValueError(
      f'{where}={seeds!r} must be distinct integers >= 0, at least one'
    )


def _check_name(name: Any, where: str) -> None:
  if not isinstance(name, str) or not _NAME.fullmatch(name):
    raise ValueError(
      f'{where}.name={name!r} names files: letters, digits, _ . - only, and a '
      'letter or digit first'
    )


def _read(kind: Any, entry: Any, where: str) -> Any:
  """An object of a dataclass from a dict of its fields."""
  if not isinstance(entry, Mapping):
    raise ValueError(f'{where} must be a dict, got {entry!r}')
  fields = {f.name: f for f in dataclasses.fields(kind)}
  for key in entry:
    if key not in fields:
      raise ValueError(
        f'{where}: unknown key {key!r}{plugins.suggest(key, fields)}; valid: '
        f'{", ".join(fields)}'
      )
  for name, field in fields.items():
    missing = dataclasses.MISSING
    required = field.default is missing and field.default_factory is missing
    if required and name not in entry:
      raise ValueError(f'{where}: {name!r} is missing')
    if name in entry:
      _check_type(field.type, entry[name], f'{where}.{name}')
  return kind(**entry)


def _check_type(kind: Any, value: Any, where: str) -> None:
  """Words, numbers, lists and dicts are not mixed up."""
  said = str(getattr(kind, '__name__', kind))
  for word, fits in (
    ('str', lambda v: isinstance(v, str)),
    ('bool', lambda v: isinstance(v, bool)),
    ('int', lambda v: type(v) is int),
    ('Mapping', lambda v: isinstance(v, Mapping)),
    ('Sequence', lambda v: isinstance(v, list | tuple)),
  ):
    if said == word and not fits(value):
      raise ValueError(f'{where} must be a {word.lower()}, got {value!r}')
