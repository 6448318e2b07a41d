"""Runs a study: several runs, some starting from others, tables and figures.

  python -m tools.study --config configs/studies/table1.py --workdir DIR
  ... --jobs 2             two runs at a time
  ... --only scratch 300M  these runs, and those that they stand on
  ... --dry_run            what would run, and why; nothing is written

The same command goes on after any interruption: runs that have finished are
left alone, others resume. DIR gets runs/NAME/seedS, results.csv, a CSV a table
and figure, report.html. docs/studies.md says how to write a study.

Exit codes: 0 done; 1 a run failed, or has not the figures that are asked for;
2 a mistake in the command or a config; 130 Ctrl-C before anything ran; 143
stopped by a signal, runs saved.
"""

import argparse
import pathlib
import sys
from collections.abc import Sequence

from big_vision_like.config import loading
from big_vision_like.runtime import workdirs

from .cli import command
from .studies import (
  config_checks,
  plan,
  report,
  runner,
  search,
  search_report,
  tables,
)
from .studies import record as records
from .studies import results as outcomes
from .studies.jobs import Job
from .studies.progress import Progress

_FIGURES_SHOWN = 3  # on the line of a run


def parser() -> argparse.ArgumentParser:
  """The command line; every default is in its help."""
  p = argparse.ArgumentParser(
    prog=command.as_called('python -m tools.study'),
    description=command.as_called(__doc__),
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  add = p.add_argument
  add('--config', required=True, help='study: file.py or file.py:arguments')
  add('--workdir', required=True, help='folder of the study')
  add('--jobs', type=int, default=1, help='runs at a time; default: 1')
  add('--only', nargs='+', default=(), metavar='RUN', help='names of runs')
  add('--dry_run', action='store_true', help='only say what would run')
  command.add_trust(p)
  return p


def run(args: argparse.Namespace) -> int:
  """Carries out the command; returns the exit code."""
  if args.jobs < 1:
    raise ValueError(f'--jobs={args.jobs} must be at least 1')
  folder = pathlib.Path(args.workdir)
  config = loading.load(args.config, '--config', trusted=args.trust)
  study = plan.build(config, args.config, folder, trusted=args.trust)
  study = search.settled(study, {})
  jobs = plan.chosen(study, args.only)
  _refuse_changed(jobs)
  needed = records.to_do(jobs)
  config_checks.check([job for job in jobs if job.name in needed])
  if args.dry_run:
    _say_plan(jobs)
    return 0
  with workdirs.locked(folder):
    return _carry_out(study, jobs, args.jobs)


def _carry_out(
  study: plan.Study, jobs: Sequence[Job], num_parallel: int
) -> int:
  progress = Progress(jobs, num_parallel)

  def on_end(job: Job, outcome: runner.Outcome) -> None:
    figures = _figures(study, job) if outcome.good else ''
    progress.ended(job, outcome, figures)

  with runner.Stop() as stop:
    ended = runner.run(
      jobs,
      num_parallel=num_parallel,
      stop=stop,
      settle=search.settle,
      on_start=progress.started,
      on_end=on_end,
      on_wait=progress.waiting,
    )
    study = search.settled(study, ended)
    results, complaints = report.write(study, ended)
  for table in study.tables:
    progress.say(f'\n{tables.text(study, table, results)}')
  progress.say(f'\nreport  {study.folder / report.PAGE}')
  progress.say(f'runs    {study.folder / report.RESULTS}')
  for line in search_report.warnings(study):
    print(f'warning: {line}', file=sys.stderr)
  for line in complaints:
    print(f'error: {line}', file=sys.stderr)
  if stop.count:
    print('stopped; the same command goes on', file=sys.stderr)
    return runner.STOPPED
  bad = [name for name, outcome in ended.items() if not outcome.good]
  if bad:
    print(f'error: not done: {", ".join(bad)}', file=sys.stderr)
  return 1 if bad or complaints else 0


def _refuse_changed(jobs: Sequence[Job]) -> None:
  """A folder that holds another training is never mixed with this one."""
  changed = records.differences(jobs)
  if changed:
    where = {job.name: job.workdir for job in jobs}
    said = '\n'.join(
      f'{name} ({where[name]}):\n' + '\n'.join(lines)
      for name, lines in changed.items()
    )
    raise ValueError(
      'these folders hold runs of another config; take another --workdir, or '
      f'remove them to run anew:\n{said}'
    )


def _say_plan(jobs: Sequence[Job]) -> None:
  needed = records.to_do(jobs)
  for job in jobs:
    record = records.read(job)
    state = 'to run' if record is None else 'to resume'
    if job.name not in needed:
      state = 'has finished'
    start = f', starts from {" or ".join(job.parents)}' if job.parents else ''
    print(f'{job.name}: {state}{start}')
    overrides = [f'{k}={v!r}' for k, v in job.run.overrides.items()]
    what = ' '.join(filter(None, [job.run.config, *overrides]))
    if what:
      print(f'  {what}')
    if job.search:
      print(f'  {search_report.told(job)}')
  print(f'{len(needed)} of {len(jobs)} to run')


def _figures(study: plan.Study, job: Job) -> str:
  """The first figures of the study's tables that the job has."""
  metrics = dict.fromkeys(
    column.metric
    for table in study.tables
    if job.run.name in [row.run for row in table.rows]
    for column in table.columns
  )
  result = outcomes.of_job(job, {})
  given = [(m, result.figure(m)) for m in metrics]
  shown = [f'{m} {value:.4g}' for m, value in given if value is not None]
  return f'; {", ".join(shown[:_FIGURES_SHOWN])}' if shown else ''


def main(argv: Sequence[str] | None = None) -> int:
  args = parser().parse_args(argv)
  return command.run(lambda: run(args))


if __name__ == '__main__':
  sys.exit(main())
