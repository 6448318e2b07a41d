"""The report of a study: one HTML page, CSVs and pictures beside it.

It holds what one needs to believe the numbers and to get them again: tables
and figures, every run with its state, commands, configs, versions, machine.
"""

import base64
import html
import json
import pathlib
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from big_vision_like.config import expected
from big_vision_like.pages import html_page
from big_vision_like.runtime.clock import duration

from ..cli import command
from . import figures, runner, search_report, tables
from . import record as records
from . import results as outcomes
from .figures import Drawn
from .jobs import Job
from .plan import Study
from .results import Result

PAGE = 'report.html'
RESULTS = 'results.csv'
_WIDTH = 640  # of a figure on the page, in pixels


def write(
  study: Study, ended: Mapping[str, runner.Outcome]
) -> tuple[list[Result], list[str]]:
  """Writes everything below the study's folder that is not a run.

  Args:
    study: the study.
    ended: how jobs of this command ended.

  Returns:
    The results, and messages on figures that the runs do not have.
  """
  study.folder.mkdir(parents=True, exist_ok=True)
  results = outcomes.collect(study, ended)
  outcomes.write_all(study.folder / RESULTS, results)
  parts: list[Any] = [_paragraphs(study.text), _state(results)]
  for table in study.tables:
    tables.write_csv(study, table, results, study.folder)
    parts.append(tables.html(study, table, results))
  for figure in study.figures:
    drawn = figures.draw(study, figure, results, study.folder)
    parts.append(html_page.element('h2', figure.title or figure.name))
    parts.append(_paragraphs(figure.text))
    parts.append(_picture(drawn.path, figure.title or figure.name))
    parts.append(_caption(drawn, figure.log_x))
  search_report.write_csv(study, results, study.folder)
  parts += search_report.html(study, results)
  parts += [_runs(study, results), _how(study, results), _configs(study)]
  html_page.save(str(study.folder / PAGE), study.title, *parts)
  return results, outcomes.missing_figures(study, results)


def _paragraphs(text: str) -> html_page.Markup:
  return html_page.Markup(
    ''.join(
      html_page.element('p', part.strip())
      for part in text.split('\n\n')
      if part.strip()
    )
  )


def _state(results: Sequence[Result]) -> html_page.Markup:
  """How much of the study is there."""
  num = sum(r.status == 'finished' for r in results)
  if num == len(results):
    return html_page.element('p', f'All {num} runs have finished.')
  others = Counter(
    r.status.partition(' (')[0] for r in results if r.status != 'finished'
  )
  said = ', '.join(f'{n} {status}' for status, n in others.items())
  return html_page.element(
    'p', f'{num} of {len(results)} runs have finished; {said}.', class_='bad'
  )


def _picture(path: pathlib.Path, alt: str) -> html_page.Markup:
  """The PNG as it is: lines and letters suffer from JPEG."""
  data = base64.b64encode(path.read_bytes()).decode()
  return html_page.Markup(
    f'<img src="data:image/png;base64,{data}" alt="{html.escape(alt)}" '
    f'width="{_WIDTH}">'
  )


def _caption(drawn: Drawn, log_x: bool) -> html_page.Markup:
  lines = []
  for group, line in drawn.fits.items():
    per = 'a factor of ten' if log_x else 'a unit'
    lines.append(
      f'{f"{group}: " if group else ""}{line.slope:+.3g} for {per}, '
      f'R² {line.r2:.3f} (least squares of {line.num} means)'
    )
  if drawn.missing:
    lines.append(f'missing: {"; ".join(drawn.missing)}')
  return html_page.element(
    'p', *(html_page.element('span', line, ' ') for line in lines),
    class_='muted',
  )  # fmt: skip


def _runs(study: Study, results: Sequence[Result]) -> html_page.Markup:
  """Every job: state, time, the figures that the study is about."""
  metrics = list(
    dict.fromkeys(metric for _, _, metric in outcomes.wanted(study))
  )
  header = ['run', 'seed', 'state', 'starts from', 'step', 'time', *metrics]
  rows = []
  for result in results:
    job, record = result.job, result.record
    good = result.status == 'finished'
    rows.append(
      [
        job.run.name,
        job.seed,
        result.status
        if good
        else html_page.element('span', result.status, class_='bad'),
        _start(job),
        '' if result.step is None else result.step,
        duration(record.seconds) if record and record.seconds else '',
        *(_figure(result, name) for name in metrics),
      ]
    )
  return html_page.Markup(
    html_page.element('h2', 'Runs')
    + html_page.table(header, rows)
    + html_page.element(
      'p', f'All figures of all runs are in {RESULTS}.', class_='muted'
    )
    + _expected(results)
  )


def _start(job: Job) -> str:
  if job.parent is not None:
    step = job.run.start_step
    return f'{job.parent.name}{f", step {step}" if step else ""}'
  return job.config['init_from']['path'] or ''


def _figure(result: Result, metric: str) -> str:
  value = result.figure(metric)
  return '' if value is None else f'{value:.4g}'


def _expected(results: Sequence[Result]) -> html_page.Markup:
  """What the runs' own configs say should come out (config.expected)."""
  rows = [
    [r.job.name, metric, expected.shown(value), _figure(r, metric) or 'missing']
    for r in results
    for metric, value in r.job.config['expected'].items()
  ]
  if not rows:
    return html_page.Markup('')
  return html_page.Markup(
    html_page.element('h2', 'Expected by the configs of the runs')
    + html_page.table(['run', 'metric', 'expected', 'got'], rows)
  )


def _how(study: Study, results: Sequence[Result]) -> html_page.Markup:
  """Commands, machine and versions."""
  whole = [*command.as_called('python -m tools.study').split(), '--config']
  whole += [study.source]
  whole += ['--workdir', str(study.folder)]
  lines = [shlex.join(whole), '']
  lines += [runner.shown(job) for job in study.jobs]
  known = [r.record for r in results if r.record and r.record.machine]
  places = dict.fromkeys(record.machine for record in known)
  rows = [['machine', machine] for machine in places]
  for name in records.versions():
    found = dict.fromkeys(r.versions[name] for r in known if name in r.versions)
    rows.append([name, ', '.join(found)])
  parts = [
    html_page.element('h2', 'Commands'),
    html_page.element('p', 'All of it, then each run alone:'),
    html_page.element('pre', '\n'.join(lines)),
    html_page.element('h2', 'Machine and versions'),
    html_page.table(['', 'of the runs'], rows),
  ]
  return html_page.Markup('\n'.join(parts))


def _configs(study: Study) -> html_page.Markup:
  """What each run is, and its whole config to unfold."""
  parts = [html_page.element('h2', 'Configs')]
  for name, jobs in study.runs.items():
    run, config = jobs[0].run, jobs[0].config
    said = [f'{name}: {run.config}'.rstrip()]
    said += [f'{key}={value!r}' for key, value in run.overrides.items()]
    said += [f'({search_report.told(jobs[0])})'] if run.best_of else []
    parts.append(
      html_page.element(
        'details',
        html_page.element('summary', ' '.join(said)),
        html_page.element('pre', json.dumps(config, indent=1, sort_keys=True)),
      )
    )
  return html_page.Markup('\n'.join(parts))
