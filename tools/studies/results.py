"""What came out of the jobs: figures at the end, curves, statistics.

The end is the last line of a figure in metrics.jsonl. Only finished jobs
count; what is missing stays a gap, with its reason.
"""

import csv
import dataclasses
import math
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from big_vision_like.pages import metrics_plot
from input_pipeline.files import atomic

from . import plan
from . import record as records
from .jobs import Job
from .plan import Study
from .runner import Outcome

Curve = tuple[np.ndarray, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Result:
  """What is known of a job.

  Attributes:
    job: the job.
    status: 'finished', or why there are no figures.
    curves: metric -> (steps int [n], values float [n]); empty unless finished.
    record: of its folder, if it has one.
  """

  job: Job
  status: str
  curves: Mapping[str, Curve]
  record: records.Record | None

  def figure(self, metric: str) -> float | None:
    """The figure at the end; None if there is none, NaN if not finite."""
    if metric not in self.curves:
      return None
    return float(self.curves[metric][1][-1])

  @property
  def step(self) -> int | None:
    """The last step with a figure."""
    steps = [int(steps[-1]) for steps, _ in self.curves.values()]
    return max(steps) if steps else None


@dataclasses.dataclass(frozen=True)
class Summary:
  """A figure over the seeds of a run.

  Attributes:
    mean: of those that finished; NaN without any.
    std: sample standard deviation (n - 1); NaN with fewer than two.
    num: seeds with a figure.
    planned: seeds of the run.
    values: the figures themselves.
  """

  mean: float
  std: float
  num: int
  planned: int
  values: tuple[float, ...]


def collect(study: Study, ended: Mapping[str, Outcome]) -> list[Result]:
  """Results of all jobs, in the order of the config.

  Args:
    study: the study.
    ended: how jobs of this command ended, by name.
  """
  return [of_job(j, ended) for jobs in study.runs.values() for j in jobs]


def of_job(job: Job, ended: Mapping[str, Outcome]) -> Result:
  """What the folder of a job holds; nothing if it is of another training."""
  record = records.read(job)
  outcome = ended.get(job.name)
  other = outcome is not None and outcome.status == 'skipped'
  if records.is_finished(job, record) and not other:
    return Result(job, 'finished', metrics_plot.read(job.workdir), record)
  return Result(job, _why(job, record, ended), {}, record)


def _why(
  job: Job, record: records.Record | None, ended: Mapping[str, Outcome]
) -> str:
  """Why a job has no figures."""
  outcome = ended.get(job.name)
  if outcome is not None:
    reason = f' ({outcome.reason})' if outcome.reason else ''
    return f'{outcome.status}{reason}'
  if record is None:
    return 'not run'
  return 'not finished' if record.exit_code in (None, 0) else 'failed before'


def summarise(results: Sequence[Result], run: str, metric: str) -> Summary:
  """A run's figure at the end, over its seeds."""
  of_run = [r for r in results if r.job.run.name == run]
  given = [r.figure(metric) for r in of_run if r.status == 'finished']
  values = tuple(v for v in given if v is not None)
  many = np.asarray(values, np.float64)
  return Summary(
    mean=float(many.mean()) if len(values) else math.nan,
    std=float(many.std(ddof=1)) if len(values) > 1 else math.nan,
    num=len(values),
    planned=len(of_run),
    values=values,
  )


def gain(of: Summary, over: Summary) -> tuple[float, float]:
  """Difference of two means and its standard error (unequal variances).

  NaN where a mean is missing, or for the error with fewer than two seeds.
  """
  if not (of.num and over.num):
    return math.nan, math.nan
  error = math.nan
  if of.num > 1 and over.num > 1:
    error = math.sqrt(of.std**2 / of.num + over.std**2 / over.num)
  return of.mean - over.mean, error


def wanted(study: Study) -> list[tuple[str, str, str]]:
  """(table, figure or search, run, metric) of all that the study tells."""
  found = [
    (f'best_of of {name}', run, best_of.metric)
    for name, jobs in study.runs.items()
    if (best_of := jobs[0].run.best_of) is not None
    for run in best_of.runs
  ]
  return [*plan.reported(study), *found]


def missing_figures(study: Study, results: Sequence[Result]) -> list[str]:
  """Messages on metrics that finished runs do not have: misspelt ones."""
  lines = []
  for where, run, metric in wanted(study):
    for result in results:
      finished = result.job.run.name == run and result.status == 'finished'
      if finished and metric not in result.curves:
        valid = ', '.join(sorted(result.curves))
        lines.append(f'{where}: {run} has no figure {metric!r}; it has {valid}')
        break
  return lines


def write_csv(
  path: pathlib.Path, header: Sequence[str], rows: Iterable[Sequence[Any]]
) -> None:
  """Writes a table; None is an empty cell, NaN is 'nan'."""
  with atomic.writing_text(path) as file:
    writer = csv.writer(file, lineterminator='\n')
    writer.writerow(header)
    for row in rows:
      writer.writerow(row)


def write_all(path: pathlib.Path, results: Sequence[Result]) -> None:
  """results.csv: a row a job, a column a figure at the end."""
  axes = list(dict.fromkeys(a for r in results for a in r.job.run.axes))
  metrics = sorted(
    {
      name
      for result in results
      for name in result.curves
      if not name.startswith('train/') or name == 'train/loss'
    }
  )
  header = ['run', 'seed', 'status', 'start_from', *axes, 'step', 'seconds']
  rows = [
    [
      r.job.run.name,
      r.job.seed,
      r.status,
      r.job.parent.name if r.job.parent else '',
      *(r.job.run.axes.get(axis) for axis in axes),
      r.step,
      round(r.record.seconds, 1) if r.record else None,
      *(r.figure(name) for name in metrics),
    ]
    for r in results
  ]
  write_csv(path, [*header, *metrics], rows)
