"""Scores of given classes, on every mesh."""

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from big_vision_like.ops import pick
from big_vision_like.parallel import constraints
from tests import hlo
from tests.evaluators import harness


@pytest.mark.parametrize('shape', [None, (8, 1), (2, 4), (1, 8)])
def test_is_numpy_take(shape):
  rng = np.random.default_rng(0)
  logits = rng.normal(size=(16, 104)).astype(np.float32)
  logits[3, 7] = np.nan  # of a class that nobody asks for
  ids = rng.integers(8, 104, (16, 5)).astype(np.int32)
  ids[0], ids[1, 2:] = [103, 0, 26, 25, -1], -1
  expected = np.take_along_axis(logits, np.maximum(ids, 0), 1)
  expected[ids < 0] = 0
  if shape is None:
    actual = pick.pick(logits, ids)
  else:
    with jax.set_mesh(harness.mesh(*shape)):
      placed = jax.device_put(logits, P('data', 'model'))
      compiled = jax.jit(pick.pick).lower(
        placed, jax.device_put(ids, P(constraints.BATCH))
      )
      compiled = compiled.compile()
      actual = compiled(placed, jax.device_put(ids, P(constraints.BATCH)))
    for op, moved in hlo.collectives(compiled.as_text()):
      assert {104, 104 // shape[1]}.isdisjoint(moved), (op, moved)
  np.testing.assert_array_equal(actual, expected)


def test_shapes_are_checked():
  with pytest.raises(ValueError, match=r'\[B, C\] and \[B, M\]'):
    pick.pick(np.zeros((2, 3)), np.zeros((3, 1), np.int32))
