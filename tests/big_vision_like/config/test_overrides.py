"""Overrides --config.KEY=VALUE, of `main` and of the tools.

Those that do not fit end with one message that names the key and what is valid,
and exit code 2, in every command alike.
"""

from typing import Any

import pytest

from big_vision_like.config import durations, settings
from tests import documented_code
from tools import inspect_data
from tools.cli import config_flags

QUICK = '--config=configs/quickstart.py:tiny'

# Overrides of quickstart:tiny that cannot be read -> words of the message.
# Its input.ops are decode, resize (size=40), random_crop, flip_lr, labels.
UNREADABLE = {
  'input.ops.1.size=34': ['a list of 5', "'--config.input.ops[1].size=VALUE'"],
  'input.ops[1].height=34': ["input.ops[1] has no key 'height'", 'op, size'],
  'input.ops[1].sise=34': ["did you mean 'size'"],
  'input.ops[99].size=34': ['input.ops[0] to input.ops[4]'],
  'input.ops[-6].size=34': ['input.ops[0] to input.ops[4]'],
  'input.ops[x].size=34': ['cannot be read', "'--config.NAME[0].NAME=VALUE'"],
  'input.ops[1=34': ['cannot be read'],
  '=3': ['cannot be read', '--config.NAME.NAME=VALUE'],
  '.seed=3': ['cannot be read', '--config.NAME.NAME=VALUE'],
  'input.ops=[]': ['a list cannot be set as a whole', 'config.input.ops[0]'],
  'input.ops[1]={}': ['a section cannot be set as a whole', 'op, size'],
  'init_from.reinit[0]=a': ['set the whole', "reinit=('head/.*',)"],
  'seed.x=1': ['seed is 0', 'no keys'],
  'seed[0]=1': ['seed is 0', 'no keys'],
  'input[0]=1': ['input has no key 0', 'batch_size'],
  'total_epochs=None': ['cannot say None', '0 means'],
  'seed=x': ['config.seed=x', 'invalid literal'],
  'sead=1': ["no key 'sead'", "did you mean 'seed'", 'total_steps'],
  'input.source.subset=1': ["input.source has no key 'subset'", 'num_images'],
}

# id -> (arguments of main, words of the message).
CASES = {
  'mistyped override': (
    ['--config.sead=1'],
    ["'sead'", "did you mean 'seed'", 'total_steps'],
  ),
  'mistyped nested override': (
    ['--config.input.batchsize=4'],
    ['batchsize', 'batch_size'],
  ),
  'override of a plug-in option that does not exist': (
    ['--config.task.foo=1'],
    ['--config.task.foo', 'num_classes', 'class_multiple'],
  ),
  'override of the wrong type': (
    ['--config.input.batch_size=many'],
    ['batch_size', 'many'],
  ),
  'negative seed is fine but zero steps of logging are not': (
    ['--config.log_every_steps=0'],
    ['log_every_steps=0', 'at least 1'],
  ),
  'two lengths': (
    ['--config.total_epochs=1'],
    ['total_steps', 'total_epochs'],
  ),
  'fraction out of range': (
    ['--config.input.fraction=2'],
    ['input.fraction=2'],
  ),
  'a kind of device that does not exist': (
    ['--config.device=cuda'],
    ["device='cuda'", 'any, cpu, gpu, tpu'],
  ),
  'a trace of steps that are none': (
    ['--config.profile.steps=(5,3)'],
    ['profile.steps=(5, 3)', '(10, 15)'],
  ),
  'a limit that is none': (
    ['--config.input.timeout_s=-1'],
    ['input.timeout_s=-1', 'at least 0'],
  ),
  'True as a number': (
    ['--config.optim.momentum=True'],
    ['momentum'],
  ),
  'impossible depth': (
    ['--config.model.depth=34'],
    ['model.depth', '50'],
  ),
}


@pytest.mark.parametrize('override', UNREADABLE)
def test_tools_say_what_does_not_fit(override, capsys):
  with pytest.raises(SystemExit) as ended:
    inspect_data.main(['x', QUICK, '--num=1', f'--config.{override}'])
  assert ended.value.code == 2
  _one_line(capsys.readouterr().err, [*UNREADABLE[override], '--config'])


@pytest.mark.slow
@pytest.mark.parametrize('override', UNREADABLE)
def test_main_says_what_does_not_fit(override, command_line):
  result = command_line(QUICK, '--mode=plan', f'--config.{override}')
  assert result['code'] == 2, result['err']
  _one_line(result['err'], UNREADABLE[override])


