"""Study configs: what they ask for, and what is refused before a run starts."""

import importlib
import itertools

import pytest

from big_vision_like.config import loading
from configs import studies
from tests.conftest import ROOT
from tests.tools.studies import studies_on_disk
from tools import study
from tools.studies import plan

NAMES = sorted(
  p.stem
  for p in (ROOT / 'configs' / 'studies').glob('*.py')
  if '\ndef get_config' in p.read_text()  # others are parts of them
)


def build(folder, **given):
  path = studies_on_disk.write(folder, **given)
  config = loading.load(path, '--config')
  return plan.build(config, path, folder / 'out')


class TestJobs:
  """Runs become jobs, in an order in which they can start."""

  def test_each_after_the_one_it_starts_from(self, tmp_path):
    runs = [
      dict(name='d', start_from='c'), dict(name='c', start_from='b'),
      dict(name='a'), dict(name='b', start_from='a'),
    ]  # fmt: skip
    for order in itertools.permutations(runs):
      jobs = build(tmp_path, runs=list(order)).jobs
      assert [job.run.name for job in jobs] == ['a', 'b', 'c', 'd']
    last = jobs[-1]
    parent = last.parent.workdir
    assert last.config['init_from']['path'] == str(parent)
    assert parent == tmp_path / 'out' / 'runs' / 'c' / 'seed0'

  def test_the_same_seed_or_the_only_one(self, tmp_path):
    runs = [
      dict(name='many'), dict(name='one', seeds=[7]),
      dict(name='x', start_from='many', start_step=1200),
      dict(name='y', start_from='one'),
    ]  # fmt: skip
    jobs = build(tmp_path, runs=runs, seeds=[3, 4]).runs
    assert [job.parent.seed for job in jobs['x']] == [3, 4]
    assert [job.parent.seed for job in jobs['y']] == [7, 7]
    assert [job.config['seed'] for job in jobs['y']] == [3, 4]
    path = jobs['x'][1].config['init_from']['path']
    assert path.endswith('runs/many/seed4/checkpoints/1200')

  def test_overrides_reach_any_key(self, tmp_path):
    overrides = {
      'total_steps': None,
      'total_epochs': 2,
      'optim': dict(type='sgd', clip=1.5),
      'evals.val.batch_size': 9,
      'input.source.new_option': 'x',
      'input.ops': [dict(op='decode')],
    }
    jobs = build(tmp_path, runs=[dict(name='a', overrides=overrides)]).jobs
    config = jobs[0].config
    assert config['total_steps'] is None and config['total_epochs'] == 2
    assert config['optim'] == overrides['optim']
    assert config['evals']['val']['batch_size'] == 9
    assert config['input']['source'] == {'new_option': 'x'}
    assert config['input']['ops'] == [{'op': 'decode'}]

  def test_identity_is_that_of_the_training(self, tmp_path):
    def identity(**changes):
      run = dict(name='a', overrides=changes)
      return build(tmp_path, runs=[run]).jobs[0].identity

    same = [
      identity(), identity(log_every_steps=3), identity(**{'mesh.data': 2}),
      identity(**{'evals.val.batch_size': 1}), identity(**{'input.workers': 2}),
    ]  # fmt: skip
    assert len(set(same)) == 1
    others = [
      identity(total_steps=11), identity(**{'model.depth': 50}),
      identity(**{'input.fraction': 0.5}), identity(**{'optim.type': 'sgd'}),
    ]  # fmt: skip
    assert len({same[0], *others}) == 5

  def test_grid(self):
    assert studies.grid(n=(1, 2), mode=('x', 'y')) == [
      {'n': 1, 'mode': 'x'}, {'n': 1, 'mode': 'y'},
      {'n': 2, 'mode': 'x'}, {'n': 2, 'mode': 'y'},
    ]  # fmt: skip


SWEEP = dict(name='f', kind='sweep', metric='val/top1', x='n', log_x=True)


