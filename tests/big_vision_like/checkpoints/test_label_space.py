"""A checkpoint knows its classes: names without the training data at hand."""

import functools
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
from evaluators.harness import context, evaluation_set
from input_pipeline import streams
from input_pipeline.labels.space import LabelSpace
from tests import tiny
from tools import export, predict

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures('programs_kept')]
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


def figures_of(config, workdir, data):
  config.evals.val.data['path'] = str(data)
  labels = dict(op='labels', max_labels=1)
  config.evals.map = dict(
    type='multilabel_map',
    data=config.evals.val.data,
    ops=common.eval_ops(20, 16, labels),
    batch_size=8,
  )
  return evaluate.run(config, str(workdir))


def test_a_validation_split_alone_is_evaluated(trained, tmp_path, capsys):
  """Its classes are the checkpoint's, and so is the length of an epoch."""
  workdir, data = trained
  whole = figures_of(config_of(data), workdir, data)
  assert 'map/map@100_tail' in whole
  shutil.copytree(data / 'val', tmp_path / 'data' / 'val')
  shutil.copytree(folders.find(workdir), tmp_path / '1')
  # Without the split the source refuses its path: a ValueError.
  config = config_of(tmp_path / 'data')
  config.total_steps, config.total_epochs = None, 3
  capsys.readouterr()
  figures = figures_of(config, tmp_path / '1', tmp_path / 'data')
  out = capsys.readouterr().out
  assert "evals.val.data tells no classes: the model's are taken" in out
  assert 'going on without the training data: input.source: ' in out
  assert "unknown split 'train'" in out
  assert 'no training counts: no head, torso and tail figures' in out
  assert not [name for name in figures if name.endswith(('_head', '_tail'))]
  assert figures == {
    name: whole[name] for name in whole if not name.endswith(('_head', '_tail'))
  }


@pytest.mark.parametrize(
  ('known', 'found'),
  [
    (dict(num_examples=12), 12),
    (dict(total_steps=30), 80),  # 30 steps of 8 are 3 epochs
  ],
)
def test_the_length_of_an_epoch_without_the_data(known, found):
  config = config_of(pathlib.Path('nowhere'))
  config.total_steps, config.total_epochs = None, 3
  meta = dict(config=json.loads(config.to_json()), **known)
  source = functools.partial(streams.open_source, config)
  assert evaluate._num_examples(config, meta, source) == found
  meta['config'] |= dict(total_steps=30, total_epochs=None)
  if 'num_examples' not in meta:
    with pytest.raises(FileNotFoundError, match='nowhere'):
      evaluate._num_examples(config, meta, source)


def test_a_model_without_names_gives_none_to_the_data(tmp_path):
  write_images(tmp_path, NAMES)
  shutil.rmtree(tmp_path / 'train')
  data = dict(type='folder', path=str(tmp_path), split='val')
  ops = common.eval_ops(20, 16, dict(op='single_label'))
  for space in (LabelSpace.of_count(3), None):
    ctx = context.EvalContext(
      mesh=None, workdir=None, name='x', space=space or LabelSpace.of_count(2)
    )
    with pytest.raises(ValueError, match=r'evals\.x\.data: .*vocabulary'):
      evaluation_set.EvalData(ctx, data, ops, 4, classes=space is not None)


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
