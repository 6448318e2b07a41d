"""The plan's figures against arithmetic by hand, and its fake devices."""

import math

import jax
import pytest

from big_vision_like import experiment, plan
from configs import jft_resnet
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
  exp = experiment.build(tiny.config(**changes), num_classes=13)
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
      num_classes=13,
      devices=jax.devices()[:1],
    )
  )
  share = whole.activation_bytes / 8
  if model == 1:
    assert made.activation_bytes == pytest.approx(share, rel=1e-3)
  else:  # every part of the classes keeps the label ids of its images
    label_ids = 8 // data * 32 * 4
    assert share <= made.activation_bytes <= share + label_ids


def test_activations_fall_with_accumulation_and_rematerialisation():
  def activations(**changes):
    exp = experiment.build(
      tiny.config(**changes), num_classes=13, devices=jax.devices()[:1]
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
