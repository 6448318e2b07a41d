"""The kernels of a train step of ResNet: operations and bytes per image.

Shapes come from the model itself: its layers are watched while jax.eval_shape
traces it. Nothing is computed and no accelerator is needed.

A kernel reads its inputs and writes its outputs once. The kernels are
  convolution   one library call each for output, input gradient (not of the
                stem) and kernel gradient; no fusion across its boundary
  batch norm    forward: statistics, then one pass that also takes relu, or
                the addition of the shortcut and relu; backward: sums, then the
                gradient, both with relu's mask from what is in memory anyway
  addition      gradients of the two users of a map are added where it is read
  max-pool, mean over space, classifier (three products), loss from label ids
  update        RMSProp with momentum: 4 float32 reads and 3 writes a parameter,
                and the copy of the parameters in the compute dtype
Maps are in the compute dtype, classifier and parameters in float32. Caches hold
nothing between kernels. What is read once a batch is divided by the batch. A
strided 1x1 convolution reads only the pixels that it uses.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from big_vision_like.models import resnet
from big_vision_like.models.parts import layers

CLASSES = 18_291
_FLOAT32 = 4


class Net(NamedTuple):
  """What is trained, and how."""

  depth: int = 101
  size: int = 299
  batch: int = 128
  dtype: str = 'bfloat16'
  stride_in: str = 'last_unit_3x3'
  classes: int = CLASSES


class Kernel(NamedTuple):
  """Work per image of one kernel of a train step.

  Attributes:
    layer: path of the layer in the model.
    kind: what it computes; groups layers.
    step: 'forward', 'backward' or 'update'.
    flops: floating-point operations; a multiply-add is two.
    bytes: read and written.
  """

  layer: str
  kind: str
  step: str
  flops: float
  bytes: float


class Layer(NamedTuple):
  """A convolution or batch norm as it was called; shapes are [H, W, C]."""

  name: str
  size: int  # of the kernel; 0: batch norm
  before: tuple[int, ...]
  after: tuple[int, ...]


def trace(net: Net) -> tuple[list[Layer], int]:
  """The backbone's layers in order of call, and its number of parameters."""
  model = resnet.Model(
    depth=net.depth,
    compute_dtype=net.dtype,
    stride_in=net.stride_in,
    conv='native',
  )
  found = []

  def watch(call: Callable, args: Any, kwargs: Any, context: Any) -> Any:
    out = call(*args, **kwargs)
    module = context.module
    if isinstance(module, layers.Conv | layers.BatchNorm):
      size = module.size if isinstance(module, layers.Conv) else 0
      name = '/'.join(module.path)
      found.append(Layer(name, size, args[0].shape[1:], out.shape[1:]))
    return out

  image = jax.ShapeDtypeStruct((2, net.size, net.size, 3), jnp.float32)
  key = jax.eval_shape(lambda: jax.random.key(0))
  with nn.intercept_methods(watch):
    variables = jax.eval_shape(lambda k, x: model.init(k, x, True), key, image)
  sizes = [math.prod(x.shape) for x in jax.tree.leaves(variables['params'])]
  return found, sum(sizes)


def kernels(net: Net) -> list[Kernel]:
  """All kernels of a train step."""
  found, params = trace(net)
  norms = {layer.name: layer for layer in found if not layer.size}
  b = jnp.dtype(net.dtype).itemsize
  pixels = net.size**2 * 3
  out = [Kernel('input', 'input', 'forward', 2 * pixels, pixels * (1 + b))]
  for layer in found:
    if layer.size:
      out += _conv(layer, b, net.batch)
  out += _norm_relu(norms['bn1'], b)
  out += _pool(norms['bn1'].after, norms['block1/unit1/bn1'].before, b)
  units = [name[:-4] for name in norms if name.endswith('/bn3')]
  for unit, following in zip(units, [*units[1:], None]):
    out += _norm_relu(norms[f'{unit}/bn1'], b)
    out += _norm_relu(norms[f'{unit}/bn2'], b)
    out += _norm_add_relu(unit, norms, following, b)
  height, width, features = norms[f'{units[-1]}/bn3'].after
  area = height * width * features
  out.append(
    Kernel('mean', 'mean', 'forward', area, area * b + features * _FLOAT32)
  )
  out += _head(features, net)
  params += (features + 1) * net.classes
  out.append(
    Kernel(
      'update',
      'update',
      'update',
      12 * params / net.batch,
      params * (7 * _FLOAT32 + _FLOAT32 + b) / net.batch,
    )
  )
  return out


