"""Faster R-CNN put together: losses by numpy, what is frozen, what counts."""

import jax
import numpy as np
import pytest

from big_vision_like.models import resnet
from big_vision_like.tasks import detection
from big_vision_like.training import optim
from input_pipeline.labels.space import LabelSpace

NUM_CLASSES, SIZE, STRIDE = 3, 32, 8
OPTIONS: dict = dict(
  anchors_per_image=1000,  # all of them: nothing is left to chance
  boxes_per_image=32,
  anchor_base=16.0,
  anchor_scales=(0.5, 1.0),
  anchor_ratios=(1.0,),
  prune_anchors=False,
  num_proposals=32,
  pooled_size=2,
  rpn_channels=8,
  crowd='as_box',
  per_class=3,
  max_detections=5,
)


def make(freeze='none', **options):
  backbone = resnet.Model(
    depth=14, width=4, output_stride=STRIDE, conv='native', freeze=freeze
  )
  space = LabelSpace.of_count(NUM_CLASSES)
  return detection.Task(backbone, space, **{**OPTIONS, **options})


def batch(seed=0):
  """Two images with boxes, one without, one blank that does not count."""
  rng = np.random.default_rng(seed)
  boxes = np.zeros((4, 3, 4), np.float32)
  boxes[0, 0] = 2, 3, 18, 17
  boxes[0, 1] = 16, 10, 30, 31
  boxes[1, 0] = 8, 8, 24, 24
  boxes[1, 1] = 9, 9, 9, 20  # no height
  mask = np.zeros((4, 3), bool)
  mask[0, :2] = mask[1, :2] = True
  labels = np.full((4, 3), -1, np.int32)
  labels[mask] = 2, 0, 1, 1
  size = np.full((4, 2), SIZE, np.int32)
  size[1] = 28, 26
  size[3] = 0
  image = rng.integers(0, 256, (4, SIZE, SIZE, 3), np.uint8)
  image[3] = 0
  return {
    'image': image,
    'image_size': size,
    'original_size': size * 3,
    'boxes': boxes,
    'box_labels': labels,
    'box_mask': mask,
    '_mask': np.array([1, 1, 1, 0], bool),
  }


@pytest.fixture(scope='module')
def task():
  return make()


@pytest.fixture(scope='module')
def variables(task):
  return jax.jit(task.init)(jax.random.key(0), batch())


def numbers(tree) -> dict[str, float]:
  return {k: np.asarray(v) for k, v in tree.items()}


@pytest.fixture(scope='module')
def result(task, variables):
  loss, extra, aux = jax.jit(task.loss, static_argnums=4)(
    *variables, batch(), jax.random.key(1), True
  )
  return np.asarray(loss), extra, numbers(aux)


def test_there_is_one_block4(variables):
  params, extra = variables
  assert params.keys() == {'backbone', 'rpn', 'box_head'}
  plain = resnet.Model(depth=14, width=4, output_stride=STRIDE, conv='native')
  image = np.zeros((1, SIZE, SIZE, 3), np.float32)
  fresh = jax.eval_shape(
    lambda key: plain.init(key, image, train=False), jax.random.key(0)
  )
  shapes = lambda tree: jax.tree.map(lambda x: x.shape, tree)
  assert shapes(params['backbone']) == shapes(fresh['params'])
  assert shapes(extra) == shapes({'batch_stats': fresh['batch_stats']})
  assert params['box_head']['codes']['kernel'].shape == (128, 4 * NUM_CLASSES)
  assert params['box_head']['classes']['kernel'].shape == (128, 4)
  assert params['rpn']['codes']['kernel'].shape == (8, 2 * 4)


def test_the_loss_is_the_weighted_sum_of_the_four(result):
  loss, _, aux = result
  expected = (
    aux['rpn_objectness']
    + 2 * aux['rpn_localization']
    + aux['box_classification']
    + 2 * aux['box_localization']
  )
  np.testing.assert_allclose(loss, expected, rtol=1e-6)
  assert np.isfinite(loss).all()


def test_an_image_without_boxes_trains_as_background(result):
  _, _, aux = result
  assert aux['num_positive_anchors'][2] == aux['num_positive_boxes'][2] == 0
  assert aux['rpn_localization'][2] == aux['box_localization'][2] == 0
  assert aux['rpn_objectness'][2] > 0 and aux['box_classification'][2] > 0


def test_boxes_without_an_area_are_counted(result):
  np.testing.assert_array_equal(result[2]['num_degenerate'], [0, 1, 0, 0])


