"""Curves of one or several runs: metrics.jsonl to a PNG.

One panel a key, one colour a run. Training figures are drawn faint as they
are and bold as a running mean. Lines that a killed run left torn are reported
and left out; where a step stands twice, after a resume, the later line counts,
and what was trained anew under another config is not drawn.
"""

import math
import os
import pathlib
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from big_vision_like.runtime import figures
from big_vision_like.runtime.figures import METRICS
from input_pipeline.files import atomic

X_AXES = ('step', 'examples', 'hours')
_TRAIN = 'train/'
_SMOOTH_FROM = 20  # points; fewer are drawn as they are
_MAX_PANELS = 12
_Curve = tuple[np.ndarray, np.ndarray]


def read(workdir: str | os.PathLike[str]) -> dict[str, _Curve]:
  """Metric name -> (steps ascending, values); NaN where it was not finite.

  Raises:
    FileNotFoundError: no metrics.jsonl there.
    ValueError: it holds no figures.
  """
  path = pathlib.Path(workdir) / METRICS
  if not path.is_file():
    raise FileNotFoundError(f'{path}: no such file; is {workdir} a workdir?')
  records = []
  lines = path.read_bytes().split(b'\n')
  for number, line in enumerate(lines, 1):
    if not line.strip():
      continue
    record = figures.parse(line)
    if record is None:
      _warn(f'{path}:{number}: torn line left out')
    else:
      records.append(record)
  values: dict[str, dict[int, float]] = {}
  for record in figures.counting(records):
    for key, value in record.items():
      if key != 'step' and (value is None or isinstance(value, int | float)):
        number_or_nan = math.nan if value is None else float(value)
        values.setdefault(key, {})[record['step']] = number_or_nan
  if not values:
    raise ValueError(f'{path}: no figures yet')
  curves = {}
  for key, by_step in values.items():
    steps = np.array(sorted(by_step))
    curves[key] = steps, np.array([by_step[s] for s in steps])
  return curves


def plot(
  workdirs: Sequence[str | os.PathLike[str]],
  keys: Sequence[str] | None = None,
  out: str | os.PathLike[str] | None = None,
  x: str = 'step',
) -> pathlib.Path:
  """Draws the runs into one PNG.

  Args:
    workdirs: folders with a metrics.jsonl.
    keys: metric names, one panel each; None: train/loss and the evaluators'
      figures, at most 12.
    out: the PNG; None: metrics.png in the first workdir.
    x: 'step', 'examples' seen, or 'hours' of training.

  Returns:
    Path of the PNG.

  Raises:
    FileNotFoundError: no metrics.jsonl.
    ValueError: a key or x axis that no run has; lists the valid ones.
  """
  from matplotlib.backends.backend_agg import FigureCanvasAgg
  from matplotlib.figure import Figure

  if x not in X_AXES:
    raise ValueError(f'x={x!r}; valid: {", ".join(X_AXES)}')
  runs = {name: read(w) for name, w in zip(_names(workdirs), workdirs)}
  keys = _default_keys(runs) if keys is None else list(keys)
  known = sorted({key for run in runs.values() for key in run})
  for key in keys:
    if key not in known:
      raise ValueError(f'no metric {key!r}; valid: {", ".join(known)}')
  num_columns = min(len(keys), 1 if len(keys) == 1 else 2 + (len(keys) > 4))
  num_rows = -(-len(keys) // num_columns)
  figure = Figure((5 * num_columns, 3.4 * num_rows), layout='constrained')
  panels = figure.subplots(num_rows, num_columns, squeeze=False).flat
  for key, axes in zip(keys, panels):
    for position, (name, run) in enumerate(runs.items()):
      if key in run:
        steps, values = run[key]
        _draw(axes, key, _positions(run, steps, x), values, name, position)
    axes.set_title(key, fontsize=10)
    axes.set_xlabel('training hours' if x == 'hours' else x, fontsize=9)
    axes.tick_params(labelsize=8)
    axes.grid(alpha=0.25)
  for axes in figure.axes[len(keys) :]:
    axes.set_axis_off()
  if len(runs) > 1:
    figure.legend(
      handles=_legend(runs),
      loc='outside upper center',
      fontsize=9,
      ncols=min(len(runs), 4),
    )
  path = pathlib.Path(out) if out else pathlib.Path(workdirs[0], 'metrics.png')
  with atomic.writing(path) as file:
    FigureCanvasAgg(figure).print_png(file)
  return path


def smooth(values: np.ndarray) -> np.ndarray:
  """Centred running mean over a twentieth of the points, NaNs left out."""
  window = max(1, len(values) // 20)
  kernel = np.ones(2 * window + 1)
  finite = np.isfinite(values)
  total = np.convolve(np.where(finite, values, 0), kernel)[window:-window]
  count = np.convolve(finite, kernel)[window:-window]
  mean = np.full(len(values), np.nan)
  np.divide(total, count, out=mean, where=count > 0)
  return mean


def _positions(run: dict[str, _Curve], steps: np.ndarray, x: str) -> np.ndarray:
  """The x axis of a run's steps, interpolated from its training lines."""
  if x == 'step':
    return steps
  if 'train/examples' not in run:
    raise ValueError(f'x={x!r} needs train/examples in {METRICS}')
  known, examples = run['train/examples']
  amount = examples
  if x == 'hours':
    if 'train/images_per_s' not in run:
      raise ValueError(f'x={x!r} needs train/images_per_s in {METRICS}')
    rate = np.interp(known, *run['train/images_per_s'])
    amount = np.cumsum(np.diff(examples, prepend=0) / rate) / 3600
  return np.interp(steps, np.r_[0, known], np.r_[0, amount])


def _draw(axes, key, at, values, name, position) -> None:
  colour = f'C{position % 10}'
  if not key.startswith(_TRAIN):
    axes.plot(at, values, color=colour, marker='o', markersize=3, label=name)
  elif len(values) < _SMOOTH_FROM or key == 'train/lr':
    axes.plot(at, values, color=colour, label=name)
  else:
    axes.plot(at, values, color=colour, alpha=0.25, linewidth=0.8)
    axes.plot(at, smooth(values), color=colour, linewidth=1.6, label=name)


def _legend(runs: dict[str, Any]) -> list[Any]:
  from matplotlib.lines import Line2D

  return [
    Line2D([], [], color=f'C{i % 10}', label=name)
    for i, name in enumerate(runs)
  ]


def _default_keys(runs: dict[str, dict[str, _Curve]]) -> list[str]:
  found = dict.fromkeys(key for run in runs.values() for key in run)
  chosen = [k for k in found if k == 'train/loss']
  chosen += [
    k
    for k in found
    if not k.startswith(_TRAIN) and not k.split('/')[-1].startswith('num_')
  ]
  return chosen[:_MAX_PANELS] or list(found)[:_MAX_PANELS]


def _names(workdirs: Sequence[str | os.PathLike[str]]) -> list[str]:
  """Short names of the runs; their paths where those are not unique."""
  if not workdirs:
    raise ValueError('no workdir to plot')
  short = [pathlib.Path(w).resolve().name for w in workdirs]
  if len(set(short)) == len(short):
    return short
  paths = [os.fspath(w) for w in workdirs]
  if len(set(paths)) < len(paths):
    raise ValueError(f'the same workdir twice: {", ".join(paths)}')
  return paths


def _warn(text: str) -> None:
  print(text, file=sys.stderr)
