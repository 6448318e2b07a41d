"""Anchors against the numbers of the Object Detection API's own tests.

grid_anchor_generator_test.py of 2017.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from big_vision_like.ops.boxes import anchors


def test_order_within_a_cell():
  sides = anchors.cell(256, [0.5, 1, 2], [0.25, 1, 4])
  found = anchors.grid((1, 1), 16, sides, offset=(7, -3))
  np.testing.assert_array_equal(
    found,
    [
      [-121, -35, 135, 29], [-249, -67, 263, 61], [-505, -131, 519, 125],
      [-57, -67, 71, 61], [-121, -131, 135, 125], [-249, -259, 263, 253],
      [-25, -131, 39, 125], [-57, -259, 71, 253], [-121, -515, 135, 509],
    ],
  )  # fmt: skip


def test_order_of_cells():
  found = anchors.grid((2, 2), 19, anchors.cell(10, [0.5, 1, 2], [1]))
  np.testing.assert_array_equal(
    found,
    [
      [-2.5, -2.5, 2.5, 2.5], [-5, -5, 5, 5], [-10, -10, 10, 10],
      [-2.5, 16.5, 2.5, 21.5], [-5, 14, 5, 24], [-10, 9, 10, 29],
      [16.5, -2.5, 21.5, 2.5], [14, -5, 24, 5], [9, -10, 29, 10],
      [16.5, 16.5, 21.5, 21.5], [14, 14, 24, 24], [9, 9, 29, 29],
    ],
  )  # fmt: skip


def test_the_papers_anchors():
  """12 a cell; at 600x1024 the widest of .5 by 512 pixels is 724 by 362."""
  sides = anchors.cell(256, [0.25, 0.5, 1, 2], [0.5, 1, 2])
  np.testing.assert_allclose(sides[3], [724.08, 362.04], rtol=1e-5)
  np.testing.assert_allclose(
    sides.prod(axis=1)[:4], [4**k * 64**2 for k in range(4)], rtol=1e-6
  )
  found = anchors.grid((38, 64), 16, sides)
  assert found.shape == (29184, 4) and found.dtype == np.float32
  within = anchors.inside(found, jnp.array([600, 1024]))
  assert not within.reshape(-1, 12)[:, 3].any()
  assert within.reshape(-1, 12)[:, [0, 1, 2, *range(4, 12)]].any(axis=0).all()


def test_inside_takes_the_border_itself():
  boxes = np.array(
    [[0, 0, 20, 30], [-1, 0, 5, 5], [0, -1, 5, 5], [5, 5, 21, 6], [5, 5, 6, 31]]
  )
  within = jax.jit(anchors.inside)(boxes, np.array([20, 30]))
  np.testing.assert_array_equal(within, [True, False, False, False, False])


@pytest.mark.parametrize(
  ('args', 'words'),
  [((256, [], [1]), 'scales'), ((256, [1], [0]), r'ratios .* \[0\]'),
   ((-1, [1], [1]), 'base_size')],
)  # fmt: skip
def test_mistakes_are_named(args, words):
  with pytest.raises(ValueError, match=words):
    anchors.cell(*args)
