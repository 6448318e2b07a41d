"""PCK worked out by hand."""

import numpy as np
import pytest

from big_vision_like.metrics import pck

TRUTH = np.array(
  [[[10, 10, 2], [0, 0, 0]], [[50, 60, 1], [70, 20, 2]]], float
)  # fmt: skip
BOXES = np.array([[0, 0, 20, 10], [0, 0, 30, 100]], float)


def test_by_the_longer_side_of_each_box():
  """Limits are 4 and 20 pixels: 3.99 and 20.0 away, then exactly there."""
  off = [[[3.99, 0, 0], [500, 0, 0]], [[12, 16, 0], [0, 0, 0]]]
  found = TRUTH + np.array(off)
  assert pck.figures(found, TRUTH, BOXES, names=['nose', 'tail']) == {
    'pck@0.2': pytest.approx(200 / 3),
    'pck@0.2/nose': 50.0,
    'pck@0.2/tail': 100.0,
  }


def test_another_part():
  found = TRUTH + np.array([3, 4, 0])
  assert pck.figures(found, TRUTH, BOXES, 0.25) == {
    'pck@0.25': pytest.approx(200 / 3)
  }
  assert pck.figures(found, TRUTH, BOXES, 0.26) == {'pck@0.26': 100.0}


def test_what_is_not_labelled_has_no_figure():
  found = pck.figures(TRUTH[:1], TRUTH[:1], BOXES[:1], names=['nose', 'tail'])
  assert found == {'pck@0.2': 100.0, 'pck@0.2/nose': 100.0}
  empty = np.zeros((0, 2, 3))
  assert pck.figures(empty, empty, np.zeros((0, 4)), names=['a', 'b']) == {}
