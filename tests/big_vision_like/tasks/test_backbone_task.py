"""Several heads on one backbone, and the endpoints that they ask for."""

import functools

import jax
import numpy as np
import pytest
from flax import linen as nn
from jax.sharding import PartitionSpec as P

from big_vision_like.models import resnet
from big_vision_like.models.parts import deeplab, heads
from big_vision_like.parallel import mesh
from big_vision_like.tasks import multilabel, segmentation, softmax
from big_vision_like.tasks.parts import backbone_task
from input_pipeline.labels.space import LabelSpace

NUM_CLASSES, NUM_PIXEL_CLASSES = 12, 5
UNIT = 'block2/unit1'


def _head():
  return heads.ClassifierHead(num_classes=NUM_CLASSES)


def _pixel_head():
  return nn.Conv(NUM_PIXEL_CLASSES, (1, 1))


def _two_heads(backbone):
  return backbone_task.BackboneTask(
    backbone,
    {'head': _head(), 'pixels': _pixel_head()},
    endpoints={'head': 'pooled', 'pixels': UNIT},
    space=LabelSpace.of_count(NUM_CLASSES),
    taps=('pooled', UNIT),
  )


def _one_head(backbone, endpoint, taps=()):
  """Its arrays are called as the classifier's, `head/kernel`."""
  return backbone_task.BackboneTask(
    backbone,
    {'head': _pixel_head()},
    endpoints={'head': endpoint},
    space=LabelSpace.of_count(NUM_PIXEL_CLASSES),
    taps=taps,
  )


def _backbone():
  return resnet.Model(depth=14, width=4, conv='native')


def _batch():
  rng = np.random.default_rng(0)
  return {'image': rng.integers(0, 256, (4, 32, 32, 3), np.uint8)}


@functools.cache
def _initialised():
  return jax.jit(_two_heads(_backbone()).init)(jax.random.key(0), _batch())


@pytest.mark.parametrize(
  ('module', 'head'),
  [
    (multilabel, heads.ClassifierHead),
    (softmax, heads.ClassifierHead),
    (segmentation, deeplab.AtrousPyramid),
  ],
)
def test_an_only_head_is_called_head(module, head):
  """The name of its parameters in checkpoints and in the mesh's table."""
  task = module.Task(_backbone(), LabelSpace.of_count(NUM_CLASSES))
  assert {name: type(x) for name, x in task.heads.items()} == {'head': head}
  params, _ = jax.eval_shape(task.init, jax.random.key(0), _batch())
  assert params.keys() == {'backbone', 'head'}


@pytest.mark.parametrize('train', [True, False])
def test_each_head_takes_its_endpoint(train):
  backbone, (params, extra) = _backbone(), _initialised()
  assert params.keys() == {'backbone', 'head', 'pixels'}
  task = _two_heads(backbone)
  image, rng = task.scaled(_batch()), jax.random.key(1)
  outputs, updated = jax.jit(task.outputs, static_argnums=4)(
    params, extra, image, rng, train
  )
  apply = functools.partial(backbone.apply, train=train, taps=('pooled', UNIT))
  ends, stats = jax.jit(functools.partial(apply, mutable=['batch_stats']))(
    {'params': params['backbone'], **extra}, image
  )
  close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-4)
  jax.tree.map(close, updated, stats)
  head = params['head']
  close(outputs['head'], ends['pooled'] @ head['kernel'] + head['bias'])
  head = params['pixels']
  kernel = head['kernel'].squeeze((0, 1))
  close(outputs['pixels'], ends[UNIT] @ kernel + head['bias'])
  assert outputs['pixels'].shape == (4, 2, 2, NUM_PIXEL_CLASSES)


def test_another_head_leaves_the_first_as_it_was():
  alone = backbone_task.BackboneTask(
    _backbone(),
    {'head': _head()},
    endpoints={'head': 'pooled'},
    space=LabelSpace.of_count(NUM_CLASSES),
  )
  params, extra = jax.jit(alone.init)(jax.random.key(0), _batch())
  together, same = _initialised()
  together = {name: together[name] for name in params}
  jax.tree.map(np.testing.assert_array_equal, (params, extra), (together, same))


@pytest.mark.parametrize(
  ('make', 'expected'),
  [
    (_two_heads, {'head/kernel': P(None, 'model'), 'head/bias': P('model')}),
    (functools.partial(_one_head, endpoint='block4'), {}),
  ],
)
def test_only_a_classifier_is_split_over_the_mesh(make, expected):
  """5 classes of pixels on 4 devices: not padded, hence whole."""
  task = make(_backbone())
  params, _ = jax.eval_shape(task.init, jax.random.key(0), _batch())
  placed = mesh.shardings(params, mesh.create(dict(data=2, model=4)))
  split = {
    mesh.path_name(path): x.spec
    for path, x in jax.tree_util.tree_leaves_with_path(placed)
    if x.spec != P()
  }
  assert split == expected


def test_a_head_in_the_middle_pays_for_half_a_net():
  """Its step has no convolution of block4; the usual endpoints have all."""

  def lowered(task):
    def loss(params, extra):
      image, rng = task.scaled(_batch()), jax.random.key(0)
      logits, extra = task.logits(params, extra, image, rng, True)
      return logits.mean(), extra

    shapes = jax.eval_shape(task.init, jax.random.key(0), _batch())
    step = jax.jit(jax.value_and_grad(loss, has_aux=True))
    return shapes, step.lower(*shapes).as_text()

  count = lambda text: text.count('stablehlo.convolution')
  (params, extra), text = lowered(_one_head(_backbone(), 'block3', ('block3',)))
  kernels = lambda tree: sum(
    path[-1].key == 'kernel'
    for path, _ in jax.tree_util.tree_leaves_with_path(tree)
  )
  in_block4 = kernels(params['backbone']['block4'])
  # Forward, and the gradients of kernel and input, the images aside.
  assert count(text) == 3 * (kernels(params) - in_block4) - 1
  (usual, usual_extra), text = lowered(_one_head(_backbone(), 'block3'))
  assert count(text) == 3 * (kernels(params) - in_block4) - 1 + in_block4
  # A checkpoint of the one is one of the other.
  same = lambda a, b: a.shape == b.shape
  assert all(
    jax.tree.leaves(jax.tree.map(same, (params, extra), (usual, usual_extra)))
  )
