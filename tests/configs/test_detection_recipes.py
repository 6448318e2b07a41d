"""What the configs of detection ask for, and what they start from."""

import re

import jax
import numpy as np
import pytest

from big_vision_like import experiment, opening
from big_vision_like.checkpoints import folders
from big_vision_like.runtime import writers
from big_vision_like.tasks.parts import backbone_task
from configs import (
  coco_detection,
  quickstart,
  synthetic_detection,
  voc_detection,
)
from input_pipeline.labels.space import LabelSpace
from tests import random_weights, saved_run, tiny

WIDTH, SIDE = 4, 40
SMALL = 'depth=14,width=8'


def built(config, num_classes=80):
  return experiment.build(
    config,
    LabelSpace.of_count(num_classes),
    num_examples=1000,
    devices=jax.devices()[:1],
  )


def test_the_recipe_of_the_paper():
  c = coco_detection.get_config()
  assert c.optim.to_dict() == dict(
    type='momentum', momentum=0.9, clip=('per_tensor', 10.0)
  )
  assert (c.input.batch_size, c.total_steps) == (1, 3_000_000)
  assert c.schedule.to_dict() == dict(
    type='piecewise', lr=4e-4, factors=(0.1,), boundaries_steps=(2_500_000,)
  )
  fast = coco_detection.get_config('recipe=accelerator')
  assert (fast.input.batch_size, fast.total_steps) == (16, 187_500)
  assert fast.schedule.lr == 16 * 4e-4 and fast.schedule.warmup_steps == 500
  assert c.model.bn == 'frozen' and c.init_from.path == 'workdirs/jft_resnet'
  scratch = coco_detection.get_config('init=random')
  assert scratch.model.bn == 'batch' and scratch.input.batch_size == 8
  simulated = coco_detection.get_config('asynchronous=true').train
  assert simulated.mode == 'downpour'
  assert (simulated.downpour.workers, simulated.downpour.servers) == (9, 11)


def test_frozen_schedules():
  """K18: on VOC the paper leaves it open."""
  steps = lambda c: (c.schedule.boundaries_steps[0], c.total_steps)
  frozen = 'freeze=conv4'
  assert steps(coco_detection.get_config(frozen)) == (900_000, 1_500_000)
  assert steps(voc_detection.get_config(frozen)) == (500_000, 700_000)
  long = voc_detection.get_config(f'{frozen},frozen_steps=long')
  assert steps(long) == (900_000, 1_500_000)
  with pytest.raises(ValueError, match="frozen_steps='both'; valid: short, lo"):
    voc_detection.get_config('frozen_steps=both')


def test_pixels_are_those_of_the_checkpoint():
  """K16: [-1, 1], or means taken off for MSRA's weights."""
  assert 'pixels' not in coco_detection.get_config().task
  msra = coco_detection.get_config(f'{SMALL},layout=msra')
  assert msra.task.pixels == 'msra'
  assert msra.model.stride_in == 'first_unit_1x1'
  task = built(msra).task
  pixels = np.array([[[[0, 117, 255]]]], np.uint8)
  np.testing.assert_allclose(
    task.scaled({'image': pixels})[0, 0, 0],
    [-123.68, 117 - 116.779, 255 - 103.939],
    rtol=1e-4,
  )
  assert 'msra' in backbone_task.PIXELS
  c = coco_detection.get_config(SMALL)
  c.unlock()
  c.task.pixels = 'caffe'
  with pytest.raises(ValueError, match=r"task\.pixels='caffe'; valid: inc"):
    built(c)


def test_scales_and_biases_of_batch_norm():
  """K17: trained, as the code of the time has it, or frozen."""
  with pytest.raises(ValueError, match='bn_parameters=freeze needs weights'):
    voc_detection.get_config('init=random,bn_parameters=freeze')

  def trained(arguments):
    config = voc_detection.get_config(f'{SMALL}{arguments}')
    slots = built(config, 20).abstract_state.opt_state.slots
    leaves = jax.tree_util.tree_leaves_with_path(slots)
    return {'/'.join(key.key for key in path[-2:]) for path, _ in leaves}

  assert {'bn3/scale', 'bn3/bias', 'conv3/kernel'} <= trained('')
  rest = trained(',bn_parameters=freeze')
  assert 'conv3/kernel' in rest
  assert not [name for name in rest if 'bn' in name]


def test_classes_are_counted_without_gaps():
  """K21: 80 of COCO; the code's 90 places are not offered."""
  c = coco_detection.get_config(SMALL)
  assert c.task.num_classes == 80
  c.unlock()
  c.task.num_classes = 90
  with pytest.raises(
    ValueError, match='num_classes=90, but the training source has 80 classes'
  ):
    built(c)


def test_a_cut_before_suppression():
  """K22: none, or so many of the best; big_vision_like/ops/boxes has tests."""
  assert coco_detection.get_config().task.pre_nms_top_k is None
  cut = coco_detection.get_config(f'{SMALL},pre_nms_top_k=6000')
  assert built(cut).task._propose['pre_nms_top_k'] == 6000
  cut.unlock()
  cut.task.pre_nms_top_k = -5
  with pytest.raises(ValueError, match=r'task\.pre_nms_top_k=-5 must be int'):
    built(cut)


def test_presets():
  config = lambda arg: coco_detection.get_config(f'{SMALL},{arg}')
  samples = lambda arg: built(config(arg)).task._samples
  assert samples('preset=paper') == (64, 256)
  assert samples('preset=tfod') == (256, 64)


def test_the_net_of_small_worlds_is_the_quickstarts():
  ours, theirs = (
    module.get_config().model.to_dict()
    for module in (synthetic_detection, quickstart)
  )
  assert {k: ours[k] for k in ('depth', 'width')} == {
    k: theirs[k] for k in ('depth', 'width')
  }


@pytest.fixture(scope='module')
def classifier(tmp_path_factory):
  """(state, workdir) of a net of 13 labels."""
  exp = experiment.build(
    tiny.config(), LabelSpace.of_count(13), devices=jax.devices()[:1]
  )
  state = random_weights.state(exp, SIDE, seed=1)
  folder = tmp_path_factory.mktemp('classifier')
  return state, saved_run.save(folder, exp, state)


def detector(**changes):
  config = synthetic_detection.get_config('tiny')
  config.unlock()
  config.update_from_flattened_dict({'model.width': WIDTH, **changes})
  return built(config, 7)


def test_frozen_statistics_need_a_start():
  with pytest.raises(
    ValueError,
    match=r"init_from\.path is not set, but model\.bn='frozen'.*model\.bn='ba",
  ):
    opening.start_state(detector(**{'model.bn': 'frozen'}), None, None)


def test_a_classifier_becomes_a_detector(classifier, capsys):
  """All of its blocks; what is new and what is left are named."""
  state, workdir = classifier
  path = folders.find(workdir)
  exp = detector(**{'model.bn': 'frozen'})
  found = opening.start_state(exp, path, writers.Console(None))
  jax.tree.map(
    np.testing.assert_array_equal,
    jax.device_get(found.params['backbone']),
    state.params['backbone'],
  )
  jax.tree.map(
    np.testing.assert_array_equal, jax.device_get(found.extra), state.extra
  )
  said = capsys.readouterr().out
  assert f'warm start from {path}' in said
  assert re.search(r'reinitialised: 10 arrays \(box_head/classes/bias, ', said)
  assert 'left: 2 arrays (head/bias, head/kernel)' in said
  other = detector(**{'task.pixels': 'msra'})
  with pytest.raises(ValueError, match=r"task\.pixels.*'inception'"):
    opening.start_state(other, path, writers.Console(None))
