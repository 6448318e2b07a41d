"""Nets of another layout and classes of other names are never taken for ours.

Their arrays fit: without these checks the figures would just be wrong.
"""

import jax
import numpy as np
import pytest
from PIL import Image

from big_vision_like import evaluate, experiment, train
from big_vision_like.checkpoints import (
  compatibility,
  folders,
  manager,
  reading,
  warm_start,
)
from big_vision_like.config import settings
from big_vision_like.inference import stored_model
from configs import common
from input_pipeline import pipeline
from input_pipeline.labels.space import LabelSpace
from input_pipeline.labels.vocabulary import Vocabulary
from tests import saved_run, tiny
from tests.conftest import ROOT
from tools import predict

NAMES = ('cat', 'dog', 'owl')


@pytest.fixture(scope='module')
def exp():
  return saved_run.with_averages()


@pytest.fixture(scope='module')
def state(exp):
  """A state whose averages are not its parameters."""
  state = exp.init(3)
  more = lambda x: x + 0.5
  return state.replace(
    ema=jax.tree.map(more, state.params),
    ema_extra=jax.tree.map(more, state.extra),
  )


@pytest.fixture(scope='module')
def workdir(exp, state, tmp_path_factory):
  return saved_run.save(tmp_path_factory.mktemp('run'), exp, state)


def test_a_task_need_not_take_the_options_that_it_inherits(
  monkeypatch, tmp_path
):
  """That of docs/add-a-task.md has no `pixels`; `--mode=eval` compares it."""
  monkeypatch.syspath_prepend(str(ROOT / 'tests' / 'fixtures'))
  task = dict(type='my_package.my_task')
  config = settings.complete(tiny.config(task=task))
  meta = {'config': settings.complete(tiny.config(task=task))}
  compatibility.check_layout(config, meta, tmp_path, '--workdir')
  meta['config'].model.stride_in = 'first_unit_3x3'
  with pytest.raises(ValueError, match=r'model\.stride_in'):
    compatibility.check_layout(config, meta, tmp_path, '--workdir')


@pytest.mark.parametrize(
  'key, value, words',
  [
    ('task.pixels', 'imagenet', "'inception' there, 'imagenet' here"),
    (
      'model.stride_in',
      'first_unit_3x3',
      "'last_unit_3x3' there, 'first_unit_3x3' here",
    ),
    ('model.pool_padding', 'symmetric', "'same' there, 'symmetric' here"),
  ],
)
@pytest.mark.parametrize('flag', ['--checkpoint', '--workdir'])
def test_evaluating_refuses_another_layout(
  workdir, tmp_path, key, value, words, flag
):
  config = tiny.config(**{key: value})
  path = str(workdir) if flag == '--checkpoint' else None
  here = str(tmp_path / 'new') if path else str(workdir)
  with pytest.raises(ValueError, match=rf'(?s){flag}=.*layout.*{words}'):
    evaluate.run(config, here, path)


def write_images(root, names):
  for split in ('train', 'val'):
    for i, name in enumerate(names):
      folder = root / split / name
      folder.mkdir(parents=True)
      for k in range(4):
        color = (60 * k, 80 * i, 40)
        Image.new('RGB', (20, 20), color).save(folder / f'{k}.png')


@pytest.fixture(scope='module')
def own(tmp_path_factory):
  """(config, workdir) of a run on a folder of three classes, as saved."""
  root = tmp_path_factory.mktemp('own')
  data = root / 'data'
  write_images(data, NAMES)
  source = lambda split: dict(type='folder', path=str(data), split=split)
  label = dict(op='single_label')
  config = tiny.config(
    total_steps=1,
    evals=dict(
      val=dict(
        type='classification',
        data=source('val'),
        ops=common.eval_ops(20, 16, label),
        batch_size=8,
      )
    ),
    **{
      'input.source': source('train'),
      'input.ops': common.train_ops(20, 16, label),
      'task': dict(type='softmax', num_classes=3),
    },
  )
  found = pipeline.open_train(config)
  exp = experiment.build(
    config, space=LabelSpace.of_count(3), devices=jax.devices()[:1]
  )
  workdir = saved_run.save(
    root / 'run',
    exp,
    exp.init(0),
    classes=found.vocabulary.fingerprint(),
    data=found.fingerprint(),
  )
  return config, workdir


@pytest.fixture
def replaced(own):
  """The same with other classes where the data were; put back afterwards."""
  config, workdir = own
  data, kept = workdir.parent / 'data', workdir.parent / 'kept'
  data.rename(kept)
  write_images(data, ('ant', 'bee', 'fly'))
  yield config, workdir
  data.rename(workdir.parent / f'others{len(list(workdir.parent.iterdir()))}')
  kept.rename(data)


