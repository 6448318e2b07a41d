"""A checkpoint knows its classes: names without the training data at hand."""

import json
import pathlib
import shutil

import pytest
from PIL import Image

from big_vision_like import evaluate, train
from big_vision_like.checkpoints import folders, reading
from big_vision_like.config import settings
from big_vision_like.inference import stored_model
from configs import common
from input_pipeline.labels.space import LabelSpace
from tests import tiny
from tools import export, predict

pytestmark = pytest.mark.slow
NAMES = ('cat', 'dog', 'yak')


def write_images(root: pathlib.Path, names) -> None:
  for split in ('train', 'val'):
    for i, name in enumerate(names):
      folder = root / split / name
      folder.mkdir(parents=True)
      for k in range(4):
        color = (60 * k, 80 * i, 40)
        Image.new('RGB', (20, 20), color).save(folder / f'{k}.png')


def config_of(data: pathlib.Path):
  source = lambda split: dict(type='folder', path=str(data), split=split)
  label = dict(op='single_label')
  return tiny.config(
    total_steps=1,
    evals=dict(
      val=dict(
        type='classification',
        data=source('val'),
        ops=common.eval_ops(20, 16, label),
        batch_size=8,
        every_steps=1,
      )
    ),
    **{
      'input.source': source('train'),
      'input.ops': common.train_ops(20, 16, label),
      'task': dict(type='softmax'),
    },
  )


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
  """(workdir, data) of one step; the data are away."""
  root = tmp_path_factory.mktemp('run')
  write_images(root / 'data', NAMES)
  train.run(config_of(root / 'data'), str(root / 'run'))
  (root / 'data').rename(root / 'away')
  return root / 'run', root / 'away'


def test_the_whole_space_is_in_every_checkpoint(trained):
  workdir, data = trained
  path = folders.find(workdir)
  space = reading.label_space(reading.read_meta(path), path)
  assert space.names == NAMES and not space.anonymous
  source = config_of(data).input.source
  from input_pipeline import pipeline

  opened = pipeline.open_source(source, 'input.source')
  assert space.digest() == LabelSpace.of_source(opened).digest()


@pytest.mark.parametrize('copied', [False, True])
def test_predictions_have_names_without_the_data(
  trained, copied, tmp_path, capsys
):
  workdir, data = trained
  path = workdir
  if copied:  # the folder of one step alone
    path = tmp_path / '1'
    shutil.copytree(folders.find(workdir), path)
  arguments = [f'--checkpoint={path}', f'--input={data / "val"}']
  assert predict.main([*arguments, f'--output={tmp_path / "out"}']) == 0
  assert '--vocabulary' not in capsys.readouterr().out
  lines = (tmp_path / 'out' / 'predictions.jsonl').read_text().splitlines()
  assert {
    entry['name'] for line in lines for entry in json.loads(line)['predictions']
  } == {*NAMES}


def test_exports_have_names_without_the_data(trained, tmp_path, capsys):
  workdir, _ = trained
  arguments = [f'--checkpoint={workdir}', f'--output={tmp_path}']
  assert export.main([*arguments, '--format=stablehlo']) == 0
  assert 'names not known' not in capsys.readouterr().out
  names = (tmp_path / 'vocabulary.jsonl').read_text()
  assert [json.loads(line)['name'] for line in names.splitlines()] == [*NAMES]


def test_evaluating_needs_no_training_data_and_compares_names(
  trained, tmp_path, capsys
):
  workdir, data = trained
  config = config_of(tmp_path / 'nowhere')
  config.evals.val.data['path'] = str(data)
  assert 'val/top1' in evaluate.run(config, str(workdir))
  assert 'not compared' not in capsys.readouterr().out
  write_images(tmp_path / 'others', ('cat', 'dog', 'zebu'))
  config.evals.val.data['path'] = str(tmp_path / 'others')
  with pytest.raises(ValueError, match=r"class 2 is 'zebu', but 'yak'"):
    evaluate.run(config, str(workdir))


def test_an_old_checkpoint_knows_the_number_only(trained):
  path = folders.find(trained[0])
  meta = {**reading.read_meta(path)}
  del meta['space']
  space = reading.label_space(meta, path)
  assert space.anonymous and space.num_classes == 3


def test_a_damaged_space_is_damage(trained):
  path = folders.find(trained[0])
  meta = {**reading.read_meta(path), 'space': {'names': ['a', 'a']}}
  with pytest.raises(folders.DamagedError, match='already at'):
    reading.label_space(meta, path)


def test_other_names_at_hand_are_not_taken(trained, tmp_path):
  """The names are the checkpoint's, whatever lies where its data were."""
  workdir, _ = trained
  old = settings.from_json(workdir / settings.FILE).input.source.path
  write_images(pathlib.Path(old), ('ant', 'bee', 'fly'))
  try:
    found = stored_model.load(workdir, '--checkpoint').vocabulary
  finally:
    shutil.rmtree(old)
  assert found is not None and found.names == NAMES
