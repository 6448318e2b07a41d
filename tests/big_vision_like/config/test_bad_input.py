"""Bad input: one readable message within seconds, nothing harmed.

Every case is a command line of the real program. Its message must name the key
or file and what is valid; no traceback; exit code 2. Overrides have their own
file, test_overrides.py.
"""

import pathlib

import pytest

from tests import tiny
from tests.big_vision_like.config.bad_input_cases import (
  CASES,
  QUICK,
  expand,
  make_files,
)
from tests.conftest import ROOT
from tests.faults.trees import snapshot

pytestmark = pytest.mark.slow

SECONDS = 30  # generous: these machines are shared; typical is 1 to 3


@pytest.fixture(scope='module')
def files(tmp_path_factory) -> pathlib.Path:
  folder = tmp_path_factory.mktemp('bad')
  make_files(folder)
  return folder


def test_there_are_at_least_forty_cases():
  assert len(CASES) >= 40


@pytest.mark.parametrize('name', CASES)
def test_one_readable_message(name, files, tmp_path, command_line):
  args, words = CASES[name]
  work = tmp_path / 'work'
  result = command_line(*[expand(a, files, work) for a in args])
  err = result['err']
  assert result['code'] == 2, err
  assert 'Traceback' not in err, err
  assert len(err.splitlines()) <= 15, err
  for word in words:
    assert word in err, err
  assert result['seconds'] < SECONDS
  assert not (work / 'checkpoints').exists() or name.startswith('warm')


@pytest.fixture(scope='module')
def finished(tmp_path_factory, command_line):
  """A workdir of quickstart:tiny, trained to its end."""
  work = tmp_path_factory.mktemp('finished') / 'run'
  result = command_line(QUICK, f'--workdir={work}')
  assert result['code'] == 0, result['err']
  return work


REFUSED = {
  'a shorter run than was trained': (
    ['--config.total_steps=5'],
    ['past the end', 'total_steps=5'],
  ),
  'another optimizer': (
    [
      '--config.resume.accept_config_change=True',
      '--config.optim.type=adam',
      '--config.optim.momentum=0.9',
    ],
    ['optim'],
  ),
  'another seed': (['--config.seed=5'], ['another config', 'seed: 0 -> 5']),
  'another batch': (
    ['--config.input.batch_size=8'],
    ['another config', 'input.batch_size: 16 -> 8'],
  ),
  'another model': (
    ['--config.model.width=16'],
    ['another config', 'model.width: 8 -> 16'],
  ),
  'another head': (
    [
      '--config.resume.accept_config_change=True',
      '--config.resume.accept_data_change=True',
      '--config.task.num_classes=25',
      '--config.input.source.num_classes=25',
      '--config.evals.fasteval.data.num_classes=25',
    ],
    ['23 classes', '25', 'checkpoint', 'task.num_classes'],
  ),
  'another backbone': (
    [
      '--config.resume.accept_config_change=True',
      '--config.model.width=16',
    ],
    ['backbone/', 'checkpoint', 'config'],
  ),
  'another data set': (
    [
      '--config.resume.accept_config_change=True',
      '--config.input.source.num_images=999',
    ],
    ['data set', 'accept_data_change'],
  ),
}


@pytest.mark.parametrize('name', REFUSED)
def test_a_workdir_of_another_run_is_refused_unharmed(
  name, finished, command_line
):
  changes, words = REFUSED[name]
  before = snapshot(finished)
  result = command_line(
    QUICK,
    f'--workdir={finished}',
    '--config.total_steps=9',
    *changes,
  )
  assert result['code'] == 2, result['err']
  assert 'Traceback' not in result['err']
  for word in words:
    assert word in result['err'], result['err']
  assert snapshot(finished) == before


def test_stored_config_runs_again(finished, tmp_path, command_line):
  result = command_line(
    f'--config={finished}/config.json',
    f'--workdir={tmp_path / "again"}',
    '--config.total_steps=2',
  )
  assert result['code'] == 0, result['err']
  assert (tmp_path / 'again' / 'checkpoints' / '2').is_dir()


def test_tiny_settings_are_the_documented_ones():
  """The cases above lean on these numbers of quickstart:tiny."""
  from configs import quickstart

  config = quickstart.get_config('tiny')
  assert config.input.batch_size == 16
  assert config.task.num_classes == 23
  assert tiny.config().input.batch_size == 8
  assert (ROOT / 'configs' / 'quickstart.py').exists()
