"""Our ResNet against timm's on torch: same weights, same numbers.

The yardstick is timm in float64: our float32 result may be as far from it as
timm's own float32 result is, up to the luck of rounding (a factor of four).
"""

import functools
import importlib.util

import jax
import numpy as np
import pytest

from big_vision_like.models import resnet
from tests.peers import timm_peer

torch = pytest.importorskip('torch')
if importlib.util.find_spec('timm') is None:
  pytest.skip('timm is not installed', allow_module_level=True)

CLASSES = 7
# timm keeps the stride in the 3x3 of a block's first unit, and torch pads the
# max-pool on both sides.
LAYOUT = {'stride_in': 'first_unit_3x3', 'pool_padding': 'symmetric'}
LUCK = 4.0
EPSILON = np.finfo(np.float32).eps


def _images(batch, height=97, width=64):
  rng = np.random.default_rng(1)
  return rng.uniform(-1, 1, (batch, height, width, 3)).astype(np.float32)


@functools.cache
def _weights(depth):
  """State dict of every peer of this depth, whatever its strides."""
  model = timm_peer.build(depth, num_classes=CLASSES)
  timm_peer.randomise(model, seed=0)
  return model.state_dict()


def _peer(depth, **options):
  model = timm_peer.build(depth, num_classes=CLASSES, **options)
  model.load_state_dict(_weights(depth))
  return model


def _to_torch(images, dtype=torch.float32):
  return torch.from_numpy(images.transpose(0, 3, 1, 2).copy()).to(dtype)


def _logits(params, ends):
  head = params['head']
  return ends['pooled'] @ head['kernel'] + head['bias']


def _errors(results, exact):
  """Of every array: |result - exact| / |exact| in the 2-norm."""
  norm = np.linalg.norm
  error = lambda a, b: float(norm(np.ravel(a - b)) / norm(np.ravel(b)))
  return jax.tree.leaves(jax.tree.map(error, results, exact))


def _assert_as_close(ours, peer, exact):
  """Median and worst error of each kind, at most LUCK times the peer's.

  The worst gradients are far above rounding in both: a pre-activation within
  rounding of zero falls on the other side of the ReLU. The median is not.
  """
  for kind in exact:
    mine, theirs = (_errors(r[kind], exact[kind]) for r in (ours, peer))
    for statistic in (np.median, np.max):
      allowed = LUCK * max(statistic(theirs), EPSILON)
      assert statistic(mine) <= allowed, (kind, statistic)
    assert max(mine) < 0.02, kind


@pytest.mark.parametrize(
  ('depth', 'output_stride'),
  [
    (50, 32),
    # The holes of its last stage are among those of a stride of 8.
    pytest.param(50, 16, marks=pytest.mark.nightly),
    (50, 8),
    pytest.param(101, 32, marks=pytest.mark.nightly),
  ],
)
def test_evaluation_logits(depth, output_stride):
  peer = _peer(depth, output_stride=output_stride).eval()
  model = resnet.Model(depth=depth, output_stride=output_stride, **LAYOUT)
  images = _images(2)
  tree = timm_peer.to_tree(peer.state_dict())

  @jax.jit
  def ours(tree, images):
    ends = model.apply(tree, images, train=False)
    return _logits(tree['params'], ends), ends['block4']

  logits, features = ours(tree, images)
  with torch.no_grad():
    single = peer(_to_torch(images)).numpy()
    peer = peer.double()
    exact = peer(_to_torch(images, torch.float64)).numpy()
    maps = peer.forward_features(_to_torch(images, torch.float64)).numpy()
  assert np.abs(exact).max() > 1  # the logits carry something
  _assert_as_close(*({'logits': x} for x in (logits, single, exact)))
  assert features.shape == maps.transpose(0, 2, 3, 1).shape
  scale = np.abs(maps).max()
  np.testing.assert_allclose(
    features, maps.transpose(0, 2, 3, 1), rtol=0, atol=1e-5 * scale
  )


def _channels_last(maps):
  return maps.detach().numpy().transpose(0, 2, 3, 1)


