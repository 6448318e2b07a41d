"""Convolution, pooling and batch norm against numpy written out by hand."""

from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from big_vision_like.models.parts import layers


def _random(*shape, seed=0):
  return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def _conv_reference(x, kernel, stride, rate):
  """Zero-padded strided dilated convolution in float64, tap by tap."""
  size = kernel.shape[0]
  pad = rate * (size - 1) // 2
  _, height, width, _ = x.shape
  x = np.pad(x.astype(np.float64), ((0, 0), (pad, pad), (pad, pad), (0, 0)))
  out = 0.0
  for i in range(size):
    for j in range(size):
      window = x[:, i * rate : i * rate + height, j * rate : j * rate + width]
      out = out + window[:, ::stride, ::stride] @ kernel[i, j].astype(
        np.float64
      )
  return out


@pytest.mark.parametrize('method', ['native', 'matmul'])
@pytest.mark.parametrize(
  ('size', 'stride', 'rate'),
  [(1, 1, 1), (1, 2, 1), (3, 1, 1), (3, 2, 1), (3, 1, 2), (3, 1, 4), (7, 2, 1)],
)
@pytest.mark.parametrize('hw', [(9, 8), (8, 11)])
def test_conv(method, size, stride, rate, hw):
  x = _random(2, *hw, 5)
  conv = layers.Conv(4, size, stride, rate, method)
  variables = conv.init(jax.random.key(0), x)
  out = conv.apply(variables, x)
  kernel = np.asarray(variables['params']['kernel'])
  assert kernel.shape == (size, size, 5, 4)
  expected = _conv_reference(x, kernel, stride, rate)
  assert out.shape == (2, -(-hw[0] // stride), -(-hw[1] // stride), 4)
  np.testing.assert_allclose(out, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(('size', 'stride'), [(1, 1), (1, 2), (3, 1), (3, 2)])
def test_conv_methods_have_the_same_gradients(size, stride):
  x, weight = _random(2, 8, 9, 5), _random(2, 8, 9, 4, seed=1)
  weight = weight[:, ::stride, ::stride]
  kernel = _random(size, size, 5, 4, seed=2)

  def loss(kernel, x, method):
    conv = layers.Conv(4, size, stride, method=method)
    return (conv.apply({'params': {'kernel': kernel}}, x) * weight).sum()

  gradient = jax.grad(loss, argnums=(0, 1))
  native, matmul = gradient(kernel, x, 'native'), gradient(kernel, x, 'matmul')
  for a, b in zip(native, matmul, strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


def test_kernel_init_is_he_fan_in_truncated_normal():
  kernel = layers.Conv(512, 3).init(jax.random.key(0), jnp.zeros((1, 4, 4, 64)))
  kernel = np.asarray(kernel['params']['kernel'])
  std = np.sqrt(2 / (3 * 3 * 64))
  assert kernel.std() == pytest.approx(std, rel=0.01)
  assert abs(kernel.mean()) < 0.01 * std
  # Truncated at two deviations of the untruncated normal, whose deviation is
  # larger by 1 / 0.8796.
  assert 2.2 * std < np.abs(kernel).max() < 2.28 * std


def test_compute_dtype():
  x = _random(1, 4, 4, 3)
  conv = layers.Conv(4, 3, dtype=jnp.bfloat16)
  variables = conv.init(jax.random.key(0), x)
  assert variables['params']['kernel'].dtype == jnp.float32
  assert conv.apply(variables, x).dtype == jnp.bfloat16
  bn = layers.BatchNorm(dtype=jnp.bfloat16)
  variables = bn.init(jax.random.key(0), x, train=False)
  assert {a.dtype for a in jax.tree.leaves(variables)} == {jnp.dtype('float32')}
  y, new = bn.apply(variables, x, train=True, mutable='batch_stats')
  assert y.dtype == jnp.bfloat16
  assert {a.dtype for a in jax.tree.leaves(new)} == {jnp.dtype('float32')}


@pytest.mark.parametrize('method', ['native', 'matmul'])
@pytest.mark.parametrize('padding', get_args(layers.PoolPadding))
@pytest.mark.parametrize('hw', [(6, 7), (7, 8)])
def test_max_pool(method, padding, hw):
  x = _random(2, *hw, 3) - 5.0  # a padding of zero would win
  before = [0 if padding == 'same' and n % 2 == 0 else 1 for n in hw]
  padded = np.pad(
    x, ((0, 0), *((b, 2) for b in before), (0, 0)), constant_values=-np.inf
  )
  height, width = -(-hw[0] // 2), -(-hw[1] // 2)
  expected = np.empty((2, height, width, 3), np.float32)
  for i in range(height):
    for j in range(width):
      window = padded[:, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3]
      expected[:, i, j] = window.max((1, 2))
  out = layers.max_pool_3x3_stride_2(x, padding, method)
  np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize('padding', get_args(layers.PoolPadding))
def test_max_pool_gradient_goes_to_the_maximum(padding):
  x, weight = _random(2, 9, 8, 3), _random(2, 5, 4, 3, seed=1)  # no ties

  def loss(x, method):
    pooled = layers.max_pool_3x3_stride_2(x, padding, method)
    return (pooled * weight).sum()

  native = jax.grad(loss)(x, 'native')
  np.testing.assert_allclose(jax.grad(loss)(x, 'matmul'), native, rtol=1e-6)
  assert np.count_nonzero(native) > 0


def test_resolve_conv_follows_the_backend(monkeypatch):
  seen = []
  assert layers.resolve_conv('auto') == 'matmul'  # tests run on the CPU
  monkeypatch.setattr(jax, 'default_backend', lambda: 'gpu')
  assert layers.resolve_conv('auto') == 'native'
  assert layers.resolve_conv('matmul') == 'matmul'
  # Of the mesh that a program is compiled for, where there is one.
  mesh = jax.make_mesh((4, 2), ('data', 'model'), (AxisType.Auto,) * 2)
  with jax.set_mesh(mesh):
    jax.eval_shape(lambda: seen.append(layers.resolve_conv('auto')))
  assert seen == ['matmul']


# --- batch norm -------------------------------------------------------------


def _bn_variables(channels, seed=3):
  rng = np.random.default_rng(seed)
  uniform = lambda: rng.uniform(0.5, 1.5, channels).astype(np.float32)
  return {
    'params': {'scale': uniform(), 'bias': uniform()},
    'batch_stats': {'mean': uniform(), 'var': uniform()},
  }


def _bn_reference(x, variables, mean, var, epsilon=1e-5):
  scale, bias = variables['params']['scale'], variables['params']['bias']
  return (x - mean) / np.sqrt(var + epsilon) * scale + bias


def test_batch_norm_training_and_moving_statistics():
  x = 3 * _random(4, 5, 6, 7) + 2
  variables = _bn_variables(7)
  bn = layers.BatchNorm(decay=0.9)
  out, new = bn.apply(variables, x, train=True, mutable='batch_stats')
  wide = x.astype(np.float64)
  mean, var = wide.mean((0, 1, 2)), wide.var((0, 1, 2))
  np.testing.assert_allclose(
    out, _bn_reference(wide, variables, mean, var), rtol=1e-5, atol=1e-5
  )
  old, new = variables['batch_stats'], new['batch_stats']
  unbiased = wide.var((0, 1, 2), ddof=1)
  np.testing.assert_allclose(
    new['mean'], 0.9 * old['mean'] + 0.1 * mean, rtol=1e-5
  )
  np.testing.assert_allclose(
    new['var'], 0.9 * old['var'] + 0.1 * unbiased, rtol=1e-5
  )


@pytest.mark.parametrize('mode', get_args(layers.BatchNormMode))
def test_batch_norm_evaluation_uses_moving_statistics(mode):
  x, variables = _random(3, 4, 4, 7), _bn_variables(7)
  out = layers.BatchNorm(mode, group=2).apply(variables, x, train=False)
  old = variables['batch_stats']
  np.testing.assert_allclose(
    out, _bn_reference(x, variables, **old), rtol=1e-5, atol=1e-6
  )


def test_frozen_batch_norm_ignores_the_batch():
  x, variables = _random(3, 4, 4, 7), _bn_variables(7)
  bn = layers.BatchNorm('frozen')
  out, new = bn.apply(variables, x, train=True, mutable='batch_stats')
  np.testing.assert_array_equal(out, bn.apply(variables, x, train=False))
  for name, old in variables['batch_stats'].items():
    np.testing.assert_array_equal(new['batch_stats'][name], old)


def test_ghost_batch_norm_is_batch_norm_of_each_group():
  x, variables = _random(6, 4, 5, 7), _bn_variables(7)
  ghost = layers.BatchNorm('ghost', group=2)
  out, new = ghost.apply(variables, x, train=True, mutable='batch_stats')
  each = [
    layers.BatchNorm().apply(
      variables, x[i : i + 2], train=True, mutable='batch_stats'
    )
    for i in (0, 2, 4)
  ]
  np.testing.assert_allclose(
    out, np.concatenate([y for y, _ in each]), rtol=1e-5, atol=1e-6
  )
  for name in ('mean', 'var'):
    mean = np.mean([n['batch_stats'][name] for _, n in each], axis=0)
    np.testing.assert_allclose(new['batch_stats'][name], mean, rtol=1e-6)


def test_ghost_batch_norm_refuses_a_broken_group():
  with pytest.raises(ValueError, match=r'model\.bn_group.*batch of 6'):
    layers.BatchNorm('ghost', group=4).apply(
      _bn_variables(7), _random(6, 2, 2, 7), train=True, mutable='batch_stats'
    )


@pytest.mark.parametrize('mode', ['batch', 'ghost'])
def test_batch_norm_gradient(mode):
  """Against central differences of the formula in float64."""
  x, weight = _random(4, 3, 3, 2) + 1, _random(4, 3, 3, 2, seed=1)
  variables = _bn_variables(2)
  stats = variables['batch_stats']
  group = 2 if mode == 'ghost' else 4

  def loss(params, x):
    out, _ = layers.BatchNorm(mode, group=2).apply(
      {'params': params, 'batch_stats': stats}, x, True, mutable='batch_stats'
    )
    return (out * weight).sum()

  def reference(x, scale, bias):
    total = 0.0
    for i in range(0, 4, group):
      part, w = x[i : i + group], weight[i : i + group]
      mean, var = part.mean((0, 1, 2)), part.var((0, 1, 2))
      out = (part - mean) / np.sqrt(var + 1e-5) * scale + bias
      total += (out * w).sum()
    return total

  def differences(values, name):
    values = {k: v.astype(np.float64) for k, v in values.items()}
    gradient, step = np.zeros_like(values[name]), 1e-5
    for index in np.ndindex(gradient.shape):
      ends = []
      for sign in (1, -1):
        moved = values[name].copy()
        moved[index] += sign * step
        ends.append(reference(**{**values, name: moved}))
      gradient[index] = (ends[0] - ends[1]) / (2 * step)
    return gradient

  got_params, got_x = jax.grad(loss, argnums=(0, 1))(variables['params'], x)
  values = {'x': x, **variables['params']}
  for name, got in {'x': got_x, **got_params}.items():
    np.testing.assert_allclose(
      got, differences(values, name), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize(
  ('mean', 'tolerance'), [(0, 1e-5), (10, 3e-4), (100, 0.03)]
)
def test_batch_norm_loses_digits_only_to_a_large_mean(mean, tolerance):
  """Rounding times the squared ratio of mean and deviation, no worse."""
  x, variables = _random(8, 8, 8, 3) + mean, _bn_variables(3)
  out, _ = layers.BatchNorm().apply(
    variables, x, train=True, mutable='batch_stats'
  )
  wide = x.astype(np.float64)
  expected = _bn_reference(
    wide, variables, wide.mean((0, 1, 2)), wide.var((0, 1, 2))
  )
  np.testing.assert_allclose(out, expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize('mode', ['batch', 'ghost'])
def test_sharded_batch_norm(mode):
  """Eight devices compute what one does; ghost groups do not communicate."""
  mesh = jax.make_mesh((4, 2), ('data', 'model'), (AxisType.Auto,) * 2)
  x, variables = _random(16, 3, 3, 5), _bn_variables(5)
  bn = layers.BatchNorm(mode, group=2)
  forward = lambda v, x: bn.apply(v, x, train=True, mutable='batch_stats')
  single = jax.jit(forward)(variables, x)
  shards = jax.device_put(x, NamedSharding(mesh, P(('data', 'model'))))
  with jax.set_mesh(mesh):
    sharded = jax.jit(forward)(variables, shards)
    out_only = jax.jit(lambda v, x: forward(v, x)[0])
    text = out_only.lower(variables, shards).compile().as_text()
  assert not sharded[0].sharding.is_fully_replicated
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5),
    single,
    jax.device_get(sharded),
  )
  assert 'all-gather' not in text
  assert ('all-reduce' in text) == (mode == 'batch')
