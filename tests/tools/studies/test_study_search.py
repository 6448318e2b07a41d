"""Runs that take the best of others: planned, chosen, resumed, reported."""

import csv
import json
import pathlib

import pytest

from big_vision_like.config import loading
from tests.tools.studies import studies_on_disk
from tools import study
from tools.studies import (
  choices,
  config_checks,
  plan,
  record,
  runner,
  search,
)


@pytest.fixture(autouse=True)
def fake_main(monkeypatch):
  monkeypatch.setattr(runner, 'PROGRAM', studies_on_disk.PROGRAM)
  monkeypatch.setattr(config_checks, 'check', lambda jobs: None)


def world(split, **options):
  return dict(type='synthetic', split=split, **options)


def candidate(rate, good, **more):
  """A run of a search at a rate, whose figure will be `good`."""
  overrides = {
    'schedule.lr': rate,
    'model.good': good,
    'evals.search': dict(type='classification', data=world('fasteval')),
    'evals.val.data': world('val'),
  }
  return dict(
    dict(name=f'rate_{rate}', seeds=[100], axes=dict(rate=rate), fake='r'),
    overrides=overrides,
    **more,
  )


def taker(name, runs, **more):
  best_of = dict(runs=[r['name'] for r in runs], metric='search/top1')
  return dict(
    name=name,
    overrides={'evals.val.data': world('val'), 'model.good': 0.0},
    best_of=best_of,
    **more,
  )


TABLE = dict(name='main', rows=['best'], columns=['val/top1'])
GOOD = {0.1: 30.0, 0.2: 50.0, 0.3: 40.0}


def write(folder, good=None, search=None, **taker_keys):
  """A search over rates from `pre`, and `best`, which takes from it."""
  search = search or [
    candidate(rate, value, start_from='pre')
    for rate, value in (good or GOOD).items()
  ]
  runs = [
    taker('best', search, **taker_keys),  # before what it waits for
    *search,
    dict(name='pre', seeds=[0]),
  ]
  return studies_on_disk.write(folder, runs=runs, seeds=[0, 1], tables=[TABLE])


def call(config, folder, *more):
  return study.main(
    ['--config', config, '--workdir', str(folder / 'out'), *more]
  )


def workdir(folder, run='best', seed=0):
  return folder / 'out' / 'runs' / run / f'seed{seed}'


def trained_at(folder, run='best', seed=0):
  """The rate of a run that was started; None if it was not."""
  path = workdir(folder, run, seed) / record.CONFIG
  return path.exists() and json.loads(path.read_text())['schedule']['lr']


def attempts(folder, run):
  seed = 100 if run.startswith('rate') else 0
  return len((workdir(folder, run, seed) / 'attempts').read_text())


def rows(folder, name):
  with (folder / 'out' / name).open(newline='') as file:
    return list(csv.DictReader(file))


def build(folder, **given):
  path = studies_on_disk.write(folder, **given)
  return plan.build(loading.load(path, '--config'), path, folder / 'out')


class TestChoice:
  """The best of some figures."""

  def best(self, figures, mode='max'):
    named = [
      choices.Candidate(name, value, '' if value is not None else 'failed')
      for name, value in figures.items()
    ]
    return choices.best(named, 'val/x', mode)

  def test_largest_or_smallest(self):
    figures = dict(a=2.0, b=5.0, c=-1.0)
    assert self.best(figures).run == 'b'
    assert self.best(figures, 'min').run == 'c'

  def test_of_equal_ones_the_first(self):
    found = self.best(dict(a=1.0, b=5.0, c=5.0))
    assert (found.run, found.tied) == ('b', ('c',))

  def test_failed_ones_do_not_count(self):
    found = self.best(dict(a=None, b=-5.0))
    assert found.run == 'b' and found.left_out == 'a (failed)'
    assert self.best(dict(a=None)).run == ''

  def test_border(self):
    axes = {
      name: dict(rate=rate, depth=depth, kind=kind, width=8)
      for name, rate, depth, kind in (
        ('a', 0.1, 50, 'x'), ('b', 0.3, 101, 'y'), ('c', 1.0, 101, 'y'),
      )
    }  # fmt: skip
    border = lambda run: choices.at_border(axes, run)
    assert border('a') == [
      'rate=0.1 is the smallest that was tried',
      'depth=50 is the smallest that was tried',
    ]
    assert border('b') == ['depth=101 is the largest that was tried']
    assert border('c')[0] == 'rate=1 is the largest that was tried'


