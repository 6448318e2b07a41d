"""Figures of a study as PNG and CSV: curves, bars, sweeps with a fit.

Bands and whiskers are one standard deviation over seeds; dots are single
seeds. Arms without a finished seed are named as missing.
"""

import dataclasses
import math
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from input_pipeline.files import atomic

from . import fit, plan
from . import results as outcomes
from .entries import Figure
from .plan import Study
from .results import Result

_DPI = 150


@dataclasses.dataclass(frozen=True)
class Drawn:
  """A figure and what its caption has to say.

  Attributes:
    path: the PNG.
    fits: group -> line, of a sweep with a fit.
    missing: titles of arms without a figure.
  """

  path: pathlib.Path
  fits: dict[str, fit.Line]
  missing: list[str]


def draw(
  study: Study, figure: Figure, results: Sequence[Result], folder: pathlib.Path
) -> Drawn:
  """Writes `NAME.png` and the numbers in it, `NAME.csv`."""
  from matplotlib.backends.backend_agg import FigureCanvasAgg
  from matplotlib.figure import Figure as Canvas

  names = plan.arms(study, figure)
  has = lambda n: outcomes.summarise(results, n, figure.metric).num > 0
  missing = [study.title_of(name) for name in names if not has(name)]
  present = [name for name in names if has(name)]
  canvas = Canvas((6.4, 4.0), layout='constrained', dpi=_DPI)
  axes = canvas.subplots()
  fits: dict[str, fit.Line] = {}
  if figure.kind == 'curves':
    header, rows = _curves(axes, study, figure, names, results)
  elif figure.kind == 'bars':
    header, rows = _bars(axes, study, figure, names, results)
  else:
    header, rows, fits = _sweep(axes, study, figure, present, results)
  axes.set_ylabel(figure.metric)
  axes.set_axisbelow(True)
  axes.grid(alpha=0.25, axis='y' if figure.kind == 'bars' else 'both')
  if not present and figure.kind != 'bars':
    axes.text(0.5, 0.5, 'nothing finished', ha='center', va='center')
  path = folder / f'{figure.name}.png'
  with atomic.writing(path) as file:
    FigureCanvasAgg(canvas).print_png(file)
  outcomes.write_csv(folder / f'{figure.name}.csv', header, rows)
  return Drawn(path, fits, missing)


def mean_curve(
  curves: Sequence[outcomes.Curve],
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """(steps, mean, std) at the steps that all seeds have; std 0 for one."""
  steps = curves[0][0]
  for other, _ in curves[1:]:
    steps = np.intersect1d(steps, other)
  values = np.array([v[np.searchsorted(s, steps)] for s, v in curves])
  std = values.std(0, ddof=1) if len(curves) > 1 else np.zeros(len(steps))
  return steps, values.mean(0), std


def _curves(
  axes: Any,
  study: Study,
  figure: Figure,
  names: Sequence[str],
  results: Sequence[Result],
) -> tuple[list[str], list[list[Any]]]:
  rows: list[list[Any]] = []
  for position, name in enumerate(names):
    curves = [
      r.curves[figure.metric]
      for r in results
      if r.job.run.name == name and figure.metric in r.curves
    ]
    if not curves:
      continue
    steps, mean, std = mean_curve(curves)
    colour = f'C{position % 10}'
    marker = 'o' if len(steps) < 30 else None
    axes.plot(
      steps, mean, color=colour, marker=marker, markersize=3,
      label=study.title_of(name),
    )  # fmt: skip
    if len(curves) > 1:
      axes.fill_between(
        steps, mean - std, mean + std, color=colour, alpha=0.18, linewidth=0
      )
    rows += [
      [name, int(s), float(m), float(d) if len(curves) > 1 else None]
      for s, m, d in zip(steps, mean, std)
    ]
  axes.set_xlabel('step')
  if rows:
    axes.legend(fontsize=8)
  return ['run', 'step', 'mean', 'std'], rows


def _bars(
  axes: Any,
  study: Study,
  figure: Figure,
  names: Sequence[str],
  results: Sequence[Result],
) -> tuple[list[str], list[list[Any]]]:
  rows: list[list[Any]] = []
  for position, name in enumerate(names):
    summary = outcomes.summarise(results, name, figure.metric)
    if summary.num:
      axes.bar(position, summary.mean, 0.7, color=f'C{position % 10}')
      _points(axes, [position] * summary.num, summary)
    else:
      axes.annotate('missing', (position, 0), ha='center', va='bottom')
    mean = summary.mean if summary.num else None
    rows.append([name, mean, _known(summary.std), summary.num])
  axes.set_xlim(-0.6, max(len(names), 3) - 0.4)
  axes.set_xticks(
    range(len(names)),
    [study.title_of(name) for name in names],
    rotation=20 if len(names) > 3 else 0,
    ha='right' if len(names) > 3 else 'center',
    fontsize=8,
  )
  return ['run', 'mean', 'std', 'seeds'], rows


def _sweep(
  axes: Any,
  study: Study,
  figure: Figure,
  names: Sequence[str],
  results: Sequence[Result],
) -> tuple[list[str], list[list[Any]], dict[str, fit.Line]]:
  groups: dict[str, list[str]] = {}
  axis_of = lambda name: study.runs[name][0].run.axes
  for name in names:
    group = str(axis_of(name)[figure.group]) if figure.group else ''
    groups.setdefault(group, []).append(name)
  rows: list[list[Any]] = []
  fits: dict[str, fit.Line] = {}
  if figure.log_x:
    axes.set_xscale('log')
  for position, (group, members) in enumerate(groups.items()):
    members = sorted(members, key=lambda name: axis_of(name)[figure.x])
    x = [float(axis_of(name)[figure.x]) for name in members]
    many = [outcomes.summarise(results, n, figure.metric) for n in members]
    mean = [summary.mean for summary in many]
    colour = f'C{position % 10}'
    label = f'{figure.group}={group}' if figure.group else None
    linestyle = '' if figure.fit else '-'
    axes.plot(x, mean, color=colour, marker='o', ls=linestyle, label=label)
    for at, summary in zip(x, many):
      _points(axes, [at] * summary.num, summary)
      rows.append([group, at, summary.mean, _known(summary.std), summary.num])
    known = [(at, y) for at, y in zip(x, mean) if math.isfinite(y)]
    line = None
    if figure.fit and known:
      line = fit.line(*zip(*known), log_x=figure.log_x)
    if line is not None:
      fits[group] = line
      ends = np.array([x[0], x[-1]])
      u = np.log10(ends) if figure.log_x else ends
      axes.plot(ends, line.intercept + line.slope * u, color=colour, lw=1)
  axes.set_xlabel(figure.x)
  if figure.group and groups:
    axes.legend(fontsize=8)
  header = [figure.group or 'group', figure.x, 'mean', 'std', 'seeds']
  return header, rows, fits


def _points(axes: Any, at: Sequence[float], summary: outcomes.Summary) -> None:
  """The single seeds, and a whisker of one standard deviation."""
  axes.plot(at, summary.values, 'k.', markersize=4, alpha=0.6)
  if not math.isnan(summary.std):
    axes.errorbar(
      at[0], summary.mean, summary.std, color='k', capsize=4, linewidth=1
    )


def _known(value: float) -> float | None:
  return None if math.isnan(value) else value
