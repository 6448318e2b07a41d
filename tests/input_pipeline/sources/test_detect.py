"""What a source refuses names the key or the flag that the user gave it by."""

import pytest
from PIL import Image

from big_vision_like.config import loading
from evaluators.harness.context import EvalContext
from evaluators.harness.evaluation_set import EvalData
from input_pipeline import pipeline
from input_pipeline.labels.space import LabelSpace
from tools import prepare_images
from tools.cli import data_argument
from tools.near_duplicates import sets

OPS = [dict(op='decode'), dict(op='resize', size=8)]


@pytest.fixture
def classes(tmp_path):
  """A folder of class folders, with splits."""
  for split in ('train', 'val'):
    for name in ('cat', 'dog'):
      folder = tmp_path / 'data' / split / name
      folder.mkdir(parents=True)
      Image.new('RGB', (8, 8)).save(folder / 'a.png')
  return tmp_path / 'data'


def evaluator(config):
  ctx = EvalContext(
    mesh=None, workdir=None, name='val', space=LabelSpace.of_count(2)
  )
  EvalData(ctx, config, OPS, 2, classes=False)


# Ways to name data -> (what opens them, start of the message).
WAYS = {
  'training': (
    lambda config: pipeline.open_source(config),
    'input.source',
  ),
  'an evaluator': (evaluator, 'evals.val.data'),
  'a tool': (
    lambda config: data_argument.open_source(config, '--data'),
    '--data: ',
  ),
  'a pair of sets': (
    lambda config: sets.open_sets([f'detect:{config["path"]}'], [], []),
    '--train detect:{path}: ',
  ),
}


@pytest.mark.parametrize('way', WAYS)
@pytest.mark.parametrize('kind', ['none', 'text'])
def test_what_is_no_data_set_is_named_by_its_key(way, kind, tmp_path):
  path = tmp_path / kind
  if kind == 'text':
    path.write_text('no data')
  opened, start = WAYS[way]
  with pytest.raises((FileNotFoundError, ValueError)) as error:
    opened(dict(type='detect', path=str(path)))
  start = start.format(path=path)
  dot = '' if start.endswith(' ') else '.'
  assert str(error.value).startswith(f'{start}{dot}path={str(path)!r}: ')
  if not start.startswith('input'):
    assert 'input.source' not in str(error.value)


def test_an_option_that_does_not_fit_what_lies_there(classes):
  config = dict(type='detect', path=str(classes), background=False)
  text = rf"evals.val.data.type='detect' \(folder at '{classes}'\): unknown "
  with pytest.raises(ValueError, match=rf"^{text}option 'background'"):
    evaluator(config)
  with pytest.raises(ValueError, match=r"^--data: type='detect' \(folder at"):
    data_argument.open_source(config)


def test_other_sources_too(classes):
  for config in (
    dict(type='folder', path=f'{classes}/none'),
    dict(type='masks', path=f'{classes}/none'),
    dict(type='voc', path=f'{classes}/none'),
  ):
    with pytest.raises(FileNotFoundError, match=r'^evals\.val\.data\.path='):
      evaluator(config)
  config = dict(type='folder', path=str(classes), split='test')
  with pytest.raises(ValueError, match=rf'^evals\.val\.data: {classes}'):
    evaluator(config)
  with pytest.raises(
    ValueError, match=r"^evals\.val\.data\.split='test'; valid"
  ):
    evaluator(dict(type='synthetic', split='test'))
  config |= dict(split='train', vocabulary=f'{classes}/none.txt')
  with pytest.raises(FileNotFoundError, match=r'^evals\.val\.data: .*none.txt'):
    evaluator(config)


def test_the_training_data_of_another_run_are_called_so(classes):
  config = loading.load('configs/own_data.py:path=/no', '--config')
  with pytest.raises(
    FileNotFoundError, match=r"^the run's input\.source: path='/no'"
  ):
    pipeline.open_train(config, "the run's input.source")


def test_preparing_names_its_flag(tmp_path, classes, capsys):
  code = prepare_images.main(
    ['--type=masks', f'--input={classes}/x', f'--output={tmp_path}/out']
  )
  assert code == 2
  said = capsys.readouterr().err
  assert f"--type masks (--input {classes}/x): path='{classes}/x': no" in said
  assert 'input.source' not in said
