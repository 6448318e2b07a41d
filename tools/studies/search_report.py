"""The searches of a study in its report: all candidates, and which was taken.

A best value at the border of those tried says little: what is best may lie
outside, so that is said beside it, and on the console.
"""

import dataclasses
import json
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from big_vision_like.pages import html_page

from . import choices, search_checks
from . import results as outcomes
from .entries import BestOf
from .jobs import Job
from .plan import Study
from .results import Result

TABLE = 'search.csv'


@dataclasses.dataclass(frozen=True)
class _Search:
  """A search and the runs that take from it.

  Attributes:
    best_of: of these runs.
    takers: their names.
    job: the first job of the first of them.
    axes: candidate -> what it differs in: its axes, or keys of its config.
  """

  best_of: BestOf
  takers: Sequence[str]
  job: Job
  axes: Mapping[str, Mapping[str, Any]]

  @property
  def chosen(self) -> str:
    """The candidate that was taken; '' if there is none so far."""
    return self.job.choice.run if self.job.choice else ''

  @property
  def names(self) -> list[str]:
    """Of all axes."""
    return list(dict.fromkeys(a for axes in self.axes.values() for a in axes))


def html(study: Study, results: Sequence[Result]) -> list[html_page.Markup]:
  """A table for each search, with what there is to say of it."""
  parts = []
  for search in _searches(study):
    metric = search.best_of.metric
    header = ['candidate', *search.names, metric, 'seeds', '']
    rows = []
    for run in search.best_of.runs:
      summary = outcomes.summarise(results, run, metric)
      rows.append(
        [
          run,
          *(_plain(search.axes[run].get(axis)) for axis in search.names),
          _shown(summary),
          f'{summary.num} of {summary.planned}',
          _state(search, run, results),
        ]
      )
    takers = ', '.join(study.title_of(name) for name in search.takers)
    parts += [
      html_page.element('h2', f'Search: {takers}'),
      html_page.table(header, rows),
      *(
        html_page.element('p', line, class_='bad') for line in _borders(search)
      ),
      html_page.element('p', _notes(study, search), class_='muted'),
    ]
  return parts


def write_csv(
  study: Study, results: Sequence[Result], folder: pathlib.Path
) -> None:
  """`search.csv`: a line a candidate of a search; none without a search."""
  searches = _searches(study)
  axes = list(dict.fromkeys(axis for s in searches for axis in s.names))
  rows = []
  for search in searches:
    for run in search.best_of.runs:
      summary = outcomes.summarise(results, run, search.best_of.metric)
      rows.append(
        [
          ' '.join(search.takers),
          run,
          *(_plain(search.axes[run].get(axis)) for axis in axes),
          search.best_of.metric,
          search.best_of.mode,
          summary.mean if summary.num else None,
          None if math.isnan(summary.std) else summary.std,
          summary.num,
          summary.planned,
          _state(search, run, results),
        ]
      )
  header = (
    'for', 'candidate', *axes, 'metric', 'mode', 'mean', 'std', 'seeds',
    'seeds_planned', 'state',
  )  # fmt: skip
  if searches:
    outcomes.write_csv(folder / TABLE, header, rows)


def warnings(study: Study) -> list[str]:
  """Lines for the console on searches that were too narrow."""
  return [
    f'search of {", ".join(search.takers)}: {line}'
    for search in _searches(study)
    for line in _borders(search)
  ]


def told(job: Job) -> str:
  """'best of a, b by val/ap (max): a', of a run with best_of."""
  best_of = job.run.best_of
  assert best_of is not None
  said = f'best of {", ".join(best_of.runs)} by {best_of.metric}'
  said += f' ({best_of.mode})'
  if job.choice is None:
    return f'{said}: not yet known'
  if not job.choice.run:
    return f'{said}: none has a figure'
  figures = {c.run: c.mean for c in job.choice.candidates}
  return f'{said}: {job.choice.run} ({figures[job.choice.run]:.4g})'


def _searches(study: Study) -> list[_Search]:
  """Each once, whoever takes from it."""
  takers: dict[tuple, list[str]] = {}
  for name, jobs in study.runs.items():
    if (best_of := jobs[0].run.best_of) is not None:
      key = (tuple(best_of.runs), best_of.metric, best_of.mode)
      takers.setdefault(key, []).append(name)
  found = []
  for names in takers.values():
    job = study.runs[names[0]][0]
    assert job.run.best_of is not None
    axes = _axes([study.runs[run][0] for run in job.run.best_of.runs])
    found.append(_Search(job.run.best_of, names, job, axes))
  return found


def _axes(candidates: Sequence[Job]) -> dict[str, dict[str, Any]]:
  """What tells candidates apart: their axes, or else keys of their configs."""
  keys = search_checks.differing([job.config for job in candidates])
  return {
    job.run.name: dict(job.run.axes)
    or {key: search_checks.at(job.config, key) for key in keys}
    for job in candidates
  }


def _borders(search: _Search) -> list[str]:
  if not search.chosen:
    return []
  lines = choices.at_border(search.axes, search.chosen)
  return [
    f'the best, {search.chosen}, is at the border: {line}; search wider'
    for line in lines
  ]


def _state(search: _Search, run: str, results: Sequence[Result]) -> str:
  """'chosen', '', or why a candidate does not count."""
  choice = search.job.choice
  if choice is not None:
    if run == choice.run:
      return 'chosen'
    why = next(c.why for c in choice.candidates if c.run == run)
    return 'as good; listed later' if run in choice.tied else why
  of_run = [r.status for r in results if r.job.run.name == run]
  return next((s for s in of_run if s != 'finished'), '')


def _notes(study: Study, search: _Search) -> str:
  """What the figure is, of which images, and what was done with it."""
  best_of = search.best_of
  evaluator = best_of.metric.partition('/')[0]
  entry = study.runs[best_of.runs[0]][0].config['evals'][evaluator]
  data = json.dumps(entry.get('data'), sort_keys=True)
  large = 'largest' if best_of.mode == 'max' else 'smallest'
  said = f'The {large} mean over seeds is best. '
  if not search.chosen:
    said += (
      'None has a figure. ' if search.job.choice else 'Not all have ended. '
    )
  seeds = sorted({job.seed for run in best_of.runs for job in study.runs[run]})
  return (
    f'{said}Not among the results: seeds {", ".join(map(str, seeds))}, scored '
    f'on other images than any table or figure, {data}.'
  )


def _shown(summary: outcomes.Summary) -> str:
  if not summary.num:
    return 'missing'
  more = '' if math.isnan(summary.std) else f' ± {summary.std:.3g}'
  return f'{summary.mean:.4g}{more}'


def _plain(value: Any) -> Any:
  """A cell: a number or words."""
  return value if isinstance(value, int | float | str) else json.dumps(value)
