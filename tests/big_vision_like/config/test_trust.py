"""Modules that stored files name: nobody's code runs because of them."""

import json
import pathlib

import pytest
from absl import flags

from big_vision_like.config import loading, settings, shipped, trust
from tests import saved_run, tiny
from tools import dedup, export, extract_features, noise_audit, predict
from tools.cli import config_flags, data_argument
from tools.studies import runner

RAN = 'ran'  # the file that the stranger's module writes


@pytest.fixture
def stranger(tmp_path, monkeypatch) -> pathlib.Path:
  """A workdir with a module in it, which is on Python's path."""
  workdir = tmp_path / 'workdir'
  exp = saved_run.with_averages()
  saved_run.save(workdir, exp, exp.init(0))
  (workdir / 'stranger.py').write_text(
    f'open({str(tmp_path / RAN)!r}, "w").close()\n'
  )
  monkeypatch.chdir(workdir)
  monkeypatch.syspath_prepend(str(workdir))
  (workdir / settings.FILE).write_text(settings.to_json(exp.config))
  return workdir


def put(workdir: pathlib.Path, key: str, name: str) -> None:
  """Puts a name into both stored configs."""
  meta = workdir / 'checkpoints' / '0' / 'meta' / 'metadata'
  told = json.loads(meta.read_text())
  told.pop('manifest', None)  # it is the stranger's own checkpoint
  (meta.parent.parent / 'manifest.json').unlink(missing_ok=True)
  node = told['config']
  *parents, last = key.split('.')
  for parent in parents:
    node = node[parent]
  node[last] = name
  meta.write_text(json.dumps(told))
  (workdir / settings.FILE).write_text(json.dumps(told['config']))


def test_tools_and_main_run_nobodys_code(stranger, tmp_path, capsys):
  put(stranger, 'task.type', 'stranger.task')
  (tmp_path / 'in').mkdir()
  output = f'--output={tmp_path}/out'
  data = f'--data={stranger}/config.json'
  commands = [
    (predict, [f'--input={tmp_path}/in', output]),
    (export, ['--format=stablehlo', output]),
    (noise_audit, ['--classes=tail', output]),
  ]
  for tool, arguments in commands:
    assert tool.main([f'--checkpoint={stranger}', *arguments]) == 2
  said = capsys.readouterr().err
  text = "names the module 'stranger.task' (task.type), which is not of this"
  assert said.count(text) >= 2  # predict finds no image before it
  put(stranger, 'input.source.type', 'stranger.source')
  assert extract_features.main([f'--checkpoint={stranger}', data, output]) == 2
  assert 'stranger.source' in capsys.readouterr().err
  assert 'trust' in dedup.parser().format_help()
  assert not (tmp_path / RAN).exists()
  # Where it is trusted its code runs, and here it is no task.
  assert export.main([f'--checkpoint={stranger}', *commands[1][1], '--trust'])
  assert (tmp_path / RAN).exists()


def test_a_config_json_and_the_flag_wherever_it_stands(tmp_path):
  config = settings.complete(tiny.config())
  config.task.type = 'their.task'
  path = tmp_path / settings.FILE
  path.write_text(settings.to_json(config))
  text = f'--config={path}'
  with pytest.raises(ValueError, match=r"'their.task' \(task.type\).*--trust"):
    loading.load(str(path), '--config')
  for argv in (['x', text], ['x', text, '--notrust']):
    with pytest.raises(ValueError, match=r'their\.task'):
      config_flags.parse(argv, 'a tool', lambda values: None)
  for argv in (['x', text, '--trust'], ['x', '--trust=true', text]):
    values = flags.FlagValues()
    loading.define_flag(values, argv)
    assert values(argv) == ['x']
    assert values.config.task.type == 'their.task'
  # What the command line itself names is the user's own.
  path.write_text(settings.to_json(settings.complete(tiny.config())))
  argv = ['x', text, '--config.task.type=mine.task']
  found = config_flags.parse(argv, 'a tool', lambda values: None)
  assert found.config.task.type == 'mine.task'


def test_the_data_of_a_config_json(tmp_path):
  config = settings.complete(tiny.config())
  config.task.type = 'their.task'  # not looked at here
  path = tmp_path / settings.FILE
  path.write_text(settings.to_json(config))
  assert data_argument.parse(str(path))['type'] == 'synthetic'
  config.input.source = dict(type='their.source')
  path.write_text(settings.to_json(config))
  with pytest.raises(ValueError, match=r'their\.source'):
    data_argument.parse(str(path))
  found = data_argument.parse(str(path), trusted=True)
  assert found['type'] == 'their.source'


def test_names_wherever_they_stand():
  config = {
    'model': {'type': 'big_vision_like.models.resnet'},
    'input': {
      'ops': [{'op': 'decode'}, {'op': 'their.ops.Crop'}],
      'source': {'type': 'mixture', 'parts': [{'type': 'their.source'}]},
    },
    'evals': {'val': {'type': 'evaluators.knn', 'data': {'type': 'a.b'}}},
    'note': 'their.words',
  }
  assert list(trust.foreign(config)) == [
    ('input.ops[1].op', 'their.ops.Crop'),
    ('input.source.parts[0].type', 'their.source'),
    ('evals.val.data.type', 'a.b'),
  ]
  assert {'big_vision_like', 'evaluators'} <= set(shipped.PACKAGES)


@pytest.mark.slow
def test_a_run_of_the_users_own_config_goes_on(tmp_path, command_line):
  """Though its config.json and its checkpoint name a module of theirs."""
  config = tmp_path / 'mine.py'
  config.write_text(
    'import sys\n'
    'from tests import tiny\n'
    f'sys.path.append({str(tmp_path)!r})\n'
    'def get_config():\n'
    '  c = tiny.config(evals={})\n'
    "  c.task.type = 'my_folder.my_task'\n"
    '  return c\n'
  )
  (tmp_path / 'my_folder').mkdir()
  (tmp_path / 'my_folder' / 'my_task.py').write_text(
    'from big_vision_like.tasks.multilabel import Task as Theirs\n'
    'class Task(Theirs):\n  """Of the user."""\n'
  )
  workdir = f'--workdir={tmp_path}/run'
  for _ in range(2):
    length = '--config.total_steps=1'
    done = command_line(f'--config={config}', workdir, length)
    assert done['code'] == 0, done['err']
  assert 'resuming from step 1 ' in done['out']
  done = command_line(f'--config={tmp_path}/run/config.json', workdir)
  assert done['code'] == 2
  assert done['err'].count('\n') == 1
  assert "'my_folder.my_task' (task.type)" in done['err']


def test_a_study_passes_on_that_its_own_config_is_trusted(tmp_path):
  of_tfds = {'streams': [{'source': {'type': 'tfds'}}]}  # its data name code
  for config, trusted, given in (
    ({'task': {'type': 'softmax'}}, True, False),
    ({'task': {'type': 'mine.task'}}, True, True),
    (of_tfds, True, True),
    (of_tfds, False, False),
  ):
    job = runner.Job(
      run=None, seed=0, workdir=tmp_path, config=config, parent=None,
      trusted=trusted,
    )  # fmt: skip
    assert (trust.FLAG in runner.command(job)) == given