@pytest.mark.parametrize(
  'study_keys, words',
  [
    (dict(runs=[]), 'runs is empty'),
    (dict(runs=[dict(name='a')], seedz=[1]), "unknown key 'seedz' .*'seeds'"),
    (dict(runs=[dict(name='a', seeds=[])]), r'runs\[0\].seeds=\[\] must be'),
    (dict(runs=[dict(name='a')], seeds=[1, 1]), r'seeds=\(1, 1\) must be'),
    (dict(runs=[dict(name='a'), dict(name='A')]), "'A' stands twice"),
    (dict(runs=[dict(name='../a')]), "name='../a' names files"),
    (dict(runs=[dict(name='a', strat_from='b')]), "'strat_from' .*start_from"),
    (
      dict(runs=[dict(name='pre'), dict(name='a', start_from='pr')]),
      "start_from='pr': no such run .*'pre'",
    ),
    (
      dict(
        runs=[dict(name='a', start_from='b'), dict(name='b', start_from='a')]
      ),
      'in a circle',
    ),
    (
      dict(
        runs=[
          dict(name='a', seeds=[1, 2]),
          dict(name='b', seeds=[3], start_from='a'),
        ]
      ),
      r'seeds \[1, 2\]: neither seed 3 nor just one',
    ),
    (
      dict(runs=[dict(name='a', start_step=5)]),
      'start_step needs start_from',
    ),
    (
      dict(runs=[dict(name='a', overrides={'optm.lr': 1})]),
      "'a': 'optm.lr': the config has no section 'optm' .*'optim'",
    ),
    (
      dict(runs=[dict(name='a', overrides={'sed': 1})]),
      "'a': unknown config key 'sed' .*'seed'",
    ),
    (
      dict(runs=[dict(name='a', overrides={'total_steps': 'x'})]),
      "'total_steps' must be int",
    ),
    (
      dict(runs=[dict(name='a', config='no/such.py:tiny')]),
      "no config file 'no/such.py'",
    ),
    (
      dict(runs=[dict(name='a', config='configs/quickstart.py:size=3')]),
      "unknown config argument 'size'",
    ),
    (
      dict(
        runs=[dict(name='a')],
        tables=[dict(name='t', rows=['b'], columns=['val/top1'])],
      ),
      "table t: no run 'b'",
    ),
    (
      dict(
        runs=[dict(name='a')],
        tables=[dict(name='t', rows=['a'], columns=['vall/top1'])],
      ),
      "has no evaluator 'vall' .*'val'",
    ),
    (
      dict(
        runs=[dict(name='a')],
        tables=[dict(name='t', rows=['a'], columns=['val/x'], baseline='c')],
      ),
      "baseline='c' is no run of the rows",
    ),
    (
      dict(
        runs=[dict(name='a')],
        tables=[dict(name='t', rows=[{}], columns=['val/x'])],
      ),
      'needs a run, or a title and published',
    ),
    (
      dict(runs=[dict(name='a')], figures=[dict(SWEEP, kind='pie')]),
      "kind='pie'.*valid: curves, bars, sweep",
    ),
    (
      dict(runs=[dict(name='a')], figures=[dict(SWEEP, kind='bars')]),
      'other kinds have none',
    ),
    (dict(runs=[dict(name='a')], figures=[SWEEP]), "no run has the axis 'n'"),
    (
      dict(runs=[dict(name='a', axes={'n': 0})], figures=[SWEEP]),
      'is 0, no number above 0',
    ),
    (
      dict(
        runs=[dict(name='a', axes={'n': 1})],
        figures=[dict(SWEEP, group='mode')],
      ),
      "has no axis 'mode'; it has: n",
    ),
    (
      dict(runs=[dict(name='a')], tables=[dict(name='t', rows=['a'])]),
      "'columns' is missing",
    ),
    (
      dict(runs=[dict(name='a', axes=[1])]),
      r'axes must be a mapping, got \[1\]',
    ),
  ],
)
def test_mistakes_are_refused(tmp_path, study_keys, words):
  with pytest.raises((ValueError, FileNotFoundError), match=words):
    build(tmp_path, **study_keys)


