"""Convolution, max-pool and batch normalisation, fast on CPU and accelerators.

A convolution library is the right path on GPU and TPU. XLA's CPU backend is
faster when a 1x1 convolution is a matrix product over the channel axis and a
max-pool the maximum of shifted slices: the gradients are then matrix products
and selections instead of convolutions and select-and-scatter. Both forms
compute the same function; `resolve_conv` picks one per backend, and
benchmarks/train_step.py measures the choice.

Layout is [B, H, W, C] throughout. Padding is explicit and symmetric, as
`conv2d_same` of TensorFlow slim's resnet_utils: an output has ceil(n / stride)
rows, and the outputs of a strided layer are every stride-th output of the
dense one.
"""

import functools
from typing import Literal

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax

from big_vision_like.parallel import constraints

ConvMethod = Literal['auto', 'native', 'matmul']
PoolPadding = Literal['same', 'symmetric']
BatchNormMode = Literal['batch', 'ghost', 'frozen']

# He et al. 2015 with fan-in, as slim's variance_scaling_initializer().
he_init = nn.initializers.variance_scaling(2.0, 'fan_in', 'truncated_normal')


def resolve_conv(method: str) -> str:
  """'native' or 'matmul'; 'auto' is 'matmul' on CPU, 'native' elsewhere."""
  if method != 'auto':
    return method
  return 'matmul' if constraints.platform() == 'cpu' else 'native'


def subsample(x: jax.Array, stride: int) -> jax.Array:
  """Every stride-th row and column (slim: a 1x1 max-pool with a stride)."""
  return x if stride == 1 else x[:, ::stride, ::stride]


class Conv(nn.Module):
  """Square convolution without bias, zero padding (rate * (size - 1)) / 2.

  [B, H, W, C] -> [B, ceil(H / stride), ceil(W / stride), features] in `dtype`;
  parameter `kernel` [size, size, C, features] float32.
  """

  features: int
  size: int
  stride: int = 1
  rate: int = 1
  method: str = 'native'
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    shape = (self.size, self.size, x.shape[-1], self.features)
    kernel = self.param('kernel', he_init, shape).astype(self.dtype)
    x = x.astype(self.dtype)
    if self.size == 1 and self.method == 'matmul':
      x = subsample(x, self.stride)
      rows = x.reshape(-1, x.shape[-1])  # 2-d: the gradient needs no transpose
      return (rows @ kernel[0, 0]).reshape(*x.shape[:3], self.features)
    pad = self.rate * (self.size - 1) // 2
    return lax.conv_general_dilated(
      x,
      kernel,
      window_strides=(self.stride, self.stride),
      padding=((pad, pad), (pad, pad)),
      rhs_dilation=(self.rate, self.rate),
      dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    )


def max_pool_3x3_stride_2(
  x: jax.Array, padding: str = 'same', method: str = 'native'
) -> jax.Array:
  """3x3/2 max-pool: [B, H, W, C] -> [B, ceil(H / 2), ceil(W / 2), C].

  Args:
    x: feature map.
    padding: 'same' pads an even side by one at its end only (TensorFlow),
      'symmetric' by one at both ends (PyTorch).
    method: 'native' (reduce_window) or 'matmul' (maximum of nine slices).
  """
  pads = [
    (0 if padding == 'same' and n % 2 == 0 else 1, 1) for n in x.shape[1:3]
  ]
  if method == 'native':
    return lax.reduce_window(
      x, -jnp.inf, lax.max, (1, 3, 3, 1), (1, 2, 2, 1), ((0, 0), *pads, (0, 0))
    )
  height, width = (-(-n // 2) for n in x.shape[1:3])
  # float32: the gradient is a sum of nine maps, slow on CPU in bfloat16.
  dtype, x = x.dtype, x.astype(jnp.float32)
  x = jnp.pad(x, ((0, 0), *pads, (0, 0)), constant_values=-jnp.inf)
  windows = [
    x[:, i : i + 2 * height - 1 : 2, j : j + 2 * width - 1 : 2]
    for i in range(3)
    for j in range(3)
  ]
  return functools.reduce(jnp.maximum, windows).astype(dtype)


class BatchNorm(nn.Module):
  """Batch normalisation over batch and space (Ioffe and Szegedy 2015).

  Modes, in training (evaluation always uses the moving statistics):
    batch: statistics of the whole batch; with the batch sharded over devices
      that is the global batch, by one small all-reduce.
    ghost: statistics of each `group` consecutive examples, as if every group
      were a worker of its own (Hoffer et al. 2017); no communication while a
      group lies within a device. The moving statistics take the groups' mean.
    frozen: the moving statistics, which are never updated.

  Statistics, parameters and moving averages are float32 whatever the compute
  dtype. moving = decay * moving + (1 - decay) * batch. The moving variance
  takes the unbiased estimate (times n / (n - 1)), as TensorFlow's fused batch
  norm and PyTorch do (flax takes the biased one); the normalisation itself
  uses the biased one, as all of them do.
  """

  mode: str = 'batch'
  group: int = 32
  decay: float = 0.997
  epsilon: float = 1e-5
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    channels = (x.shape[-1],)
    scale = self.param('scale', nn.initializers.ones, channels)
    bias = self.param('bias', nn.initializers.zeros, channels)
    mean = self.variable('batch_stats', 'mean', jnp.zeros, channels)
    var = self.variable('batch_stats', 'var', jnp.ones, channels)
    if not train or self.mode == 'frozen':
      return _normalise(
        x, mean.value, var.value, scale, bias, self.epsilon
      ).astype(self.dtype)
    size = self.group if self.mode == 'ghost' else x.shape[0]
    if x.shape[0] % size:
      raise ValueError(
        f'model.bn_group: a batch of {x.shape[0]} is not a multiple of '
        f'{size} examples per batch-norm group; choose a divisor'
      )
    # [groups, group, H, W, C]: the leading axis keeps the batch's sharding.
    grouped = x.reshape(-1, size, *x.shape[1:]).astype(jnp.float32)
    batch_mean, batch_var = _moments(grouped)
    if not self.is_initializing():
      count = grouped.size // (grouped.shape[0] * channels[0])
      unbiased = batch_var * (count / max(count - 1, 1))
      for moving, batch in ((mean, batch_mean), (var, unbiased)):
        batch = batch.mean((0, 1, 2, 3))
        moving.value = self.decay * moving.value + (1 - self.decay) * batch
    y = _normalise(grouped, batch_mean, batch_var, scale, bias, self.epsilon)
    return y.reshape(x.shape).astype(self.dtype)


def _moments(x: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Mean and biased variance of [G, B, H, W, C] float32 over B, H, W.

  E[x^2] - E[x]^2 reads x once and needs one all-reduce. Its relative error is
  float32 rounding times 1 + mean^2 / variance: convolutions without bias keep
  means within a few deviations.
  """
  mean, square = (v.mean((1, 2, 3), keepdims=True) for v in (x, jnp.square(x)))
  return mean, jnp.maximum(square - jnp.square(mean), 0)


def _normalise(x, mean, var, scale, bias, epsilon):
  """(x - mean) / sqrt(var + epsilon) * scale + bias as one factor and sum."""
  factor = scale * lax.rsqrt(var + epsilon)
  return x * factor + (bias - mean * factor)
