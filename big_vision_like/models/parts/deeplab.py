"""DeepLab's classifier of pixels: atrous spatial pyramid pooling, large rates.

Chen et al. 2018 (DeepLab v2, "ASPP-L") as Sun et al. 2017, section 5.3, use it:
four 3x3 convolutions of the last feature map, side by side, each with holes of
its own rate and straight to the classes, without batch norm or ReLU; their
outputs are summed. The features come from a ResNet of output stride 8.
"""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax

from big_vision_like.models.parts import layers

RATES = (6, 12, 18, 24)  # of ASPP-L, for features of stride 8
_SIZE = 3
_OFFSETS = (-1, 0, 1)  # of the taps of a 3x3 kernel, in rates

# "Xavier" as TensorFlow has it: uniform, fan-in and fan-out.
xavier_init = nn.initializers.xavier_uniform()


class AtrousPyramid(nn.Module):
  """Features [B, h, w, D] -> logits float32 [B, h, w, C], summed branches.

  Parameters, float32: `rate<r>/kernel` [3, 3, D, C] and `rate<r>/bias` [C] for
  each rate r. Outside the map features are zero.

  Attributes:
    num_classes: C, the background among them.
    rates: dilation of each branch, in features.
    method: 'native' convolutions, or 'matmul': the features times the kernels
      of all taps at once, then shifted and added. A convolution to a handful
      of channels uses little of a processor, one product to 36 times as many
      does; 'auto' as in layers.py.
    dtype: type of the products' operands; sums are float32.
  """

  num_classes: int
  rates: Sequence[int] = RATES
  method: str = 'native'
  dtype: str = 'float32'

  @nn.compact
  def __call__(self, features: jax.Array) -> jax.Array:
    branch = _branch_of_convolution
    if layers.resolve_conv(self.method) == 'matmul':
      branch = _branch_of_product
    features = features.astype(self.dtype)
    logits = jnp.float32(0)
    for rate in self.rates:
      weights = _Weights(self.num_classes, name=f'rate{rate}')
      kernel, bias = weights(features.shape[-1])
      out = branch(features, kernel.astype(self.dtype), rate)
      logits = logits + out + bias
    return logits


class _Weights(nn.Module):
  """Kernel and bias of one branch."""

  num_classes: int

  @nn.compact
  def __call__(self, channels: int) -> tuple[jax.Array, jax.Array]:
    shape = (_SIZE, _SIZE, channels, self.num_classes)
    kernel = self.param('kernel', xavier_init, shape, jnp.float32)
    bias = self.param(
      'bias', nn.initializers.zeros, (self.num_classes,), jnp.float32
    )
    return kernel, bias


def _branch_of_convolution(
  features: jax.Array, kernel: jax.Array, rate: int
) -> jax.Array:
  return lax.conv_general_dilated(
    features,
    kernel,
    window_strides=(1, 1),
    padding=((rate, rate), (rate, rate)),
    rhs_dilation=(rate, rate),
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    preferred_element_type=jnp.float32,
  )


def _branch_of_product(
  features: jax.Array, kernel: jax.Array, rate: int
) -> jax.Array:
  """out[y, x] = sum over taps of (features x tap's kernel)[y + dy, x + dx]."""
  batch, height, width, channels = features.shape
  num_classes = kernel.shape[-1]
  taps = [
    (kernel[i, j], dy * rate, dx * rate)
    for i, dy in enumerate(_OFFSETS)
    for j, dx in enumerate(_OFFSETS)
    if abs(dy * rate) < height and abs(dx * rate) < width
  ]
  joined = jnp.concatenate([tap for tap, _, _ in taps], axis=1)
  products = lax.dot(
    features.reshape(-1, channels), joined, preferred_element_type=jnp.float32
  ).reshape(batch, height, width, len(taps), num_classes)
  moved = (
    _shifted(products[..., n, :], dy, dx) for n, (_, dy, dx) in enumerate(taps)
  )
  return functools.reduce(jnp.add, moved)


def _shifted(maps: jax.Array, dy: int, dx: int) -> jax.Array:
  """out[:, y, x] = maps[:, y + dy, x + dx], zero from outside of the map."""
  padding = ((0, 0, 0), (-dy, dy, 0), (-dx, dx, 0), (0, 0, 0))
  return lax.pad(maps, jnp.float32(0), padding)
