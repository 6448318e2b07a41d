"""The plan's figures against arithmetic by hand, and its fake devices."""

import ast
import dataclasses
import math
import re

import jax
import pytest

from big_vision_like import experiment, memory_advice, plan
from big_vision_like.config import settings
from configs import jft_resnet
from input_pipeline.labels.space import LabelSpace
from tests import tiny


def test_paper_sizes():
  exp = experiment.build(jft_resnet.get_config(), devices=jax.devices()[:1])
  made = plan.make(exp)
  backbone = 42_500_160  # ResNet-101 without its classifier
  head = 2048 * 18_300 + 18_300
  assert made.num_params == backbone + head
  assert made.param_bytes == made.grad_bytes == 4 * (backbone + head)
  slots = 2 * 4 * (backbone + head)  # mean square and momentum
  assert slots <= made.slot_bytes <= slots + 64
  assert made.ema_bytes == 0
  assert made.total_steps == 36_000_000
  assert made.total_examples == 1_152_000_000
  # Forward is 7.8e9 multiply-adds at 224 (He et al. 2016, table 1: 7.6e9
  # without the pooling and shortcuts), 299 has (299 / 224)^2 of the pixels, a
  # train step three forwards, a multiply-add two FLOPs.
  expected = 7.8e9 * (299 / 224) ** 2 * 3 * 2
  assert made.flops_per_image == pytest.approx(expected, rel=0.1)
  image = 32 * 299 * 299 * 3
  assert made.batch_bytes == image + 32 * (128 * 4 + 4 + 1)


