"""Assignment by hand and against a plain loop; torchvision's in tests/peers."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from big_vision_like.ops.boxes import matching
from big_vision_like.ops.boxes.matching import IGNORED, NEGATIVE
from tests.big_vision_like.ops.boxes import plain

RPN = dict(positive_iou=0.7, negative_iou=0.3, force=True)


def row(left, right):
  """A box of 10 rows between two columns."""
  return [0, left, 10, right]


def truth(boxes, mask=None, **marks):
  boxes = np.asarray(boxes, np.float32).reshape(-1, 4)
  mask = np.ones(len(boxes), bool) if mask is None else np.asarray(mask)
  rules = {k: marks.pop(k) for k in ('crowd', 'difficult') if k in marks}
  marks = {k: np.asarray(v, bool) for k, v in marks.items()}
  labels = np.arange(len(boxes), dtype=np.int32)
  return matching.truth(boxes, labels, mask, **marks, **rules)


def found(anchors, boxes, usable=None, **rules):
  match = jax.jit(functools.partial(matching.match, **rules))
  anchors = jnp.asarray(anchors, jnp.float32)
  return np.asarray(match(anchors, boxes, usable=usable)).tolist()


def test_thresholds_by_hand():
  """IoU of 10, 8, 5, 2 and 0 of ten columns."""
  anchors = [row(0, 10), row(0, 8), row(0, 5), row(0, 2), row(20, 30)]
  rules = dict(RPN, force=False)
  assert found(anchors, truth([row(0, 10)]), **rules) == [
    0, 0, IGNORED, NEGATIVE, NEGATIVE,
  ]  # fmt: skip
  # At the thresholds themselves: positive, and not negative.
  assert found(
    anchors, truth([row(0, 10)]), positive_iou=0.8, negative_iou=0.5
  ) == [0, 0, IGNORED, NEGATIVE, NEGATIVE]
  assert found(anchors, truth([row(0, 10)]), positive_iou=0.5) == [
    0, 0, 0, NEGATIVE, NEGATIVE,
  ]  # fmt: skip


def test_a_box_forces_its_best_anchor():
  anchors = [row(0, 10), row(0, 4), row(0, 4), row(40, 50)]
  boxes = [row(0, 10), row(2, 4)]
  # Box 1 overlaps anchors 1 and 2 by a half: the first of them is its own.
  assert found(anchors, truth(boxes), **RPN) == [0, 1, IGNORED, NEGATIVE]
  # A forced anchor leaves the box that it overlaps more.
  anchors, boxes = [row(0, 10), row(30, 32)], [row(0, 10), row(5, 15)]
  assert found(anchors, truth(boxes), **RPN) == [1, NEGATIVE]


def test_boxes_that_overlap_nothing_and_padding_force_nothing():
  anchors = [row(0, 10), row(20, 30)]
  far = truth([row(80, 90)])
  assert found(anchors, far, **RPN) == [NEGATIVE, NEGATIVE]
  padded = truth([row(0, 10), row(20, 30)], mask=[True, False])
  assert found(anchors, padded, **RPN) == [0, NEGATIVE]
  nothing = truth([row(0, 0)] * 3, mask=[False] * 3)
  assert found(anchors, nothing, **RPN) == [NEGATIVE, NEGATIVE]
  assert found(anchors, truth([]), **RPN) == [NEGATIVE, NEGATIVE]


def test_degenerate_boxes_are_dropped_and_counted():
  boxes = [[5, 5, 5, 9], [5, 9, 9, 5], [np.nan, 0, 1, 1], row(0, 10), row(0, 0)]
  rows = truth(boxes, mask=[True] * 4 + [False])
  assert int(rows.num_degenerate) == 3
  assert rows.mask.tolist() == [False, False, False, True, False]
  assert np.isfinite(rows.boxes).all()
  assert found([row(0, 10), row(50, 60)], rows, **RPN) == [3, NEGATIVE]


def test_crowds():
  """More than half of the area in a crowd; the last anchor exactly half."""
  anchors = [row(0, 10), row(20, 30), row(34, 44), row(35, 45)]
  rows = functools.partial(
    truth, [row(0, 10), row(20, 40)], is_crowd=[False, True]
  )
  rules = dict(positive_iou=0.5, force=True)
  assert found(anchors, rows(), **rules) == [0, IGNORED, IGNORED, NEGATIVE]
  assert found(anchors, rows(crowd='drop'), **rules) == [
    0, NEGATIVE, NEGATIVE, NEGATIVE,
  ]  # fmt: skip
  assert found(anchors, rows(crowd='as_box'), **rules) == [
    0, 1, NEGATIVE, NEGATIVE,
  ]  # fmt: skip
  # A positive in a crowd stays one.
  both = truth([row(0, 10), row(0, 40)], is_crowd=[False, True])
  assert found([row(0, 10)], both, positive_iou=0.5) == [0]


def test_difficult_boxes():
  anchors = [row(0, 10), row(20, 30), row(20, 26), row(20, 22)]
  rows = functools.partial(
    truth, [row(0, 10), row(20, 30)], is_difficult=[False, True]
  )
  assert found(anchors, rows(), **RPN) == [0, 1, IGNORED, NEGATIVE]
  assert found(anchors, rows(difficult='ignore'), **RPN) == [
    0, IGNORED, IGNORED, NEGATIVE,
  ]  # fmt: skip


def test_unusable_anchors():
  anchors = [row(0, 10), row(0, 9), row(30, 40)]
  usable = np.array([False, True, False])
  rows = truth([row(0, 10), row(30, 40)])
  assert found(anchors, rows, usable, **RPN) == [IGNORED, 0, IGNORED]


def _plain(anchors, boxes, mask, positive_iou, negative_iou, force):
  table = plain.iou_matrix(boxes, anchors) * mask[:, None]
  result = []
  for column in table.T:
    best = int(column.argmax())
    level = column[best]
    low = NEGATIVE if level < negative_iou else IGNORED
    result.append(best if level >= positive_iou else low)
  for number, values in enumerate(table):
    if force and values.max() > 0:
      result[int(values.argmax())] = number
  return result


@pytest.mark.parametrize('force', [False, True])
@pytest.mark.parametrize('seed', range(4))
def test_plain_loop(seed, force):
  rng = np.random.default_rng(seed)
  anchors = plain.random_boxes(rng, 200, smallest=20)
  boxes = plain.random_boxes(rng, 12, smallest=20)
  boxes[:4] = anchors[:4] + rng.normal(0, 2, (4, 4))
  mask = rng.random(12) < 0.7
  mask[0] = True
  expected = _plain(anchors, boxes, mask, 0.7, 0.3, force)
  assert {NEGATIVE, IGNORED} < set(expected)
  assert (
    found(anchors, truth(boxes, mask), None, **dict(RPN, force=force))
    == expected
  )


def test_batches():
  rng = np.random.default_rng(9)
  anchors = jnp.asarray(plain.random_boxes(rng, 60))
  rows = [
    truth(plain.random_boxes(rng, 5), rng.random(5) < 0.8) for _ in range(3)
  ]
  stacked = jax.tree.map(lambda *x: jnp.stack(x), *rows)
  match = jax.jit(functools.partial(matching.match, anchors, **RPN))
  together = jax.jit(jax.vmap(match))(stacked)
  for one, row_ in zip(together, rows):
    np.testing.assert_array_equal(one, match(row_))


def test_mistakes_are_named():
  with pytest.raises(ValueError, match=r"crowd must be one of .*, got 'box'"):
    truth([row(0, 1)], crowd='box')
  with pytest.raises(
    ValueError, match='difficult must be one of train, ignore'
  ):
    truth([row(0, 1)], difficult='drop')
  with pytest.raises(
    ValueError, match=r'negative_iou=0\.8 and positive_iou=0\.7'
  ):
    found([row(0, 1)], truth([]), positive_iou=0.7, negative_iou=0.8)
