"""Confusion matrices of pixels against scikit-learn, and exact counts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P
from sklearn.metrics import confusion_matrix

from big_vision_like.ops import confusion

METHODS = ('scatter', 'product')
_matrix = jax.jit(confusion.matrix, static_argnums=(2, 3))


def _maps(num_classes, shape=(23, 31), seed=0):
  """Random labels, a fifth of them void, and predictions half of them right."""
  rng = np.random.default_rng(seed)
  labels = rng.integers(0, num_classes, shape)
  guesses = rng.integers(0, num_classes, shape)
  predicted = np.where(rng.random(shape) < 0.5, labels, guesses)
  labels[rng.random(shape) < 0.2] = 255
  return labels.astype(np.uint8), predicted.astype(np.int32)


def _expected(labels, predicted, num_classes):
  valid = (labels >= 0) & (labels < num_classes)
  return confusion_matrix(
    labels[valid], predicted[valid], labels=np.arange(num_classes)
  )


@pytest.mark.parametrize('method', METHODS)
@pytest.mark.parametrize('num_classes', [2, 21, 255])
def test_scikit_learn(method, num_classes):
  labels, predicted = _maps(num_classes)
  counts = _matrix(labels, predicted, num_classes, method)
  assert counts.dtype == jnp.int32
  np.testing.assert_array_equal(
    counts, _expected(labels, predicted, num_classes)
  )


@pytest.mark.parametrize('method', METHODS)
def test_labels_outside_of_the_classes_count_nowhere(method):
  labels, predicted = _maps(7)
  labels = labels.astype(np.int32)
  labels[:3] = -1
  labels[3:5] = 7
  labels[5] = 2**31 - 1
  counts = _matrix(labels, predicted, 7, method)
  np.testing.assert_array_equal(counts, _expected(labels, predicted, 7))
  assert counts.sum() < labels.size * 0.7


@pytest.mark.parametrize('method', METHODS)
def test_without_a_valid_pixel_it_is_zero(method):
  void = np.full((4, 5), 255, np.uint8)
  counts = _matrix(void, np.zeros((4, 5), np.int32), 3, method)
  np.testing.assert_array_equal(counts, np.zeros((3, 3)))


@pytest.mark.parametrize('method', METHODS)
def test_counts_are_exact_beyond_float32(method):
  """2^24 + 15 pixels of one kind: a float32 sum of ones stops at 2^24."""
  shape = 4097, 4096
  labels = np.ones(shape, np.uint8)
  predicted = np.ones(shape, np.int8)
  labels[-1, : 4096 - 15] = 255
  assert np.float32(2**24) + np.float32(1) == 2**24
  counts = np.asarray(_matrix(labels, predicted, 2, method))
  assert counts.tolist() == [[0, 0], [0, 2**24 + 15]]


@pytest.mark.parametrize('method', METHODS)
def test_inside_shard_map(method):
  """The evaluator counts the images of each device there."""
  mesh = jax.make_mesh(
    (4, 2), ('data', 'model'), axis_types=(AxisType.Auto,) * 2
  )
  maps = [_maps(5, (6, 7), seed) for seed in range(16)]
  labels, predicted = (np.stack(m) for m in zip(*maps))
  count = lambda pair: confusion.matrix(*pair, 5, method)
  rows = P(('data', 'model'))
  with jax.set_mesh(mesh):
    counts = jax.jit(
      jax.shard_map(
        lambda pairs: jax.lax.map(count, pairs), in_specs=rows, out_specs=rows
      )
    )((labels, predicted))
  for found, pair in zip(counts, maps, strict=True):
    np.testing.assert_array_equal(found, _expected(*pair, 5))


def test_the_method_follows_the_backend(monkeypatch):
  labels, predicted = _maps(5)
  expected = _expected(labels, predicted, 5)
  for backend, has_scatter in (('cpu', True), ('gpu', True), ('tpu', False)):
    monkeypatch.setattr(jax, 'default_backend', lambda name=backend: name)
    count = lambda *maps: confusion.matrix(*maps, 5)
    text = str(jax.make_jaxpr(count)(labels, predicted))
    assert ('scatter' in text) == has_scatter
    np.testing.assert_array_equal(count(labels, predicted), expected)