class TestOneCommand:
  """Search first, then what takes from it."""

  def test_the_best_rate_and_its_start(self, tmp_path, capsys):
    assert call(write(tmp_path), tmp_path) == 0
    for seed in (0, 1):
      assert trained_at(tmp_path, seed=seed) == 0.2
    config = json.loads((workdir(tmp_path) / record.CONFIG).read_text())
    assert config['model']['good'] == 0.0  # its own overrides are on top
    assert 'search' not in config['evals']  # what is not trained is its own
    start = workdir(tmp_path, 'pre')
    assert config['init_from']['path'] == str(start)
    kept = json.loads((workdir(tmp_path) / record.RECORD).read_text())
    assert kept['choice'] == {
      'run': 'rate_0.2', 'metric': 'search/top1', 'mode': 'max',
      'figures': {'rate_0.1': 30.0, 'rate_0.2': 50.0, 'rate_0.3': 40.0},
    }  # fmt: skip
    said = capsys.readouterr()
    order = [l for l in said.out.splitlines() if ': finished in' in l]
    assert [line.split('] ')[1].split(':')[0] for line in order] == [
      'pre seed 0', 'rate_0.1 seed 100', 'rate_0.2 seed 100',
      'rate_0.3 seed 100', 'best seed 0', 'best seed 1',
    ]  # fmt: skip
    assert 'warning' not in said.err

  def test_a_second_command_has_nothing_to_do(self, tmp_path, capsys):
    config = write(tmp_path)
    assert call(config, tmp_path) == 0
    capsys.readouterr()
    assert call(config, tmp_path) == 0
    assert capsys.readouterr().out.count('had finished before') == 6
    assert attempts(tmp_path, 'best') == 1

  def test_only_pulls_the_search_in(self, tmp_path):
    assert call(write(tmp_path), tmp_path, '--only', 'best') == 0
    assert trained_at(tmp_path) == 0.2

  def test_a_config_of_the_chosen_run_alone(self, tmp_path):
    """Without one of its own; evaluators come with it."""
    search = [candidate(rate, value) for rate, value in GOOD.items()]
    config = write(tmp_path, search=search, config='')
    assert call(config, tmp_path) == 0
    given = json.loads((workdir(tmp_path) / record.CONFIG).read_text())
    assert given['schedule']['lr'] == 0.2 and 'search' in given['evals']
    assert given['model']['fake'] == 'r'

  def test_a_start_of_its_own(self, tmp_path):
    search = [
      candidate(rate, value, start_from='pre') for rate, value in GOOD.items()
    ]
    runs = [
      *search, dict(name='pre', seeds=[0]), dict(name='few', seeds=[0]),
      taker('best', search, start_from='few'),
      dict(name='after', start_from='best'),
    ]  # fmt: skip
    config = studies_on_disk.write(tmp_path, runs=runs, tables=[TABLE])
    assert call(config, tmp_path) == 0
    given = json.loads((workdir(tmp_path) / record.CONFIG).read_text())
    assert given['init_from']['path'] == str(workdir(tmp_path, 'few'))
    # What starts from it is of the training that was chosen, next time too.
    assert call(config, tmp_path) == 0
    assert attempts(tmp_path, 'after') == 1

  def test_a_start_that_is_searched(self, tmp_path):
    """Candidates differ in nothing but what they start from."""
    search = [
      dict(candidate(0.1, 5.0), name='from_a', start_from='a'),
      dict(candidate(0.1, 9.0), name='from_b', start_from='b'),
    ]
    search[1]['overrides']['model.good'] = 9.0
    runs = [
      dict(name='a', seeds=[0]), dict(name='b', seeds=[0]), *search,
      taker('best', search),
    ]  # fmt: skip
    config = studies_on_disk.write(tmp_path, runs=runs, tables=[TABLE])
    assert call(config, tmp_path) == 0
    given = json.loads((workdir(tmp_path) / record.CONFIG).read_text())
    assert given['init_from']['path'] == str(workdir(tmp_path, 'b'))


