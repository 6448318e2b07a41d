"""ResNet v1 with bottleneck units (He et al. 2016), laid out as TF slim does.

Sun et al. 2017 train ResNet-101 and take "the standard ResNet"; their
framework's version is slim's `resnet_v1`, which this follows: explicit
symmetric padding, the stride of blocks 1 to 3 in the 3x3 convolution of their
*last* unit, batch norm after every convolution. Other checkpoints put the
stride into the first unit: `stride_in`.

`output_stride` 8 or 16 keeps the feature map dense: once the stride is
reached, further strides become dilation of all that follows (atrous
convolution, Chen et al. 2017), so that every n-th dense feature equals the
feature of the strided net.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from big_vision_like.models.parts import layers

# Bottleneck units in block1..block4. 14 and 26 are for tests and small data.
UNITS = {
  14: (1, 1, 1, 1),
  26: (2, 2, 2, 2),
  50: (3, 4, 6, 3),
  101: (3, 4, 23, 3),
  152: (3, 8, 36, 3),
}
# What `freeze` freezes: all up to and including this part of the paper's names.
FREEZE = ('none', 'conv1', 'conv2', 'conv3', 'conv4', 'backbone')
_STAGES = ('stem', 'block1', 'block2', 'block3', 'block4')
STRIDE_PLACEMENTS = ('last_unit_3x3', 'first_unit_1x1', 'first_unit_3x3')
_STEM_STRIDE = 4


class UnitSpec(NamedTuple):
  """Stride of a unit, where it sits, and the dilation of its 3x3."""

  stride: int
  rate: int
  stride_in_1x1: bool


def unit_specs(
  units: Sequence[int], output_stride: int, stride_in: str
) -> list[list[UnitSpec]]:
  """Strides and dilations of every unit, block by block.

  Args:
    units: number of units in each of the four blocks.
    output_stride: input pixels per feature of the last block.
    stride_in: one of STRIDE_PLACEMENTS.
  """
  last = stride_in == 'last_unit_3x3'
  in_1x1 = stride_in == 'first_unit_1x1'
  strided_blocks = (0, 1, 2) if last else (1, 2, 3)
  stride, rate = _STEM_STRIDE, 1
  specs = []
  for block, count in enumerate(units):
    specs.append([])
    for unit in range(count):
      strided = block in strided_blocks and unit == (count - 1 if last else 0)
      wanted = 2 if strided else 1
      if stride < output_stride:
        specs[-1].append(UnitSpec(wanted, 1, in_1x1))
        stride *= wanted
      else:
        # A dropped stride dilates what came after it: that includes the
        # unit's own 3x3 only if the stride sat on the 1x1 before it.
        before, rate = rate, rate * wanted
        specs[-1].append(UnitSpec(1, rate if in_1x1 else before, in_1x1))
  return specs


class Layers(NamedTuple):
  """What all layers of a net share: keyword arguments of Conv, BatchNorm."""

  conv: dict[str, Any]
  bn: dict[str, Any]


class Unit(nn.Module):
  """1x1, 3x3, 1x1 bottleneck and shortcut; out: [B, h, w, 4 * width]."""

  width: int
  spec: UnitSpec
  layers: Layers

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    stride, rate, stride_in_1x1 = self.spec
    strides = (stride, 1) if stride_in_1x1 else (1, stride)

    def conv_bn(x, features, size, name, bn_name, stride=1, rate=1):
      conv = layers.Conv(
        features, size, stride, rate, name=name, **self.layers.conv
      )
      bn = layers.BatchNorm(name=bn_name, **self.layers.bn)
      return bn(conv(x), train)

    depth = 4 * self.width
    if x.shape[-1] == depth:
      shortcut = layers.subsample(x, stride)
    else:
      shortcut = conv_bn(x, depth, 1, 'shortcut', 'shortcut_bn', stride)
    x = nn.relu(conv_bn(x, self.width, 1, 'conv1', 'bn1', strides[0]))
    x = nn.relu(conv_bn(x, self.width, 3, 'conv2', 'bn2', strides[1], rate))
    x = conv_bn(x, depth, 1, 'conv3', 'bn3')
    return nn.relu(shortcut + x)


class Block(nn.Module):
  """A run of units of one width."""

  width: int
  specs: Sequence[UnitSpec]
  layers: Layers
  remat: bool

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    # Argument 2 of __call__(self, x, train) is a Python bool.
    unit = nn.remat(Unit, static_argnums=(2,)) if self.remat else Unit
    for n, spec in enumerate(self.specs, start=1):
      x = unit(self.width, spec, self.layers, name=f'unit{n}')(x, train)
    return x


class Model(nn.Module, kw_only=True):
  """ResNet v1 backbone.

  Attributes:
    depth: 14, 26, 50, 101 or 152 layers.
    width: channels of the stem; blocks have 4, 8, 16, 32 times as many.
    output_stride: 8, 16 or 32 input pixels per feature of block4.
    stride_in: where blocks change resolution; 'last_unit_3x3' is slim's.
    pool_padding: of the stem's max-pool; 'same' is slim's.
    bn, bn_group, bn_decay, bn_epsilon: mode, ghost group size and constants
      of layers.BatchNorm.
    compute_dtype: 'float32' or 'bfloat16'; parameters, statistics and pooled
      features are float32 either way.
    conv: 'native', 'matmul' (see layers.py) or 'auto' for the backend's best.
    remat: recompute each unit in the backward pass to save memory.
    freeze: 'none', or the last part that is not trained: 'conv1' (the stem),
      'conv2' to 'conv4' (block1 to block3), 'backbone' (all). Frozen parts use
      their moving statistics and have no gradient.

  Raises:
    ValueError: on an option outside its choices, naming `model.<option>`.
  """

  # Options that change what the same arrays compute: a warm start compares.
  LAYOUT = ('stride_in', 'pool_padding')

  depth: int = 50
  width: int = 64
  output_stride: int = 32
  stride_in: str = 'last_unit_3x3'
  pool_padding: str = 'same'
  bn: str = 'batch'
  bn_group: int = 32
  bn_decay: float = 0.997
  bn_epsilon: float = 1e-5
  compute_dtype: str = 'float32'
  conv: str = 'auto'
  remat: bool = False
  freeze: str = 'none'

  def __post_init__(self):
    _check(self)
    super().__post_init__()

  def frozen_parameters(self) -> tuple[str, ...]:
    """Patterns of the parameters that `freeze` leaves as they are."""
    frozen = _STAGES[: FREEZE.index(self.freeze)]
    stem = ('conv1/.*', 'bn1/.*')
    return tuple(
      pattern
      for stage in frozen
      for pattern in (stem if stage == 'stem' else (f'{stage}/.*',))
    )

  @nn.compact
  def __call__(self, image: jax.Array, train: bool) -> dict[str, jax.Array]:
    """Named features of images.

    Args:
      image: [B, H, W, 3] float in [-1, 1].
      train: use and update the batch statistics (make `batch_stats` mutable).

    Returns:
      'conv1', 'block1' .. 'block4': maps [B, h, w, C] in the compute dtype;
      'pooled': float32 [B, 32 * width], the spatial mean of block4.
    """
    dtype = jnp.dtype(self.compute_dtype)
    method = layers.resolve_conv(self.conv)
    shared = Layers(
      conv=dict(method=method, dtype=dtype),
      bn=dict(
        mode=self.bn,
        group=self.bn_group,
        decay=self.bn_decay,
        epsilon=self.bn_epsilon,
        dtype=dtype,
      ),
    )
    num_frozen = FREEZE.index(self.freeze)

    def border(x: jax.Array, stage: int) -> jax.Array:
      """Nothing before the end of the last frozen stage has a gradient."""
      return jax.lax.stop_gradient(x) if stage == num_frozen - 1 else x

    x = layers.Conv(self.width, 7, 2, name='conv1', **shared.conv)(image)
    bn = layers.BatchNorm(name='bn1', **shared.bn)
    x = border(nn.relu(bn(x, train and num_frozen == 0)), 0)
    ends = {'conv1': x}
    x = layers.max_pool_3x3_stride_2(x, self.pool_padding, method)
    specs = unit_specs(UNITS[self.depth], self.output_stride, self.stride_in)
    for n, block in enumerate(specs):
      name, width = f'block{n + 1}', self.width * 2**n
      trained = train and n + 1 >= num_frozen
      x = Block(width, block, shared, self.remat, name=name)(x, trained)
      ends[name] = x = border(x, n + 1)
    ends['pooled'] = x.mean((1, 2), dtype=jnp.float32)
    return ends


_CHOICES = {
  'depth': tuple(UNITS),
  'output_stride': (8, 16, 32),
  'stride_in': STRIDE_PLACEMENTS,
  'pool_padding': layers.POOL_PADDINGS,
  'bn': layers.BATCH_NORMS,
  'compute_dtype': ('float32', 'bfloat16'),
  'conv': layers.CONV_METHODS,
  'remat': (False, True),
  'freeze': FREEZE,
}


def _check(model: Model) -> None:
  for name, valid in _CHOICES.items():
    value = getattr(model, name)
    if value not in valid:
      choices = ', '.join(map(repr, valid))
      raise ValueError(f'model.{name}: {value!r} is not one of {choices}')
  for name in ('width', 'bn_group'):
    value = getattr(model, name)
    if not isinstance(value, int) or value < 1:
      raise ValueError(f'model.{name}: {value!r} is not a positive integer')
  if not 0 <= model.bn_decay < 1:
    raise ValueError(f'model.bn_decay: {model.bn_decay!r} is not in [0, 1)')
  if not model.bn_epsilon > 0:
    raise ValueError(f'model.bn_epsilon: {model.bn_epsilon!r} is not above 0')