@pytest.mark.slow
@pytest.mark.parametrize('name', CASES)
def test_main_refuses(name, tmp_path, command_line):
  args, words = CASES[name]
  result = command_line(QUICK, f'--workdir={tmp_path / "work"}', *args)
  assert result['code'] == 2, result['err']
  _one_line(result['err'], words)
  assert not (tmp_path / 'work' / 'checkpoints').exists()


def _one_line(text: str, words: list[str]) -> None:
  assert text.startswith('error: ') and len(text.splitlines()) == 1, text
  assert '<class' not in text and 'SyntaxError' not in text, text
  for word in words:
    assert word in text, text


def _parse(*args: str) -> Any:
  return config_flags.parse(['x', *args], '', lambda values: None).config


def test_overrides_that_fit():
  config = _parse(
    QUICK,
    '--config.input.ops[1].size=34',
    '--config.input.ops[-1].max_labels=9',
    '--config.evals["fasteval"].batch_size=8',
    '--config.init_from.reinit=("head/bias",)',
    '--config.seed',
    '7',
  )
  assert [config.input.ops[1]['size'], config.input.ops[4]['max_labels']] == [
    34,
    9,
  ]
  assert config.evals.fasteval.batch_size == 8
  assert config.init_from.reinit == ('head/bias',)
  assert config.seed == 7


def test_the_wrong_one_of_several_is_named():
  with pytest.raises(ValueError, match=r'ops\[7\]') as raised:
    _parse(QUICK, '--config.seed=1', '--config.input.ops[7].size=3')
  assert 'config.seed' not in str(raised.value)


def test_an_error_of_the_config_file_itself(tmp_path):
  path = tmp_path / 'broken.py'
  path.write_text('def get_config():\n  return [][3]\n')
  with pytest.raises(ValueError, match=r'broken\.py:2: IndexError') as raised:
    _parse(f'--config={path}', '--config.seed=1')
  assert 'does not load' in str(raised.value)


def test_no_config_file():
  with pytest.raises(
    ValueError, match=r"^--config=no.py: no config file 'no.py'$"
  ):
    _parse('--config=no.py', '--config.seed=1')


def test_a_length_of_zero_takes_the_length_away():
  flags = ['--config=configs/open_images_resnet.py:path=x']
  config = settings.complete(
    _parse(*flags, '--config.total_steps=4', '--config.total_epochs=0')
  )
  assert config.total_epochs is None
  assert durations.steps(config, 'total', batch_size=8) == 4
  both = settings.complete(_parse(*flags, '--config.total_steps=4'))
  with pytest.raises(ValueError, match=r'keep one; .*total_epochs=0$'):
    durations.steps(both, 'total', batch_size=8)


def test_all_lengths_zero_is_no_length():
  config = settings.complete(_parse(QUICK, '--config.total_steps=0'))
  with pytest.raises(ValueError, match="missing duration 'total'"):
    durations.steps(config, 'total', batch_size=8)


def test_zero_is_a_duration_elsewhere():
  config = {'warmup_steps': 0, 'warmup_epochs': 1}
  with pytest.raises(ValueError, match=r'keep one$'):
    durations.steps(config, 'warmup', batch_size=8)


def test_the_documented_config_of_ones_own(tmp_path):
  path = tmp_path / 'mine.py'
  path.write_text(documented_code.snippet('subsets.md', 'c.unlocked()'))
  config = _parse(f'--config={path}:tiny', '--config.seed=1')
  complete = settings.complete(config)
  assert complete.input.source.subset.to_dict() == {
    'num_images': 100_000,
    'labels': 'imagenet',
  }
  assert complete.evals.val.exclude_ids == 'dedup/drop_ids.txt'


@pytest.mark.slow
def test_own_data_takes_a_fraction_and_near_duplicates(tmp_path, command_line):
  listed = tmp_path / 'drop_ids.txt'
  listed.write_text('synthetic/fasteval/000000003\n')
  work = tmp_path / 'work'
  result = command_line(
    f'--config=configs/own_data.py:tiny,fraction=0.1,exclude_ids={listed}',
    f'--workdir={work}',
    '--config.total_steps=2',
  )
  assert result['code'] == 0, result['err']
  assert settings.from_json(work / 'config.json').input.fraction == 0.1
  metrics = (work / 'metrics.jsonl').read_text()
  assert '"val/map@100/dedup"' in metrics


def test_own_data_refuses_a_fraction_above_one():
  with pytest.raises(Exception, match=r'fraction=2.0 must be in \(0, 1\]'):
    _parse('--config=configs/own_data.py:tiny,fraction=2')