def _conv(layer: Layer, b: int, batch: int) -> list[Kernel]:
  height, width, features = layer.after
  channels = layer.before[-1]
  taps = layer.size**2 * channels
  flops = 2 * taps * math.prod(layer.after)
  whole = math.prod(layer.before)
  used = height * width * channels if layer.size == 1 else whole
  others = math.prod(layer.after) + taps * features / batch
  make = lambda step, pixels: Kernel(
    layer.name,
    f'convolution {layer.size}x{layer.size}',
    step,
    flops,
    b * (pixels + others),
  )
  work = [make('forward', used), make('backward', used)]
  if layer.name != 'conv1':  # nobody asks for the gradient of the image
    work.append(make('backward', whole))
  return work


def _norm_relu(norm: Layer, b: int) -> list[Kernel]:
  """Backward reads gradient and input twice, and writes the gradient."""
  n = math.prod(norm.after)
  make = lambda step, flops, maps: Kernel(
    norm.name, 'norm + relu', step, flops * n, maps * n * b
  )
  return [
    make('forward', 3, 1),
    make('forward', 3, 2),
    make('backward', 5, 2),
    make('backward', 5, 3),
  ]


def _norm_add_relu(
  unit: str, norms: dict[str, Layer], following: str | None, b: int
) -> list[Kernel]:
  """The end of a unit: norm of its last convolution, shortcut, relu.

  Backward, the first kernel reads the two gradients of the unit's output, that
  output (relu's mask) and the norms' inputs, and writes the masked sum; the
  second reads the sum and the norms' inputs, and writes their gradients.
  """
  n = math.prod(norms[f'{unit}/bn3'].after)
  norms_here = 2 if f'{unit}/shortcut_bn' in norms else 1
  gradients = 0.0  # the mean over space hands down one value a channel
  if following:
    last = norms[f'{following}/bn3'].after
    first = norms[f'{following}/bn1'].before[:2]
    projected = f'{following}/shortcut_bn' in norms
    shared = n if projected or last[:2] == first else math.prod(last)
    gradients = n + shared
  make = lambda step, flops, elements: Kernel(
    unit, 'norm + add + relu', step, flops * n, elements * b
  )
  return [
    *[make('forward', 3, n)] * norms_here,
    make('forward', 2 * norms_here + 2, 3 * n),
    make('backward', 4 * norms_here + 2, gradients + n * (norms_here + 2)),
    make('backward', 5 * norms_here, n * (2 * norms_here + 1)),
  ]


def _pool(before: Sequence[int], after: Sequence[int], b: int) -> list[Kernel]:
  """Backward reads the input again, and the gradients of both users."""
  n, m = math.prod(before), math.prod(after)
  make = lambda step, maps: Kernel('pool', 'max-pool', step, 9 * m, maps * b)
  return [make('forward', n + m), make('backward', 2 * n + 2 * m)]


def _head(features: int, net: Net) -> list[Kernel]:
  """Classifier and logistic loss, float32; three products of equal size."""
  c = net.classes
  flops = 2 * features * c
  moved = _FLOAT32 * (features + c + features * c / net.batch)
  make = lambda step: Kernel('head', 'classifier', step, flops, moved)
  return [
    make('forward'),
    Kernel('loss', 'loss', 'forward', 4 * c, _FLOAT32 * c),
    Kernel('loss', 'loss', 'backward', 4 * c, 2 * _FLOAT32 * c),
    make('backward'),
    make('backward'),
  ]
