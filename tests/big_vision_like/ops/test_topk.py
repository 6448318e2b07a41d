"""Class-split top-k against numpy's stable sort."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from big_vision_like.ops import topk
from tests import hlo

MESHES = [None, (8, 1), (4, 2), (2, 4), (1, 8)]
BATCH, WIDTH = 16, 104


def make_mesh(shape):
  return jax.make_mesh(
    shape, ('data', 'model'), axis_types=(AxisType.Auto,) * 2
  )


def reference(logits, k, allowed):
  scores = np.where(allowed, logits, -np.inf)
  ids = np.argsort(-scores, axis=1, kind='stable')[:, :k]
  return np.take_along_axis(scores, ids, 1), ids


def run(shape, logits, k, allowed=None, num_classes=None):
  fn = functools.partial(topk.top_k, k=k, num_classes=num_classes)
  if shape is None:
    return jax.jit(fn)(logits, allowed=allowed)
  with jax.set_mesh(make_mesh(shape)):
    logits = jax.device_put(logits, P('data', 'model'))
    return jax.jit(fn)(logits, allowed=allowed)


def logits_with_ties(seed=0):
  """Small integers: every row is full of ties, across shards too."""
  rng = np.random.default_rng(seed)
  return rng.integers(-3, 4, (BATCH, WIDTH)).astype(np.float32)


@pytest.mark.parametrize('k', [1, 7, 100, WIDTH])
@pytest.mark.parametrize('shape', MESHES)
def test_equals_stable_sort_on_ties(shape, k):
  """k = 100 and 104 exceed the 13 or 26 columns of a shard."""
  logits = logits_with_ties()
  scores, ids = run(shape, logits, k)
  want_scores, want_ids = reference(logits, k, np.ones(WIDTH, bool))
  np.testing.assert_array_equal(scores, want_scores)
  np.testing.assert_array_equal(ids, want_ids)
  assert ids.dtype == jnp.int32 and scores.dtype == jnp.float32


@pytest.mark.parametrize('shape', MESHES)
def test_continuous_logits(shape):
  logits = np.random.default_rng(1).normal(size=(BATCH, WIDTH))
  logits = logits.astype(np.float32)
  scores, ids = run(shape, logits, 10)
  want_scores, want_ids = reference(logits, 10, np.ones(WIDTH, bool))
  np.testing.assert_array_equal(scores, want_scores)
  np.testing.assert_array_equal(ids, want_ids)


@pytest.mark.parametrize('k', [5, 50])
@pytest.mark.parametrize('shape', MESHES)
def test_allowed_classes_only(shape, k):
  """20 classes are allowed: at k = 50 the others follow, at -inf."""
  logits = logits_with_ties(2)
  allowed = np.zeros(WIDTH, bool)
  allowed[np.random.default_rng(3).choice(WIDTH, 20, replace=False)] = True
  scores, ids = run(shape, logits, k, allowed)
  want_scores, want_ids = reference(logits, k, allowed)
  np.testing.assert_array_equal(scores, want_scores)
  np.testing.assert_array_equal(ids, want_ids)
  assert np.all(np.isfinite(scores) == allowed[ids])
  assert np.all(np.isfinite(scores[:, : min(k, 20)]))


@pytest.mark.parametrize('shape', MESHES)
def test_padded_columns_come_last(shape):
  logits = logits_with_ties(4)
  logits[:, 101:] = 1e9
  scores, ids = run(shape, logits, 102, num_classes=101)
  assert np.all(np.sort(ids[:, :101], axis=1) == np.arange(101))
  assert np.all(ids[:, 101] == 101)
  assert np.all(scores[:, 101] == -np.inf)


@pytest.mark.parametrize('shape', [None, (2, 4)])
def test_signed_zeros_tie(shape):
  logits = np.zeros((BATCH, WIDTH), np.float32)
  logits[:, ::2] = -0.0
  _, ids = run(shape, logits, 30)
  np.testing.assert_array_equal(ids, np.tile(np.arange(30), (BATCH, 1)))


@pytest.mark.parametrize('shape', MESHES[1:])
def test_only_candidates_travel(shape):
  k = 3
  with jax.set_mesh(make_mesh(shape)):
    logits = jax.device_put(logits_with_ties(), P('data', 'model'))
    fn = jax.jit(functools.partial(topk.top_k, k=k))
    compiled = fn.lower(logits).compile()
  found = hlo.collectives(compiled.as_text())
  assert bool(found) == (shape[1] > 1)
  for collective in found:
    assert math.prod(collective.shape) <= BATCH * k * shape[1], collective


@pytest.mark.parametrize('k', [0, 105])
def test_impossible_k(k):
  with pytest.raises(ValueError, match='between 1 and 104'):
    topk.top_k(jnp.zeros((2, WIDTH)), k)


def test_allowed_of_another_size():
  with pytest.raises(ValueError, match='allowed must have shape'):
    topk.top_k(jnp.zeros((2, 5)), 2, jnp.ones(4, bool))
