"""Every config: loads at once, builds at full size, runs as :tiny."""

import dataclasses
import importlib
import json
import subprocess
import sys

import jax
import pytest
from ml_collections import ConfigDict

from big_vision_like import experiment
from big_vision_like.checkpoints import folders
from big_vision_like.config import settings
from big_vision_like.runtime import writers
from configs import common
from input_pipeline.labels.space import LabelSpace, Skeleton
from tests.conftest import ROOT

NAMES = sorted(
  p.stem
  for p in (ROOT / 'configs').glob('*.py')
  if 'def get_config(' in p.read_text()
)
# Arguments without which a config of the user's own data makes no sense.
NEEDED = dict.fromkeys(('own_data', 'own_detection', 'own_pose'), 'path=DATA')


def get(name, arg=None):
  module = importlib.import_module(f'configs.{name}')
  parts = [a for a in (NEEDED.get(name), arg) if a]
  return module.get_config(','.join(parts) or None)


@pytest.mark.parametrize('name', NAMES)
def test_is_locked_plain_data_with_known_keys(name):
  config = get(name)
  assert config.is_locked
  json.loads(config.to_json())
  settings.complete(config)
  doc = importlib.import_module(f'configs.{name}').__doc__
  assert f'configs/{name}.py' in doc


def space_of(num_classes):
  """Of classes that are counted, with as many keypoints as people have."""
  points = Skeleton(tuple(f'point{i}' for i in range(17)))
  found = LabelSpace.of_count(num_classes or 321)
  return dataclasses.replace(found, keypoints=points)


@pytest.mark.parametrize('name', NAMES)
def test_builds_at_full_size_without_data(name):
  config = get(name)
  config.unlock()
  config.input.batch_size = max(config.input.batch_size, 8)
  exp = experiment.build(
    config,
    num_examples=1_000_000,
    space=space_of(config.task.num_classes),
    spaces={
      n: space_of(stream.num_classes) for n, stream in config.input.also.items()
    },
    devices=jax.devices()[:1],
  )
  assert exp.total_steps > 100
  assert len(jax.tree.leaves(exp.abstract_state.params)) > 50


@pytest.mark.parametrize('name', NAMES)
def test_unknown_argument_is_refused_with_the_valid_ones(name):
  with pytest.raises(ValueError, match=r"unknown .* 'speed'.*tiny"):
    get(name, 'speed=9')


