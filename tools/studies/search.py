"""Open jobs become what their search has chosen, as its runs end."""

import dataclasses
import math
from collections.abc import Mapping, Sequence

from . import choices
from . import results as outcomes
from .choices import Candidate, Choice
from .entries import BestOf
from .jobs import Job
from .plan import Study
from .results import Result
from .runner import Outcome


def settle(jobs: Sequence[Job], ended: Mapping[str, Outcome]) -> list[Job]:
  """The jobs as far as they are known, in the same order.

  A search is over when every one of its jobs has finished, or has ended in this
  command. Where none of them has a figure the job stays open, with a choice
  that says so.

  Args:
    jobs: each after those that it stands on.
    ended: how jobs of this command ended, by name.
  """
  now: dict[str, Job] = {}
  known: dict[tuple, Choice | None] = {}
  for job in jobs:
    if job.variants:
      best_of = job.run.best_of
      assert best_of is not None
      key = (tuple(best_of.runs), best_of.metric, best_of.mode)
      if key not in known:
        known[key] = _choice(best_of, [now[j.name] for j in job.search], ended)
      job = _as_chosen(job, known[key])
    parent = job.parent
    if parent is not None and now[parent.name] is not parent:
      job = dataclasses.replace(job, parent=now[parent.name])
    now[job.name] = job
  return list(now.values())


def settled(study: Study, ended: Mapping[str, Outcome]) -> Study:
  """The study with its jobs settled; see `settle`."""
  jobs = settle(study.jobs, ended)
  now = {job.name: job for job in jobs}
  runs = {
    name: [now[job.name] for job in of_run]
    for name, of_run in study.runs.items()
  }
  return dataclasses.replace(study, jobs=jobs, runs=runs)


def weigh(best_of: BestOf, results: Sequence[Result]) -> Choice:
  """The best candidate by what is there.

  Args:
    best_of: the search.
    results: of all jobs of the candidates.
  """
  candidates = []
  for run in best_of.runs:
    of_run = [r for r in results if r.job.run.name == run]
    why = next(filter(None, (_why(r, best_of.metric) for r in of_run)), '')
    mean = outcomes.summarise(of_run, run, best_of.metric).mean
    candidates.append(Candidate(run, None if why else mean, why))
  return choices.best(candidates, best_of.metric, best_of.mode)


def _why(result: Result, metric: str) -> str:
  """Why a job has no figure to compare; '' if it has."""
  if result.status != 'finished':
    return result.status
  value = result.figure(metric)
  if value is None:
    return f'has no figure {metric!r}'
  return '' if math.isfinite(value) else f'{metric} is not finite'


def _choice(
  best_of: BestOf, jobs: Sequence[Job], ended: Mapping[str, Outcome]
) -> Choice | None:
  """None while the search goes on."""
  results = [outcomes.of_job(job, ended) for job in jobs]
  for result in results:
    outcome = ended.get(result.job.name)
    goes_on = outcome is None or outcome.status == 'stopped'
    if result.status != 'finished' and goes_on:
      return None
  return weigh(best_of, results)


def _as_chosen(job: Job, choice: Choice | None) -> Job:
  if choice is None:
    return job
  if not choice.run:
    return dataclasses.replace(job, choice=choice)
  return dataclasses.replace(job.variants[choice.run], choice=choice)