@pytest.mark.parametrize('data, model', [(8, 1), (2, 4)])
def test_bytes_per_device_follow_the_mesh(data, model):
  changes = {'mesh.data': data, 'mesh.model': model}
  exp = experiment.build(tiny.config(**changes), space=LabelSpace.of_count(13))
  params = jax.tree_util.tree_leaves_with_path(exp.abstract_state.params)
  by_hand = 0
  for path, leaf in params:
    in_head = 'head' in str(path[0])
    by_hand += 4 * math.prod(leaf.shape) // (model if in_head else 1)
  made = plan.make(exp)
  assert made.param_bytes == by_hand
  whole = plan.make(
    experiment.build(
      tiny.config(**{'mesh.data': 1}),
      space=LabelSpace.of_count(13),
      devices=jax.devices()[:1],
    )
  )
  share = whole.activation_bytes / 8
  if model == 1:
    assert made.activation_bytes == pytest.approx(share, rel=1e-3)
  else:  # the head keeps label ids and features of the rows that it gathers
    gathered = (8 // data - 1) * (32 + 128) * 4
    assert made.activation_bytes == pytest.approx(share + gathered, rel=1e-3)


def test_activations_fall_with_accumulation_and_rematerialisation():
  def activations(**changes):
    exp = experiment.build(
      tiny.config(**changes),
      space=LabelSpace.of_count(13),
      devices=jax.devices()[:1],
    )
    return plan.make(exp).activation_bytes

  base = activations()
  assert activations(**{'train.accum_steps': 4}) == pytest.approx(
    base / 4, rel=1e-3
  )
  assert activations(**{'model.remat': True}) < 0.6 * base
  native = {'model.conv': 'native'}  # the CPU's max-pool is float32 throughout
  half = activations(**native, **{'model.compute_dtype': 'bfloat16'})
  assert half < 0.8 * activations(**native)


@pytest.mark.slow
def test_a_mesh_larger_than_the_machine(command_line):
  result = command_line(
    '--config=configs/jft_resnet_large_batch.py',
    '--mode=plan',
    '--config.plan.num_devices=64',
    '--config.mesh.model=4',
  )
  assert result['code'] == 0, result['err']
  out = result['out']
  assert 'data=16 x model=4 (64 devices)' in out
  assert 'global batch          4096 (64 a device)' in out
  assert "2048x18304  (None, 'model')" in out
  assert '18,291' in out


@pytest.mark.nightly
def test_advice_is_planned_again_with_the_change(capsys):
  """Every proposed line, against a plan of the config with its keys set."""
  config = tiny.config(
    **{'input.batch_size': 32, 'task.num_classes': 13, 'total_steps': 6}
  )
  config.plan.device_memory_gib = 1e-4  # 105 KiB
  made = plan.run(config)
  out = capsys.readouterr().out
  assert made.device_bytes > 1e-4 * 2**30
  assert 'does not fit 0.0001 GiB' in out
  pattern = r'^  (\S.*?) +saves (\S+) GiB: (\S+) GiB, (fits|does not fit)$'
  rows = re.findall(pattern, out, re.MULTILINE)
  keys = {re.sub('=.*', '', row[0]) for row in rows}
  assert keys == {
    'model.remat',
    'model.compute_dtype',
    'train.accum_steps',
    'mesh.model',
    'mesh.shard_slots',
    'input.batch_size',
  }
  for text, saving, needed, verdict in rows:
    pairs = [word.split('=') for word in text.split()]
    changes = {key: ast.literal_eval(value) for key, value in pairs}
    other = plan.make(
      experiment.build(memory_advice.changed(config, changes)),
      count_flops=False,
    )
    assert float(needed) == pytest.approx(other.device_bytes / 2**30, abs=6e-4)
    less = made.device_bytes - other.device_bytes
    assert less > 0
    assert float(saving) == pytest.approx(less / 2**30, abs=6e-4)
    assert (verdict == 'fits') == (other.device_bytes <= 1e-4 * 2**30)


@dataclasses.dataclass
class Figures:
  device_bytes: int
  activation_bytes: int


def test_advice_stops_at_what_fits_and_adds_up_where_nothing_does():
  gib = 2**30

  def planned(config):
    kept = 8 * gib // config.train.accum_steps
    kept = kept // 2 if config.model.get('remat') else kept
    slots = gib if config.mesh.shard_slots else 4 * gib
    return Figures(kept + slots, kept)

  config = settings.complete(tiny.config(**{'input.batch_size': 32}))
  config.mesh.model = 1
  shape = {'data': 8, 'model': 1}

  def advice(limit):
    config.plan.device_memory_gib = limit
    return memory_advice.lines(config, planned(config), shape, planned)

  assert advice(12.0) == [
    'fits 12 GiB a device, 0.000 GiB free for temporaries'
  ]
  first, _, *rows = advice(8.0)
  assert first == 'does not fit 8 GiB a device: 4.000 GiB too much'
  assert [row.split() for row in rows] == [
    f'{key} saves {n}.000 GiB: {12 - n}.000 GiB, {verdict}'.split()
    for key, n, verdict in [
      ('model.remat=True', 4, 'fits'),
      ('train.accum_steps=2', 4, 'fits'),
      ('mesh.shard_slots=True', 3, 'does not fit'),
    ]
  ]
  # The 4 images of a device allow 4 parts: 2 + 4, or with remat 1 + 4.
  *_, heading, last = advice(4.0)
  assert heading == 'together'
  assert last.split(':')[0].split() == [
    'train.accum_steps=4',
    'model.remat=True',
    'mesh.shard_slots=True',
  ]
  assert last.endswith(': 2.000 GiB, fits')
  config.plan.device_memory_gib = 0.0
  with pytest.raises(ValueError, match=r'plan\.device_memory_gib=0\.0 must be'):
    settings.complete(config)


@pytest.mark.slow
def test_a_run_that_does_not_fit_is_no_error(command_line):
  result = command_line(
    '--config=configs/quickstart.py',
    '--mode=plan',
    '--config.plan.device_memory_gib=0.01',
  )
  assert result['code'] == 0, result['err']
  assert 'does not fit 0.01 GiB a device' in result['out']
  assert 'model.remat=True' in result['out']


def _without_data(**options):
  config = settings.complete(tiny.config())
  config.input.source = dict(type='folder', path='nowhere')
  config.task.num_classes = None
  config.plan.update(options)
  return config


def test_a_vocabulary_file_stands_for_the_data(tmp_path, capsys):
  """7 names, 640 images: 2 epochs are 1,280 images."""
  names = tmp_path / 'classes.txt'
  names.write_text('\n'.join('abcdefg'))
  config = _without_data(vocabulary=str(names), num_examples=640)
  config.total_steps, config.total_epochs = None, 2
  made = plan.run(config)
  assert made.total_examples == 1280
  assert re.search(r'^classes +7$', capsys.readouterr().out, re.MULTILINE)


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    ({}, 'nowhere.*--config.plan.vocabulary=FILE'),
    (dict(vocabulary='none.txt'), 'plan.vocabulary: .*none.txt'),
    (dict(vocabulary='none.csv'), 'plan.vocabulary: none.csv: .*suffix'),
    (dict(num_examples=0), 'plan.num_examples.*at least 1'),
  ],
)
def test_what_the_plan_is_told_of_absent_data(options, message):
  with pytest.raises((ValueError, FileNotFoundError), match=message):
    plan.run(_without_data(**options))