def test_loading_configs_imports_nothing_heavy():
  code = (
    'import sys, importlib\n'
    f'for n in {NAMES!r}: importlib.import_module("configs." + n)\n'
    'print([m for m in ("jax", "numpy", "grain", "flax") if m in sys.modules])'
  )
  out = subprocess.run(
    [sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True
  )
  assert out.stdout.strip() == '[]', out.stdout + out.stderr


# Their paths through the program are those of the others.
NIGHTLY = (
  'coco_detection', 'coco_pose', 'downpour_study', 'imagenet21k_resnet',
  'imagenet_resnet', 'imagenet_transfer', 'jft_resnet_large_batch',
  'noise_study', 'own_detection', 'own_pose', 'synthetic_joint',
  'voc_detection', 'voc_segmentation',
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
  'name',
  [
    pytest.param(name, marks=pytest.mark.nightly) if name in NIGHTLY else name
    for name in NAMES
  ],
)
def test_tiny_runs_through_main(name, tmp_path, command_line):
  result = command_line(
    '--config', f'configs/{name}.py:tiny', '--workdir', tmp_path / 'run'
  )
  assert result['code'] == 0, result['err']
  steps = {line['step'] for line in writers.read_metrics(tmp_path / 'run')}
  assert steps >= {0, 2, 3, 4, 6}
  config = settings.from_json(tmp_path / 'run' / 'config.json')
  names = {
    key for line in writers.read_metrics(tmp_path / 'run') for key in line
  }
  for evaluator in config.evals:
    assert any(key.startswith(f'{evaluator}/') for key in names)
  assert folders.find(tmp_path / 'run').name == '6'
  assert 'metrics.png' in result['out']


class TestPaperRecipe:
  """jft_resnet.py says what the paper says (Sun et al. 2017, section 4)."""

  def test_numbers(self):
    c = get('jft_resnet')
    assert c.total_steps == 36_000_000
    assert c.input.batch_size == 32
    assert c.task.num_classes == 18_291
    assert [o.get('size') for o in c.input.ops[1:3]] == [340, 299]
    assert (c.optim.type, c.optim.momentum) == ('rmsprop', 0.9)
    assert c.optim.weight_decay == 1e-4
    assert c.schedule.to_dict() == dict(
      type='staircase', lr=1e-3, factor=0.9, decay_steps=3_000_000
    )
    assert c.model.depth == 101

  def test_arguments(self):
    c = get('jft_resnet', 'depth=152,fraction=0.1,init=imagenet')
    assert c.model.depth == 152
    assert c.total_steps == 3_600_000
    assert c.input.fraction == 0.1
    assert c.init_from.path
    assert get('jft_resnet').init_from.path is None

  def test_arms_of_the_studies(self):
    """Section 5.2: more data, and fewer classes (docs/subsets.md)."""
    for num, steps in ((10**7, 1_250_000), (3 * 10**7, 3_750_000)):
      c = get('jft_resnet', f'num_images={num}')
      assert c.total_steps == steps  # 4 epochs of batches of 32
      assert c.input.source.subset.to_dict() == dict(num_images=num)
    assert 'subset' not in get('jft_resnet').input.source
    few = get('jft_resnet', 'num_images=30000000,labels=imagenet')
    assert few.input.source.subset.to_dict() == dict(
      num_images=30_000_000, labels='imagenet'
    )
    assert few.total_steps == 3_750_000 and few.task.num_classes is None
    assert few.evals.fasteval.data.subset.to_dict() == dict(
      labels='imagenet', unlabelled='keep'
    )
    all_of_them = get('jft_resnet', 'labels=names.txt')
    assert (all_of_them.total_steps, all_of_them.total_epochs) == (None, 4)
    large = get('jft_resnet_large_batch', 'num_images=30000000,labels=imagenet')
    assert large.total_examples == 120_000_000
    assert large.input.source.subset == few.input.source.subset
    assert large.evals.fasteval.data.subset == few.evals.fasteval.data.subset
    with pytest.raises(ValueError, match='num_images and fraction'):
      get('jft_resnet', 'num_images=5,fraction=0.5')
    with pytest.raises(ValueError, match='num_images=-5 is negative'):
      get('jft_resnet_large_batch', 'num_images=-5')

  def test_asynchronous_training(self):
    assert get('jft_resnet').train.mode == 'sync'
    train = get('jft_resnet', 'mode=downpour').train
    assert train.mode == 'downpour'
    assert train.downpour.to_dict() == dict(
      workers=50,
      servers=17,
      head_shards=50,
      policy='round_robin',
      event_sigma=0.25,
      bn_updates='all',
    )

  def test_large_batch_sees_as_many_examples(self):
    c = get('jft_resnet_large_batch')
    assert c.input.batch_size >= 1024
    assert c.total_examples == 36_000_000 * 32
    assert c.model.compute_dtype == 'bfloat16'
    assert c.schedule.warmup_examples > 0


class TestOpenImages:
  """open_images_resnet.py: what its arguments ask for, the ops make."""

  @pytest.mark.parametrize('unknown', ['negative', 'ignore'])
  @pytest.mark.parametrize('confidence', ['target', 'weight', 'ignore'])
  def test_ops_make_what_the_task_needs(self, unknown, confidence):
    c = get(
      'open_images_resnet', f'tiny,unknown={unknown},confidence={confidence}'
    )
    exp = experiment.build(c, devices=jax.devices()[:1])
    assert ('label_conf' in exp.batch_spec) == (confidence != 'ignore')
    assert ('negative_ids' in exp.batch_spec) == (unknown == 'ignore')
    assert (c.task.unknown, c.task.confidence) == (unknown, confidence)

  def test_files_of_the_evaluation_set(self):
    evals = get('open_images_resnet', 'fasteval=a/b').evals
    assert evals.known.unknown == 'ignore' and evals.known.cut == 'none'
    for evaluator in evals.values():
      assert evaluator.data.path == 'a/b'
      assert evaluator.annotated == 'a/b/classes.txt'
    assert evals.fasteval.weights == 'a/b/weights.csv'

  @pytest.mark.slow
  def test_tiny_with_unknown_labels(self, tmp_path, command_line):
    result = command_line(
      '--config', 'configs/open_images_resnet.py:tiny,unknown=ignore',
      '--workdir', tmp_path / 'run',
    )  # fmt: skip
    assert result['code'] == 0, result['err']
    lines = writers.read_metrics(tmp_path / 'run')
    mean = [x for m in lines for k, x in m.items() if 'negatives_per' in k]
    # Up to 8 leaves an image, fewer where draws fell on what is there.
    assert mean and all(4 < x <= 8 for x in mean)


def test_imagenet21k_takes_a_dense_set_besides():
  assert set(get('imagenet21k_resnet').evals) == {'val'}
  evals = get('imagenet21k_resnet', 'fasteval=a/b').evals
  assert evals.fasteval.data.path == 'a/b'
  assert evals.fasteval.weights == 'a/b/weights.csv'
  tiny = get('imagenet21k_resnet', 'tiny,fasteval=a/b').evals
  assert 'annotated' not in tiny.fasteval


class TestDownpourStudy:
  """All runs of downpour_study.py see as many images."""

  @pytest.mark.parametrize('batch', [32, 288, 1632])
  def test_equal_examples(self, batch):
    c = get('downpour_study', f'mode=sync,batch={batch}')
    assert c.total_steps * batch == pytest.approx(700 * 32, rel=0.03)
    assert c.schedule.lr == pytest.approx(0.01 * (batch / 32) ** 0.5)
    assert c.train.mode == 'sync'

  def test_workers(self):
    c = get('downpour_study', 'workers=51,policy=event')
    assert (c.train.downpour.workers, c.train.downpour.policy) == (51, 'event')
    assert (c.total_steps, c.input.batch_size, c.model.bn) == (700, 32, 'batch')


class TestArguments:
  """configs.common.parse."""

  def test_types_follow_the_defaults(self):
    arg = common.parse(
      'n=3,x=0.5,flag,mode=b', n=1, x=1.0, flag=False, mode=('a', 'b')
    )
    assert arg.to_dict() == dict(n=3, x=0.5, flag=True, mode='b')

  def test_a_path_may_hold_commas_and_equal_signs(self):
    arg = common.parse('path=/a,b/c=d,n=2', path='', n=1)
    assert (arg.path, arg.n) == ('/a,b/c=d', 2)

  @pytest.mark.parametrize(
    'text, words',
    [
      ('nn=3', "unknown config argument 'nn'"),
      ('n=three', 'not of type int'),
      ('n', "'n' needs a value"),
      ('mode=c', 'valid: a, b'),
      ('flag=perhaps', 'not of type bool'),
    ],
  )
  def test_errors(self, text, words):
    with pytest.raises(ValueError, match=words):
      common.parse(text, n=1, flag=False, mode=('a', 'b'))


def test_config_json_comes_back_equal(tmp_path):
  config = settings.complete(get('jft_resnet'))
  path = tmp_path / 'config.json'
  path.write_text(settings.to_json(config))
  again = settings.from_json(path)
  assert settings.to_json(again) == settings.to_json(config)
  assert settings.differences(config, again) == []
  changed = ConfigDict(again)
  changed.optim.momentum = 0.5
  assert settings.differences(config, changed) == [
    '  optim.momentum: 0.9 -> 0.5'
  ]
