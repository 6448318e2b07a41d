"""The atrous pyramid against float64 numpy and torch's dilated convolutions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from big_vision_like.models.parts import deeplab

METHODS = ('native', 'matmul')
CHANNELS, CLASSES = 7, 5
RATES = (1, 2, 5)


def _random(*shape, seed=0):
  return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def _params(rates, channels=CHANNELS, classes=CLASSES):
  return {
    f'rate{rate}': {
      'kernel': _random(3, 3, channels, classes, seed=rate),
      'bias': _random(classes, seed=100 + rate),
    }
    for rate in rates
  }


def _apply(params, features, rates, method, dtype='float32'):
  head = deeplab.AtrousPyramid(CLASSES, rates, method, dtype)
  return jax.jit(head.apply)({'params': params}, features)


def _reference(params, features):
  """float64: every output, every tap that hits the map, one after another."""
  batch, height, width, _ = features.shape
  out = np.zeros((batch, height, width, CLASSES))
  for name, weights in params.items():
    rate = int(name.removeprefix('rate'))
    kernel = weights['kernel'].astype(np.float64)
    out += weights['bias']
    for y in range(height):
      for x in range(width):
        for i in range(3):
          for j in range(3):
            row, column = y + (i - 1) * rate, x + (j - 1) * rate
            if 0 <= row < height and 0 <= column < width:
              out[:, y, x] += features[:, row, column] @ kernel[i, j]
  return out


@pytest.mark.parametrize('method', METHODS)
@pytest.mark.parametrize(
  ('height', 'width', 'rates'),
  [
    (9, 11, RATES),
    (6, 4, RATES),  # the largest rate reaches over the width, not the height
    (5, 5, (4, 5, 24)),  # a rate of side - 1 hits the corners only
    (1, 1, deeplab.RATES),
    (1, 8, RATES),
    (8, 1, RATES),
  ],
)
def test_logits(method, height, width, rates):
  features = _random(2, height, width, CHANNELS)
  params = _params(rates)
  logits = _apply(params, features, rates, method)
  assert logits.dtype == jnp.float32
  expected = _reference(params, features.astype(np.float64))
  np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=2e-5)


def _torch_results(params, features, weight, rates):
  """(logits, gradients of sum(logits * weight)) by torch in float64."""
  torch = pytest.importorskip('torch')
  leaf = lambda a: torch.from_numpy(
    np.ascontiguousarray(a, np.float64)
  ).requires_grad_()
  x = leaf(features.transpose(0, 3, 1, 2))
  kernels = {
    r: leaf(params[f'rate{r}']['kernel'].transpose(3, 2, 0, 1)) for r in rates
  }
  biases = {r: leaf(params[f'rate{r}']['bias']) for r in rates}
  conv = torch.nn.functional.conv2d
  logits = sum(
    conv(x, kernels[r], biases[r], padding=r, dilation=r) for r in rates
  )
  (
    logits * torch.from_numpy(weight.transpose(0, 3, 1, 2).copy())
  ).sum().backward()
  gradients = {
    f'rate{r}': {
      'kernel': kernels[r].grad.numpy().transpose(2, 3, 1, 0),
      'bias': biases[r].grad.numpy(),
    }
    for r in rates
  }
  to_ours = lambda a: a.detach().numpy().transpose(0, 2, 3, 1)
  return to_ours(logits), gradients, to_ours(x.grad)


def test_torch_has_the_same_logits_and_gradients():
  """ASPP-L's own rates; the two largest reach over the map's width."""
  size = (29, 18)
  rates = deeplab.RATES
  features = _random(2, *size, CHANNELS)
  weight = _random(2, *size, CLASSES, seed=1)
  params = _params(rates)
  expected = _torch_results(params, features, weight, rates)

  def loss(params, features, method):
    logits = _apply(params, features, rates, method)
    return (logits * weight).sum(), logits

  for method in METHODS:
    run = jax.jit(
      jax.value_and_grad(loss, (0, 1), has_aux=True), static_argnums=2
    )
    (_, logits), gradients = run(params, features, method)
    for ours, torchs in zip(
      jax.tree.leaves((logits, *gradients)),
      jax.tree.leaves(expected),
      strict=True,
    ):
      scale = np.abs(torchs).max()
      np.testing.assert_allclose(ours, torchs, rtol=0, atol=3e-6 * scale)


@pytest.mark.parametrize('method', METHODS)
def test_bfloat16_rounds_operands_only(method):
  features, params = _random(2, 9, 11, CHANNELS), _params(RATES)
  logits = _apply(params, features, RATES, method, 'bfloat16')
  assert logits.dtype == jnp.float32
  rounded = lambda a: np.asarray(jnp.asarray(a, jnp.bfloat16), np.float64)
  kernels = {
    name: {'kernel': rounded(w['kernel']), 'bias': w['bias']}
    for name, w in params.items()
  }
  expected = _reference(kernels, rounded(features))
  np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=2e-5)


def test_bfloat16_has_gradients_in_the_types_of_its_arguments():
  features = jnp.asarray(_random(2, 9, 11, CHANNELS), jnp.bfloat16)
  weight, params = _random(2, 9, 11, CLASSES, seed=1), _params(RATES)

  def gradients(method):
    loss = lambda p, x: (_apply(p, x, RATES, method, 'bfloat16') * weight).sum()
    return jax.jit(jax.grad(loss, (0, 1)))(params, features)

  native, matmul = (gradients(method) for method in METHODS)
  for a, b in zip(jax.tree.leaves(native), jax.tree.leaves(matmul)):
    assert a.dtype == b.dtype
    a, b = (np.asarray(v, np.float64) for v in (a, b))
    # Both round the cotangents, but not at the same places.
    np.testing.assert_allclose(a, b, rtol=0, atol=2**-7 * np.abs(a).max())
  assert native[1].dtype == jnp.bfloat16
  assert {v.dtype for v in jax.tree.leaves(native[0])} == {jnp.dtype('f4')}


def test_initial_values_are_xaviers():
  channels, classes = 512, 21
  head = deeplab.AtrousPyramid(classes)
  features = jnp.zeros((1, 2, 2, channels))
  params = head.init(jax.random.key(0), features)['params']
  assert sorted(params) == ['rate12', 'rate18', 'rate24', 'rate6']
  # TensorFlow's fans: the taps times the channels on either side.
  bound = np.sqrt(6 / (9 * channels + 9 * classes))
  for weights in params.values():
    kernel = np.asarray(weights['kernel'])
    assert kernel.shape == (3, 3, channels, classes)
    assert kernel.dtype == np.float32
    assert 0.999 * bound < np.abs(kernel).max() <= bound
    assert kernel.std() == pytest.approx(bound / np.sqrt(3), rel=0.01)
    assert abs(kernel.mean()) < 0.01 * bound
    assert not weights['bias'].any()
  first, second = params['rate6']['kernel'], params['rate12']['kernel']
  assert abs(np.corrcoef(first.ravel(), second.ravel())[0, 1]) < 0.02


def test_both_methods_have_the_same_parameters():
  features = jnp.zeros((1, 5, 5, CHANNELS))
  native, matmul = (
    deeplab.AtrousPyramid(CLASSES, (1, 2), m).init(jax.random.key(1), features)
    for m in METHODS
  )
  jax.tree.map(np.testing.assert_array_equal, native, matmul)