@pytest.mark.parametrize(
  'args, words',
  [
    (
      ('--config', 'configs/quickstart.py'),
      "quickstart.py is no study: unknown key 'ckpt'",
    ),
    (('--config', 'no/such.py'), '--config=no/such.py: no config'),
    (('--config', 'notes.txt'), 'must be file.py'),
    (('--config', 'configs/studies/table1.py', '--jobs', '0'), '--jobs=0'),
    (
      ('--config', 'configs/studies/table1.py', '--only', 'scrath'),
      "no run 'scrath' (did you mean 'scratch'?)",
    ),
  ],
)
def test_command_line_mistakes(tmp_path, capsys, args, words):
  assert study.main([*args, '--workdir', str(tmp_path / 'out')]) == 2
  said = capsys.readouterr().err
  assert said.startswith('error: ') and words in said
  assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize('name', NAMES)
def test_every_study_plans(name, tmp_path):
  """At full size and tiny, from the repository's own configs."""
  module = importlib.import_module(f'configs.studies.{name}')
  assert f'configs/studies/{name}.py' in module.__doc__
  for arg in (None, 'tiny'):
    config = module.get_config(arg)
    assert config.is_locked
    planned = plan.build(config, f'{name}.py', tmp_path)
    assert planned.tables and planned.figures


class TestTable1:
  """configs/studies/table1.py."""

  def plan(self, arg, tmp_path):
    from configs.studies import table1

    config = table1.get_config(arg)
    return plan.build(config, 'table1.py', tmp_path).runs

  def test_the_recipes_of_the_paper_on_real_data(self, tmp_path):
    runs = self.plan('jft=/d/j,imagenet=/d/i', tmp_path)
    scratch, tuned = runs['scratch'][0].config, runs['tuned_jft'][0].config
    assert (scratch['total_steps'], scratch['schedule']['lr']) == (5e6, 0.05)
    assert (tuned['total_steps'], tuned['schedule']['lr']) == (4e6, 0.001)
    assert scratch['model']['depth'] == tuned['model']['depth'] == 101
    assert runs['jft'][0].config['total_steps'] == 36e6
    assert runs['tuned_jft'][0].parent is runs['jft'][0]
    assert runs['imagenet_jft'][0].parent is runs['scratch'][0]

  def test_a_checkpoint_in_place_of_pretraining(self, tmp_path):
    arg = 'imagenet=/d/i,jft_checkpoint=work/jft,weights=/w/r50,depth=50'
    runs = self.plan(arg, tmp_path)
    path = lambda name: runs[name][0].config['init_from']['path']
    assert path('tuned_jft') == './work/jft'
    assert path('tuned_weights') == '/w/r50'
    assert runs['frozen_jft'][0].config['model']['freeze'] == 'backbone'
    assert 'jft' not in runs and 'imagenet_jft' not in runs

  def test_arms_on_the_target_differ_in_start_rate_and_freezing(self, tmp_path):
    runs = self.plan(None, tmp_path)
    first = runs['scratch'][0].training
    started = {'init_from.path', 'init_from.ema', 'start_from'}
    assert not started & first.keys() - {'init_from.path'}
    allowed = {*started, 'model.freeze', 'schedule.lr'}
    for name in ('tuned_jft', 'tuned_imagenet', 'frozen_jft'):
      other = runs[name][0].training
      keys = first.keys() | other.keys()
      differ = {k for k in keys if first.get(k) != other.get(k)}
      assert 'start_from' in differ and differ <= allowed, name
    worlds = [
      runs[name][0].config['input']['source'].get('seed', 0)
      for name in ('jft', 'imagenet', 'scratch')
    ]
    assert len(set(worlds)) == 3

  @pytest.mark.parametrize(
    'arg, words',
    [
      ('jft=/d/j', 'need imagenet=DIR'),
      ('imagenet=/d/i', 'needs one of jft=DIR and jft_checkpoint=DIR'),
      ('images=0', 'images=0 must be at least 1'),
      ('jft_epochs=0', 'jft_epochs=0.0 must be > 0'),
      ('jft=/d/j,imagenet=/d/i,lr_jft=1', 'lr_jft is for the synthetic world'),
    ],
  )
  def test_impossible_arguments(self, arg, words, tmp_path):
    with pytest.raises(ValueError, match=words):
      self.plan(arg, tmp_path)