def _objectness(task, variables, data, row):
  """The first stage's class loss of an image, in float64, all anchors."""
  params, extra = variables
  ends, _ = task.apply_backbone(
    params, extra, None, False, task.scaled(data), taps=('block3',)
  )
  head = params['rpn']
  x = np.asarray(ends['block3'], np.float64)[row]
  kernel = np.asarray(head['conv']['kernel'], np.float64)
  wide = np.pad(x, ((2, 2), (2, 2), (0, 0)))  # 3x3 at rate 2
  side = x.shape[0]
  taps = [
    wide[2 * i : 2 * i + side, 2 * j : 2 * j + side] @ kernel[i, j]
    for i in range(3)
    for j in range(3)
  ]
  x = np.clip(sum(taps) + np.asarray(head['conv']['bias']), 0, 6)
  dense = head['classes']
  logits = x @ np.asarray(dense['kernel'], np.float64) + dense['bias']
  logits = logits.reshape(-1, 2)  # places, then anchors
  sides = 8.0, 16.0
  places = np.arange(side) * STRIDE
  anchors = np.array([
    (y - s / 2, x - s / 2, y + s / 2, x + s / 2)
    for y in places for x in places for s in sides
  ])  # fmt: skip
  truth = data['boxes'][row][data['box_mask'][row]].astype(np.float64)
  iou = np.array([[_iou(a, b) for b in truth] for a in anchors])
  label = np.full(len(anchors), 0)
  label[(iou.max(1) >= 0.3) & (iou.max(1) < 0.7)] = -1
  label[iou.max(1) >= 0.7] = 1
  label[iou.argmax(0)] = 1  # every box forces one
  height, width = data['image_size'][row]
  beyond = (anchors[:, 0] >= height) | (anchors[:, 1] >= width)
  beyond |= (anchors[:, 2] <= 0) | (anchors[:, 3] <= 0)
  label[beyond] = -1
  log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
  counted = label >= 0
  return -log_p[counted, label[counted]].mean()


def _iou(a, b):
  sides = [max(min(a[2 + i], b[2 + i]) - max(a[i], b[i]), 0) for i in (0, 1)]
  area = lambda box: (box[2] - box[0]) * (box[3] - box[1])
  both = sides[0] * sides[1]
  return both / (area(a) + area(b) - both)


def test_objectness_is_that_of_numpy(task, variables):
  data = batch()
  _, _, aux = jax.jit(task.loss, static_argnums=4)(
    *variables, data, jax.random.key(1), False
  )
  expected = _objectness(task, variables, data, 0)
  np.testing.assert_allclose(aux['rpn_objectness'][0], expected, rtol=1e-4)


def _gradient(task, variables):
  params, extra = variables

  def loss(params, extra, data):
    values, _, _ = task.loss(params, extra, data, jax.random.key(1), True)
    return (values * data['_mask']).sum()

  return jax.jit(jax.grad(loss)), (params, extra, batch())


def test_a_blank_leaves_no_trace_in_the_gradient(task, variables):
  grad, arguments = _gradient(task, variables)
  for x in jax.tree.leaves(grad(*arguments)):
    assert np.isfinite(x).all() and np.asarray(x).any()


def test_frozen_up_to_conv4_there_is_no_gradient_below(variables):
  """And no backward pass: every third convolution of the rest is missing."""
  task = make(freeze='conv4')
  grad, arguments = _gradient(task, variables)
  found = grad(*arguments)
  frozen = {'conv1', 'bn1', 'block1', 'block2', 'block3'}
  for name, tree in found['backbone'].items():
    moved = any(np.asarray(x).any() for x in jax.tree.leaves(tree))
    assert moved == (name not in frozen), name
  section = dict(
    type='momentum', momentum=0.9, freeze=list(task.frozen_parameters)
  )
  rule = optim.build(section, lambda step: 0.1, variables[0])
  slots = jax.tree_util.tree_leaves_with_path(rule.init(variables[0]).slots)
  names = {jax.tree_util.keystr(path) for path, _ in slots}
  assert any('block4' in name for name in names)
  assert not any(f'{part}' in n for n in names for part in ('block3', 'conv1/'))


def test_detections_are_in_pixels_of_the_original(task, variables):
  """Three times the size that the net sees; none beyond the image."""
  params, extra = variables

  class State:
    pass

  state = State()
  state.params, state.extra = params, extra
  prediction = task.predictions['detections']
  assert prediction.kind == 'boxes'
  data = {name: batch()[name] for name in prediction.reads}
  found = jax.jit(lambda data: prediction(state, data))(data)
  found = numbers(found)
  assert found['boxes'].shape == (4, 5, 4)
  assert found['mask'][:3].any(1).all()
  limit = np.tile(data['original_size'], 2)[:, None]
  kept = found['mask']
  assert (found['boxes'][kept] >= 0).all()
  assert (found['boxes'] <= limit + 1e-3)[kept].all()
  assert (found['boxes'][0] > SIZE).any()
  assert set(found['labels'][kept]) <= set(range(NUM_CLASSES))
  assert (np.diff(np.where(kept, found['scores'], 0), axis=1) <= 0).all()


def test_padding_is_felt_near_the_border_only(task, variables):
  """benchmarks/canvas_border.py measures how much."""
  image = np.random.default_rng(2).integers(0, 256, (1, 96, 96, 3), np.uint8)
  wide = np.full((1, 120, 128, 3), 128, np.uint8)
  wide[:, :96, :96] = image
  see = jax.jit(lambda image: task.frozen_map(*variables, {'image': image}))
  alone, padded = np.asarray(see(image)), np.asarray(see(wide))[:, :12, :12]
  change = np.abs(padded - alone).max((0, 3))
  assert change[:8, :8].max() < 1e-5 * np.abs(alone).max()
  assert change[11].max() > 0 and change[:, 11].max() > 0


def test_a_model_without_stages_is_named():
  from flax import linen as nn

  class NoStage(nn.Module):
    @nn.compact
    def __call__(self, image, train, taps=()):
      return {'block3': nn.Dense(4)(image[:, ::8, ::8])}

  task = detection.Task(
    NoStage(), LabelSpace.of_count(3), **{**OPTIONS, 'rpn_channels': 4}
  )
  with pytest.raises(ValueError, match="NoStage: has no method 'stage', which"):
    jax.eval_shape(task.init, jax.random.key(0), batch())