def test_output_of_a_unit():
  peer = _peer(50).eval().double()
  tree = timm_peer.to_tree(_weights(50))
  outputs = []
  peer.layer3[1].register_forward_hook(lambda *args: outputs.append(args[-1]))
  images, name = _images(2), 'block3/unit2'
  with torch.no_grad():
    peer(_to_torch(images, torch.float64))
  model = resnet.Model(depth=50, **LAYOUT)
  apply = lambda tree, images: model.apply(tree, images, False, (name,))
  found, exact = jax.jit(apply)(tree, images)[name], _channels_last(outputs[0])
  np.testing.assert_allclose(
    found, exact, rtol=0, atol=1e-5 * np.abs(exact).max()
  )


@pytest.mark.parametrize(('stride', 'rate'), [(1, 1), (2, 1), (1, 2)])
def test_block4_on_crops(stride, rate):
  """What a detector does: torch's layer4 with other strides and holes."""
  peer = _peer(50).eval()
  tree = timm_peer.to_tree(peer.state_dict())
  crops = np.random.default_rng(3).uniform(0, 1, (3, 7, 9, 1024))
  layer = peer.double().layer4
  for convolution in (layer[0].conv2, layer[0].downsample[0]):
    assert convolution.stride == (2, 2)
    convolution.stride = (stride, stride)
  for unit in layer:
    unit.conv2.dilation = unit.conv2.padding = (rate, rate)
  exact = _channels_last(layer(_to_torch(crops, torch.float64)))
  model = resnet.Model(depth=50, **LAYOUT)
  apply = lambda tree, crops: model.apply(
    tree, crops, 'block4', False, stride, rate, method='stage'
  )
  found = jax.jit(apply)(tree, crops.astype(np.float32))
  assert found.shape == exact.shape
  np.testing.assert_allclose(
    found, exact, rtol=0, atol=1e-5 * np.abs(exact).max()
  )


def _peer_step(model, images, targets, dtype):
  model = model.to(dtype).train()
  model.zero_grad()
  logits = model(_to_torch(images, dtype))
  loss = torch.nn.functional.binary_cross_entropy_with_logits(
    logits, torch.from_numpy(targets).to(dtype), reduction='sum'
  )
  loss.backward()
  gradients = {n: p.grad.clone() for n, p in model.named_parameters()}
  return {
    'logits': logits.detach().numpy(),
    'gradient': timm_peer.to_tree(gradients)['params'],
    'batch_stats': timm_peer.to_tree(model.state_dict())['batch_stats'],
  }


@pytest.mark.slow
@pytest.mark.parametrize(
  ('depth', 'bn_mode'),
  [
    (50, 'batch'),
    pytest.param(101, 'batch', marks=pytest.mark.nightly),
    pytest.param(50, 'frozen', marks=pytest.mark.nightly),
  ],
)
def test_training_step(depth, bn_mode):
  """Logits, moving statistics and every parameter's gradient."""
  images = _images(8)
  rng = np.random.default_rng(2)
  targets = (rng.uniform(size=(8, CLASSES)) < 0.3).astype(np.float32)
  model = resnet.Model(depth=depth, bn=bn_mode, bn_decay=0.9, **LAYOUT)
  tree = timm_peer.to_tree(_weights(depth))

  def loss(params):
    variables = {'params': params, 'batch_stats': tree['batch_stats']}
    ends, new = model.apply(variables, images, True, mutable='batch_stats')
    logits = _logits(params, ends)
    softplus = jax.nn.softplus(logits)
    return (softplus - logits * targets).sum(), (logits, new['batch_stats'])

  gradient, (logits, stats) = jax.jit(jax.grad(loss, has_aux=True))(
    tree['params']
  )
  ours = {'logits': logits, 'gradient': gradient, 'batch_stats': stats}

  def peer(dtype):
    module = _peer(depth)
    if bn_mode == 'frozen':  # evaluation mode, gradients as in training
      norm = torch.nn.BatchNorm2d
      for layer in (m for m in module.modules() if isinstance(m, norm)):
        layer.train = lambda mode=True, layer=layer: layer
        layer.training = False
    return _peer_step(module, images, targets, dtype)

  single, exact = peer(torch.float32), peer(torch.float64)

  _assert_as_close(ours, single, exact)
  before = tree['batch_stats']['block4']['unit3']['bn3']['var']
  after = ours['batch_stats']['block4']['unit3']['bn3']['var']
  assert np.array_equal(before, after) == (bn_mode == 'frozen')