class TestFailures:
  """What fails is not chosen, and named."""

  @pytest.mark.parametrize(
    'fake, why',
    [('fail', 'failed (exit code 1)'), ('nan', 'search/top1 is not finite')],
  )
  def test_a_run_of_the_search(self, tmp_path, fake, why):
    search = [candidate(rate, value) for rate, value in GOOD.items()]
    search[1]['fake'] = fake
    code = call(write(tmp_path, search=search), tmp_path)
    assert code == (1 if fake == 'fail' else 0)
    assert trained_at(tmp_path) == 0.3
    states = {row['candidate']: row['state'] for row in rows(tmp_path, SEARCH)}
    assert states == {'rate_0.1': '', 'rate_0.2': why, 'rate_0.3': 'chosen'}

  def test_all_of_them(self, tmp_path, capsys):
    search = [candidate(rate, 1.0) for rate in GOOD]
    for run in search:
      run['fake'] = 'fail'
    assert call(write(tmp_path, search=search), tmp_path) == 1
    said = capsys.readouterr().out
    assert (
      'best seed 1: skipped (none of its search has a figure: rate_0.1 '
      '(failed (exit code 1)), rate_0.2'
    ) in said
    assert not trained_at(tmp_path)

  def test_a_figure_that_no_candidate_has(self, tmp_path, capsys):
    search = [candidate(rate, 1.0) for rate in GOOD]
    runs = [*search, taker('best', search)]
    runs[-1]['best_of']['metric'] = 'search/topp'
    config = studies_on_disk.write(tmp_path, runs=runs, tables=[TABLE])
    assert call(config, tmp_path) == 1
    said = capsys.readouterr()
    assert "rate_0.1 (has no figure 'search/topp')" in said.out
    assert "best_of of best: rate_0.1 has no figure 'search/topp'" in said.err

  def test_a_later_success_that_changes_the_choice(self, tmp_path, capsys):
    search = [candidate(rate, value) for rate, value in GOOD.items()]
    search[1]['fake'] = 'fail_once'
    runs = [*search, taker('best', search), dict(name='on', start_from='best')]
    config = studies_on_disk.write(tmp_path, runs=runs, tables=[TABLE])
    assert call(config, tmp_path) == 1
    assert trained_at(tmp_path) == 0.3
    assert call(config, tmp_path) == 1  # the search's run succeeds
    said = capsys.readouterr().out
    assert (
      'best seed 0: skipped (its folder holds a run of another config: '
    ) in said
    assert (
      'schedule.lr: 0.3 -> 0.2; best by search/top1: rate_0.3 (rate_0.1 30, '
      'rate_0.2 failed (exit code 1), rate_0.3 40) -> rate_0.2 (rate_0.1 30, '
      'rate_0.2 50, rate_0.3 40))'
    ) in said
    assert 'on seed 0: skipped (its folder holds a run of another' in said
    assert attempts(tmp_path, 'best') == attempts(tmp_path, 'on') == 1
    assert rows(tmp_path, 'main.csv')[0]['mean'] == ''  # not of that choice
    assert call(config, tmp_path) == 2  # known from the start
    err = capsys.readouterr().err
    assert 'best seed 0' in err and '  schedule.lr: 0.3 -> 0.2' in err
    assert 'rate_0.1' in err

  def test_a_search_that_was_stopped_is_not_over(self, tmp_path):
    path = write(tmp_path)
    assert call(path, tmp_path, '--only', 'rate_0.1', 'rate_0.2') == 0
    config = loading.load(path, '--config')
    jobs = plan.build(config, path, tmp_path / 'out').jobs
    for status, known in (('stopped', False), ('failed', True)):
      ended = {'rate_0.3 seed 100': runner.Outcome(status)}
      last = search.settle(jobs, ended)[-1]
      assert last.run.name == 'best' and last.is_known == known
      assert (last.choice is None) != known

  def test_figures_that_change_without_another_choice(self, tmp_path):
    config = write(tmp_path)
    assert call(config, tmp_path) == 0
    figures = workdir(tmp_path, 'rate_0.1', 100) / 'metrics.jsonl'
    figures.write_text(figures.read_text().replace('30.0', '49.0'))
    assert call(config, tmp_path) == 0
    figures.write_text(figures.read_text().replace('49.0', '51.0'))
    assert call(config, tmp_path) == 2
    assert attempts(tmp_path, 'best') == 1

  def test_a_folder_that_fits_no_candidate(self, tmp_path, capsys):
    """Of a rate given by hand before; found before anything runs."""
    by_hand = dict(name='best', overrides={'schedule.lr': 7.0})
    runs = [by_hand, dict(name='pre', seeds=[0])]
    config = studies_on_disk.write(tmp_path, runs=runs, seeds=[0, 1])
    assert call(config, tmp_path) == 0
    assert call(write(tmp_path), tmp_path) == 2
    assert 'schedule.lr: 7.0 -> 0.1' in capsys.readouterr().err
    assert not workdir(tmp_path, 'rate_0.1', 100).exists()