@pytest.mark.slow
class TestClasses:
  """A checkpoint knows the names of its classes by their digest."""

  def test_equal_names_pass(self, own):
    config, workdir = own
    assert 'val/top1' in evaluate.run(config, str(workdir))
    found = stored_model.load(workdir, '--checkpoint').vocabulary
    assert found is not None
    assert found.names == NAMES

  def test_evaluating_on_other_classes_is_refused(self, replaced):
    config, workdir = replaced
    with pytest.raises(
      ValueError, match=r"evals\.val\.data: its 3 classes, 'ant'.*other names"
    ):
      evaluate.run(config, str(workdir))

  def test_evaluating_beside_other_training_data_is_refused(
    self, own, tmp_path
  ):
    config, workdir = own
    write_images(tmp_path, (*NAMES, 'yak'))
    config = config.copy_and_resolve_references()
    config.input.source.path = str(tmp_path)
    with pytest.raises(ValueError, match='3 classes, the training data 4'):
      evaluate.run(config, str(workdir))

  def test_resuming_on_other_classes_is_refused(self, replaced):
    config, workdir = replaced
    with pytest.raises(ValueError, match='the data set is not the one'):
      train.run(config, str(workdir))

  def test_predictions_do_not_take_the_names_of_others(
    self, replaced, tmp_path, capsys
  ):
    _, workdir = replaced
    Image.new('RGB', (20, 20)).save(tmp_path / 'a.png')
    arguments = [
      f'--checkpoint={workdir}',
      f'--input={tmp_path}/a.png',
      f'--output={tmp_path}/out',
    ]
    assert predict.main(arguments) == 0
    said = capsys.readouterr().out
    assert (
      'have other classes than the model was trained on: give --voc' in said
    )
    written = (tmp_path / 'out' / 'predictions.jsonl').read_text()
    assert '"name": "class 0"' in written

  @pytest.mark.parametrize('names', [('ant', 'bee', 'fly'), NAMES[::-1]])
  def test_a_vocabulary_of_other_names_is_refused(self, own, tmp_path, names):
    Vocabulary(names).save(tmp_path / 'names.txt')
    model = stored_model.load(own[1], '--checkpoint')
    with pytest.raises(ValueError, match=r'--vocabulary.*are not those'):
      model.classes(str(tmp_path / 'names.txt'), '--vocabulary')

  def test_descriptions_are_free(self, own, tmp_path):
    path = str(tmp_path / 'names.jsonl')
    Vocabulary(NAMES, descriptions=('Katze', None, None)).save(path)
    model = stored_model.load(own[1], '--checkpoint')
    found = model.classes(path, '--vocabulary')
    assert found is not None
    assert found.readable_name(0) == 'Katze'


def test_checkpoints_without_a_digest_are_compared_by_number(workdir, tmp_path):
  assert 'classes' not in reading.read_meta(folders.find(workdir))
  path = str(tmp_path / 'names.txt')
  Vocabulary(tuple(f'other {i}' for i in range(13))).save(path)
  model = stored_model.load(workdir, '--checkpoint')
  assert model.vocabulary is not None
  found = model.classes(path, '--vocabulary')
  assert found is not None
  assert found.names[0] == 'other 0'
  Vocabulary(('one',)).save(path)
  with pytest.raises(ValueError, match='1 names, the model 13 classes'):
    model.classes(path, '--vocabulary')


@pytest.mark.parametrize('ema', [True, False])
def test_a_warm_start_takes_what_evaluations_scored(exp, state, workdir, ema):
  path = folders.find(workdir)
  fresh = exp.init(4)
  got, report = warm_start.warm_start(fresh, path, ('head/.*',), ema=ema)
  wanted = state.ema if ema else state.params
  same = lambda a, b: jax.tree.map(np.testing.assert_array_equal, a, b)
  same(got.params['backbone'], wanted['backbone'])
  same(got.ema['backbone'], wanted['backbone'])
  same(got.params['head'], fresh.params['head'])
  same(got.extra, state.ema_extra if ema else state.extra)
  same(got.ema_extra, got.extra)
  said = report.summary().splitlines()[0]
  assert said.endswith(f'(init_from.ema={ema})')
  assert ('not the averages' in said) != ema


def test_a_checkpoint_without_averaged_statistics(exp, state, tmp_path):
  """As runs left them that averaged the weights alone."""
  old = state.replace(ema_extra=None)
  workdir = saved_run.save(tmp_path / 'old', exp, old)
  path = folders.find(workdir)
  same = lambda a, b: jax.tree.map(np.testing.assert_array_equal, a, b)
  params, extra = reading.read_weights(
    path, jax.sharding.SingleDeviceSharding(jax.devices()[0])
  )
  same((params, extra), (state.ema, state.extra))
  # Resumed, it is evaluated as before; averages begin there.
  saved = manager.Checkpointer(str(workdir))
  got = saved.restore(exp.abstract_state, int(path.name))
  saved.close()
  same(got.ema, state.ema)
  same(got.for_evaluation().extra, state.extra)
  same(got.ema_extra, state.extra)
  fresh, _ = warm_start.warm_start(exp.init(4), path, ('head/.*',))
  same(fresh.extra, state.extra)


def test_averaged_statistics_come_back(exp, state, workdir):
  path = folders.find(workdir)
  same = lambda a, b: jax.tree.map(np.testing.assert_array_equal, a, b)
  params, extra = reading.read_weights(
    path, jax.sharding.SingleDeviceSharding(jax.devices()[0])
  )
  same((params, extra), (state.ema, state.ema_extra))
  saved = manager.Checkpointer(str(workdir), read_only=True)
  got = saved.restore(exp.abstract_state, int(path.name))
  saved.close()
  same(got.extra, state.extra)
  same(got.ema_extra, state.ema_extra)
