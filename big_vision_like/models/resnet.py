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

Other tasks take the net apart: a pose net has a second loss in the middle of
block3, a detector looks for boxes on block3 and runs block4 on crops of it.
`taps` name the endpoints wanted, and nothing behind the last one is computed;
`Model.stage` is one block with a stride and a rate of its own.
"""

from collections.abc import Sequence
from typing import Annotated, Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
from flax import linen as nn

from big_vision_like.config import option_types
from big_vision_like.config.option_types import Above, Between, Count, OneOf
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
Freeze = Literal['none', 'conv1', 'conv2', 'conv3', 'conv4', 'backbone']
FREEZE = get_args(Freeze)
BLOCKS = ('block1', 'block2', 'block3', 'block4')
_STAGES = ('stem', *BLOCKS)
# What a call without taps returns.
ENDPOINTS = ('conv1', *BLOCKS, 'pooled')
StrideIn = Literal['last_unit_3x3', 'first_unit_1x1', 'first_unit_3x3']
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
    stride_in: a StrideIn.
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


def stage_specs(
  own: Sequence[UnitSpec], stride: int | None, rate: int | None, stride_in: str
) -> list[UnitSpec]:
  """The units of a block with another stride, another dilation, or both.

  Args:
    own: the units as the whole net has them.
    stride: of the block, 1 or 2, in the unit and the convolution where
      `stride_in` puts it; None: each unit's own.
    rate: dilation of every 3x3, at least 1; None: each unit's own.
    stride_in: a StrideIn.

  Raises:
    ValueError: on another stride or rate.
  """
  if stride not in (None, 1, 2):
    raise ValueError(f'stride={stride!r} of a stage is not 1 or 2')
  if rate is not None and rate < 1:
    raise ValueError(f'rate={rate!r} of a stage is not at least 1')
  strided = len(own) - 1 if stride_in == 'last_unit_3x3' else 0
  specs = list(own)
  if stride is not None:
    strides = [stride if n == strided else 1 for n in range(len(own))]
    specs = [s._replace(stride=n) for s, n in zip(specs, strides)]
  if rate is not None:
    specs = [s._replace(rate=rate) for s in specs]
  return specs


def units_before(units: Sequence[int]) -> dict[str, int]:
  """Name of every endpoint -> the number of units that it is behind.

  Args:
    units: number of units in each of the four blocks.
  """
  before, done = {'conv1': 0}, 0
  for block, count in zip(BLOCKS, units):
    before |= {f'{block}/unit{n}': done + n for n in range(1, count + 1)}
    before[block] = done = done + count
  return {**before, 'pooled': done}


class Layers(NamedTuple):
  """What all layers of a net share: keyword arguments of Conv, BatchNorm."""

  conv: dict[str, Any]
  bn: dict[str, Any]


class Unit(nn.Module):
  """1x1, 3x3, 1x1 bottleneck and shortcut; out: [B, h, w, 4 * width]."""

  width: int
  layers: Layers

  @nn.compact
  def __call__(self, x: jax.Array, train: bool, spec: UnitSpec) -> jax.Array:
    stride, rate, stride_in_1x1 = spec
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
  """A run of units of one width -> the outputs of its units."""

  width: int
  layers: Layers
  remat: bool

  @nn.compact
  def __call__(
    self, x: jax.Array, train: bool, specs: Sequence[UnitSpec]
  ) -> list[jax.Array]:
    # Of __call__(self, x, train, spec) the last two are no arrays.
    unit = nn.remat(Unit, static_argnums=(2, 3)) if self.remat else Unit
    outputs = []
    for n, spec in enumerate(specs, start=1):
      x = unit(self.width, self.layers, name=f'unit{n}')(x, train, spec)
      outputs.append(x)
    return outputs


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

  depth: Annotated[int, OneOf(tuple(UNITS))] = 50
  width: Count = 64
  output_stride: Literal[8, 16, 32] = 32
  stride_in: StrideIn = 'last_unit_3x3'
  pool_padding: layers.PoolPadding = 'same'
  bn: layers.BatchNormMode = 'batch'
  bn_group: Count = 32
  bn_decay: Annotated[float, Between(0, 1, open='high')] = 0.997
  bn_epsilon: Annotated[float, Above(0)] = 1e-5
  compute_dtype: Literal['float32', 'bfloat16'] = 'float32'
  conv: layers.ConvMethod = 'auto'
  remat: bool = False
  freeze: Freeze = 'none'

  def __post_init__(self):
    option_types.check_fields('model', self)
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

  def setup(self):
    dtype = jnp.dtype(self.compute_dtype)
    shared = Layers(
      conv=dict(method=layers.resolve_conv(self.conv), dtype=dtype),
      bn=dict(
        mode=self.bn,
        group=self.bn_group,
        decay=self.bn_decay,
        epsilon=self.bn_epsilon,
        dtype=dtype,
      ),
    )
    self.conv1 = layers.Conv(self.width, 7, 2, **shared.conv)
    self.bn1 = layers.BatchNorm(**shared.bn)
    block = lambda n: Block(self.width * 2**n, shared, self.remat)
    self.block1, self.block2 = block(0), block(1)
    self.block3, self.block4 = block(2), block(3)

  def __call__(
    self, image: jax.Array, train: bool, taps: Sequence[str] = ()
  ) -> dict[str, jax.Array]:
    """Named features of images.

    Args:
      image: [B, H, W, 3] float in [-1, 1].
      train: use and update the batch statistics (make `batch_stats` mutable).
      taps: names of the endpoints to return, those below and every unit's,
        'block3/unit10'; what is behind the last of them is not computed and
        its statistics are not updated. Empty: those below.

    Returns:
      'conv1', 'block1' .. 'block4': maps [B, h, w, C] in the compute dtype;
      'pooled': float32 [B, 32 * width], the spatial mean of block4.

    Raises:
      ValueError: a tap that is not an endpoint.
    """
    num_units = self._num_units(taps)
    x = self.bn1(self.conv1(image), train and not self._is_frozen(0))
    ends = {'conv1': self._border(nn.relu(x), 0)}
    method = layers.resolve_conv(self.conv)
    x = layers.max_pool_3x3_stride_2(ends['conv1'], self.pool_padding, method)
    for name, specs in self._specs().items():
      specs = specs[:num_units]
      num_units -= len(specs)
      for n, out in enumerate(self._units(name, x, train, specs), start=1):
        ends[f'{name}/unit{n}'] = ends[name] = x = out
    ends['pooled'] = x.mean((1, 2), dtype=jnp.float32)
    return {name: ends[name] for name in taps or ENDPOINTS}

  def stage(
    self,
    features: jax.Array,
    name: str,
    train: bool,
    stride: int | None = None,
    rate: int | None = None,
  ) -> jax.Array:
    """One block on its own, on crops of the map before it for example.

    It has the block's parameters and statistics; where stride and rate are
    those of the net it is the net's block, to the bit within one program (two
    programs may round in other places). `model.apply(variables, features,
    'block4', train, method='stage')`.

    Args:
      features: [N, h, w, C], C that of the endpoint before the block.
      name: 'block1' .. 'block4'.
      train: as in a call; `bn` sees N examples. What a frozen block returns has
        no gradient, of the features neither.
      stride: of the block, 1 or 2; None: the net's.
      rate: dilation of its 3x3 convolutions; None: the net's.

    Returns:
      [N, ceil(h / stride), ceil(w / stride), C'] in the compute dtype.

    Raises:
      ValueError: on another name, stride or rate.
    """
    if name not in BLOCKS:
      raise ValueError(f'{name!r} is not a stage; valid: {", ".join(BLOCKS)}')
    own = self._specs()[name]
    specs = stage_specs(own, stride, rate, self.stride_in)
    return self._units(name, features, train, specs)[-1]

  @nn.nowrap
  def _specs(self) -> dict[str, list[UnitSpec]]:
    specs = unit_specs(UNITS[self.depth], self.output_stride, self.stride_in)
    return dict(zip(BLOCKS, specs))

  @nn.nowrap
  def _num_units(self, taps: Sequence[str]) -> int:
    """Of the units, from the first on, how many the taps need."""
    units = UNITS[self.depth]
    before = units_before(units)
    for tap in taps:
      if tap not in before:
        blocks = (f'{b}/unit1 .. {b}/unit{n}' for b, n in zip(BLOCKS, units))
        raise ValueError(
          f'taps={taps!r}: {tap!r} is not an endpoint of this ResNet-'
          f'{self.depth}; valid: {", ".join((*ENDPOINTS, *blocks))}'
        )
    if self.is_initializing():  # all parameters, whatever the taps
      return sum(units)
    return max(before[tap] for tap in taps or ENDPOINTS)

  @nn.nowrap
  def _units(
    self, name: str, x: jax.Array, train: bool, specs: Sequence[UnitSpec]
  ) -> list[jax.Array]:
    """Outputs of the first len(specs) units of a block."""
    if not specs:
      return []
    stage = _STAGES.index(name)
    trained = train and not self._is_frozen(stage)
    outputs = getattr(self, name)(x, trained, specs)
    return [self._border(x, stage) for x in outputs]

  @nn.nowrap
  def _is_frozen(self, stage: int) -> bool:
    return stage < FREEZE.index(self.freeze)

  @nn.nowrap
  def _border(self, x: jax.Array, stage: int) -> jax.Array:
    """What a frozen stage gives has no gradient."""
    return jax.lax.stop_gradient(x) if self._is_frozen(stage) else x