SEARCH = 'search.csv'


class TestReport:
  """The whole search, on the page and in a file."""

  def test_table_and_border(self, tmp_path, capsys):
    assert call(write(tmp_path, {0.1: 3.0, 0.2: 4.0}), tmp_path) == 0
    lines = rows(tmp_path, SEARCH)
    assert [(r['for'], r['candidate'], r['rate']) for r in lines] == [
      ('best', 'rate_0.1', '0.1'), ('best', 'rate_0.2', '0.2'),
    ]  # fmt: skip
    assert [(r['mean'], r['state']) for r in lines] == [
      ('3.0', ''), ('4.0', 'chosen'),
    ]  # fmt: skip
    page = (tmp_path / 'out' / 'report.html').read_text()
    border = 'rate=0.2 is the largest that was tried; search wider'
    assert '<h2>Search: best</h2>' in page and border in page
    assert 'seeds 100, scored on other images' in page
    assert 'fasteval' in page and '(max): rate_0.2 (4)' in page
    err = capsys.readouterr().err
    assert 'warning: search of best: the best, rate_0.2, is at the' in err

  def test_ties_are_said(self, tmp_path):
    assert call(write(tmp_path, {0.1: 3.0, 0.2: 4.0, 0.3: 4.0}), tmp_path) == 0
    states = [row['state'] for row in rows(tmp_path, SEARCH)]
    assert states == ['', 'chosen', 'as good; listed later']

  def test_without_a_search_there_is_no_file(self, tmp_path):
    config = studies_on_disk.write(tmp_path, runs=[dict(name='a')])
    assert call(config, tmp_path) == 0
    assert not (tmp_path / 'out' / SEARCH).exists()

  def test_dry_run(self, tmp_path, capsys):
    config = write(tmp_path)
    asked = 'best of rate_0.1, rate_0.2, rate_0.3 by search/top1 (max): '
    assert call(config, tmp_path, '--dry_run') == 0
    said = capsys.readouterr().out
    assert f'{asked}not yet known' in said and '6 of 6 to run' in said
    assert call(config, tmp_path, '--only', 'rate_0.1', 'rate_0.2') == 0
    assert call(config, tmp_path, '--dry_run') == 0
    assert f'{asked}not yet known' in capsys.readouterr().out
    assert call(config, tmp_path, '--only', 'rate_0.3') == 0
    assert call(config, tmp_path, '--dry_run') == 0
    assert f'{asked}rate_0.2 (50)' in capsys.readouterr().out


def best_of(*runs, **more):
  return dict(runs=list(runs), metric='search/top1', **more)


A, B = (candidate(rate, 1.0) for rate in (0.1, 0.2))
ON = {'evals.val.data': world('val')}


@pytest.mark.parametrize(
  'runs, words',
  [
    ([dict(name='x', best_of=best_of('y'))], "best_of.runs='y': no such run"),
    ([dict(name='x', best_of=best_of('x'))], 'in a circle'),
    ([A, dict(name='x', best_of=best_of('rate_0.1', mode='most'))],
     "mode='most'.*valid: max, min"),
    ([A, dict(name='x', best_of=best_of())], 'at least one'),
    ([A, dict(name='x', best_of=best_of('rate_0.1', 'rate_0.1'))], 'distinct'),
    ([A, dict(name='x', best_of=dict(runs=['rate_0.1']))],
     "best_of: 'metric' is missing"),
    ([A, dict(name='x', best_of=best_of('rate_0.1'), overrides=ON),
      dict(name='y', best_of=best_of('x'))], 'best of others itself'),
    ([A, dict(name='x', best_of=dict(runs=['rate_0.1'], metric='tst/x'))],
     "'tst'.*valid: search/..., val/"),
    ([A, dict(name='x', best_of=dict(runs=['rate_0.1'], metric='train/x'))],
     "no evaluator 'train'"),
    ([A, dict(A, name='b'), dict(name='x', best_of=best_of('rate_0.1', 'b'))],
     "'rate_0.1' and 'b' are the same training"),
    ([dict(name='a', config='')], "'config' is missing"),
  ],
)  # fmt: skip
def test_searches_that_cannot_be(tmp_path, runs, words):
  with pytest.raises((ValueError, FileNotFoundError), match=words):
    build(tmp_path, runs=runs)


