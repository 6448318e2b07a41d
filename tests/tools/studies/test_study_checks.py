"""What a study refuses before it runs: configs that could not start."""

import json

import pytest

from tests import tiny
from tools import study

_RUN = """
import json
from configs import common

def get_config(arg=None):
  c = common.base()
  with c.unlocked(), c.ignore_type():
    c.update(json.loads({text!r}))
  return c
"""


@pytest.fixture
def refused(tmp_path, capsys):
  """Plans the tiny run with overrides, or a run of this text; what it says."""
  run = tmp_path / 'run.py'
  run.write_text(_RUN.format(text=tiny.config().to_json()))

  def plan(overrides=None, text=None, code=2, **keys):
    if text is not None:
      run.write_text(text)
    runs = [dict(name='a', config=str(run), overrides=overrides or {}, **keys)]
    path = tmp_path / 'study.py'
    path.write_text(
      'import json\nfrom configs import studies\n\n'
      'def get_config(arg=None):\n'
      '  c = studies.base("A study")\n'
      f'  c.runs = json.loads({json.dumps(runs)!r})\n'
      '  return c\n'
    )
    out = tmp_path / 'out'
    arguments = ['--config', str(path), '--workdir', str(out), '--dry_run']
    assert study.main(arguments) == code
    assert not out.exists()
    said = capsys.readouterr()
    return said.err if code else said.out

  return plan


def test_a_good_config_passes(refused):
  """Also one for more devices than there are, on an accelerator."""
  several = {'mesh.model': 4, 'mesh.data': 16, 'input.batch_size': 64}
  said = refused({**several, 'device': 'tpu', 'total_steps': 7}, code=0)
  assert '1 of 1 to run' in said


@pytest.mark.parametrize('name', ['table1', 'figure6'])
def test_the_studies_here_pass(name, tmp_path, capsys):
  path = f'configs/studies/{name}.py:tiny'
  arguments = ['--config', path, '--workdir', str(tmp_path), '--dry_run']
  assert study.main(arguments) == 0
  assert 'to run' in capsys.readouterr().out


def test_streams_are_checked_on_labels_of_their_own(refused, monkeypatch):
  monkeypatch.syspath_prepend('tests/fixtures')
  photos = dict(
    source=dict(type='synthetic'),
    ops=[*OPS_2, dict(op='single_label')],
    batch_size=8,
  )
  two = {
    'task': dict(type='my_package.my_streams_task'),
    'input.also': dict(photos=photos),
    'evals.fasteval.stream': 'photos',
  }
  assert '1 of 1 to run' in refused(two, code=0)
  for changes, words in (
    ({'evals.fasteval.stream': 'photo'}, "evals.fasteval.stream='photo'"),
    ({'input.also.photos.source.num_img': 3}, 'input.also.photos.source: unk'),
    ({'input.also.photos.ops': OPS}, 'input.also.photos.ops[1] (resize): unk'),
  ):
    said = refused({**two, **changes})
    assert said.startswith("error: runs, 'a': ") and words in said


OPS = [dict(op='decode'), dict(op='resize', size=16, sise=3)]
OPS_2 = [dict(op='decode'), dict(op='resize', size=16)]
ELSEWHERE = dict(type='records', path='no/such/place')


@pytest.mark.parametrize(
  'overrides, words',
  [
    ({'evals.fasteval.foo': 1}, "evals.fasteval: unknown option 'foo'"),
    ({'evals.fasteval.type': 'rank'}, "unknown evaluator 'rank'"),
    ({'evals.fasteval.k': 'x'}, "evals.fasteval.k='x' must be int of"),
    ({'evals.fasteval.predict_fn': 'x'}, "evals.fasteval: the task has no pr"),
    ({'evals.fasteval.ops': OPS}, "evals.fasteval.ops[1] (resize): unknown"),
    ({'evals.fasteval.data.splitt': 'x'}, "evals.fasteval.data: unknown opt"),
    ({'evals.fasteval.data': ELSEWHERE}, "evals.fasteval.data.path='no/such"),
    ({'evals.fasteval.exclude_ids': 'no'}, "evals.fasteval.exclude_ids='no'"),
    ({'evals.fasteval.every_epochs': 2}, 'evals.fasteval'),
    ({'input.ops': OPS}, "input.ops[1] (resize): unknown option 'sise'"),
    ({'input.ops': OPS_2}, "needs the field 'label_ids'"),
    ({'input.source.num_img': 3}, "input.source: unknown option 'num_img'"),
    ({'input.source': ELSEWHERE}, "input.source.path='no/such/place': no such"),
    ({'task.priors': 0.1}, "task: unknown option 'priors'"),
    ({'model.depht': 50}, "model: unknown option 'depht'"),
    ({'optim.beta': 0.1}, 'optim.beta: unknown option'),
    ({'schedule.type': 'cosin'}, "unknown schedule 'cosin'"),
    ({'init_from.path': 'no/such/run'}, "init_from.path='no/such/run'"),
  ],
)  # fmt: skip
def test_mistakes_in_configs_are_refused(refused, overrides, words):
  said = refused(overrides)
  assert said.startswith("error: runs, 'a': ") and words in said
  assert said.count('\n') == 1


@pytest.mark.parametrize(
  'text, words',
  [
    ('def get_config(arg=None):\n  return 1 / 0\n',
     'run.py:2: ZeroDivisionError: division by zero'),
    ('def get_config(arg=None):\n  import no.such\n',
     "run.py:2: ModuleNotFoundError: No module named 'no'"),
    ('import configs.common\ndef get_config(arg=None):\n'
     '  c = configs.common.base()\n  c.lock().sed = 1\n',
     'run.py:4: AttributeError'),
    ('x = {}["y"]\n', "does not load: {path}:1: KeyError: 'y'"),
    ('def get_config(:\n', 'does not load: {path}:1: SyntaxError: invalid'),
    ('y = 3\n', "{path}' has no function get_config"),
    ('def get_config(arg=None):\n  pass\n',
     'must return a ConfigDict, got NoneType'),
  ],
)  # fmt: skip
def test_a_config_that_fails_is_one_line(refused, tmp_path, text, words):
  said = refused(text=text)
  assert said.startswith("error: runs, 'a': config=")
  assert words.format(path=tmp_path / 'run.py') in said
  assert said.count('\n') <= 2  # ml_collections adds a line of its own