def searched_on(data, reported, source=None, where='evals.search.data'):
  """Runs of a study that chooses on `data` and reports on `reported`."""
  search = [candidate(rate, 1.0) for rate in (0.1, 0.2)]
  for run in search:
    run['overrides'][where] = data
    if source is not None:
      run['overrides']['input.source'] = source
  run = taker('best', search)
  run['overrides'] = {'evals.val.data': reported}
  return [*search, run]


PART = dict(fraction=0.9)
REST = dict(fraction=0.9, rest=True)


@pytest.mark.parametrize(
  'data, reported',
  [
    (world('val'), world('val')),
    (world('val', num_images=5), world('val', num_images=90)),
    (world('val', image_size=32), world('val', seed=0, num_classes=100)),
    (world('val', subset=PART), world('val')),
    (world('val', subset=REST), world('val', subset=dict(fraction=0.8))),
    (dict(type='detect', path='a/b', split='val'),
     dict(type='records', path='./a/c/../b', split='val')),
    (dict(type='records', path='a'), dict(type='records', path='a',
                                          split='train')),
    (dict(type='feature_maps', path='m', data=world('val')), world('val')),
  ],
)  # fmt: skip
def test_what_is_reported_is_not_searched_on(tmp_path, data, reported):
  words = (
    r"'best': best_of.*: evals.search of 'rate_0.1' and evals.val of 'best', "
    'which table main reports, score the same images'
  )
  with pytest.raises(ValueError, match=words):
    build(tmp_path, runs=searched_on(data, reported), tables=[TABLE])
  build(tmp_path, runs=searched_on(data, reported))  # nothing is reported


@pytest.mark.parametrize(
  'data, reported',
  [
    (world('fasteval'), world('val')),
    (world('val', seed=3), world('val')),
    (world('train', subset=REST), world('val')),
    (world('val', subset=REST), world('val', subset=PART)),
    (dict(type='records', path='a'), dict(type='records', path='b')),
  ],
)
def test_other_images_may_be(tmp_path, data, reported):
  build(tmp_path, runs=searched_on(data, reported), tables=[TABLE])


def test_a_figure_of_the_search_itself_reports_it(tmp_path):
  figure = dict(
    name='f', kind='bars', metric='search/top1', runs=['rate_0.1', 'rate_0.2']
  )
  with pytest.raises(ValueError, match='which figure f reports'):
    build(
      tmp_path,
      runs=searched_on(world('fasteval'), world('val')),
      figures=[figure],
    )


def test_candidates_are_not_scored_on_what_they_are_trained_on(tmp_path):
  given = world('fasteval'), world('val')
  with pytest.raises(ValueError, match='scores the images that it is trained'):
    build(tmp_path, runs=searched_on(*given, source=world('fasteval')))
  held_out = world('train', subset=REST), world('val')
  build(
    tmp_path, runs=searched_on(*held_out, source=world('train', subset=PART))
  )


def test_figures_of_different_images_are_not_compared(tmp_path):
  runs = searched_on(world('fasteval'), world('val'))
  runs[1]['overrides']['evals.search.data'] = world('fasteval', seed=1)
  with pytest.raises(ValueError, match=r"'rate_0\.1' and of .* differ"):
    build(tmp_path, runs=runs)


def test_sections_of_different_keys_are_taken_whole(tmp_path):
  runs = searched_on(world('fasteval'), world('val'))
  for run, optim in zip(
    runs, (dict(type='sgd', clip=1.0), dict(type='adam', b1=0.5))
  ):
    run['overrides']['optim'] = optim
  job = build(tmp_path, runs=runs).runs['best'][0]
  one, other = job.variants.values()
  assert one.config['optim'] == {'type': 'sgd', 'clip': 1.0}
  assert other.config['optim'] == {'type': 'adam', 'b1': 0.5}
  assert pathlib.Path(other.workdir) == workdir(tmp_path)
