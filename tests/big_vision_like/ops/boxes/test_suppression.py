"""Suppression against a plain greedy loop; torchvision's is in tests/peers."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from big_vision_like.ops.boxes import suppression
from tests.big_vision_like.ops.boxes import plain


@functools.partial(jax.jit, static_argnames=('iou', 'k', 'first', 'tile'))
def _suppress(boxes, scores, mask, **options):
  return suppression.suppress(boxes, scores, mask, **options)


def _kept(boxes, scores, mask=None, **options):
  mask = np.ones(len(boxes), bool) if mask is None else mask
  found = _suppress(
    jnp.asarray(boxes, jnp.float32), jnp.asarray(scores, jnp.float32),
    jnp.asarray(mask), **options,
  )  # fmt: skip
  num = int(found.mask.sum())
  assert found.mask.tolist() == [True] * num + [False] * (options['k'] - num)
  assert not found.index[num:].any()
  return found.index[:num].tolist()


def _made_up(seed, num=150, whole=False):
  """Crowded boxes; `whole`: on a grid, with equal scores and overlaps."""
  rng = np.random.default_rng(seed)
  boxes = plain.random_boxes(rng, num, smallest=15)
  scores = rng.random(num).astype(np.float32)
  if whole:
    boxes = np.round(boxes / 8) * 8
    boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 8)
    scores = np.round(scores * 8).astype(np.float32) / 8
  return boxes, scores, rng.random(num) < 0.9


@pytest.mark.parametrize('whole', [False, True])
@pytest.mark.parametrize('seed', range(3))
def test_plain_loop(seed, whole):
  boxes, scores, mask = _made_up(seed, whole=whole)
  # Thresholds that float32 and float64 both hold.
  for iou, k in ((0.5, 20), (0.5, 150), (0.25, 150)):
    expected = plain.suppress(boxes, scores, mask, iou, k)
    assert 5 < len(expected) < 130
    assert _kept(boxes, scores, mask, iou=iou, k=k, tile=32) == expected


def test_tiles_of_any_size():
  boxes, scores, mask = _made_up(7)
  expected = plain.suppress(boxes, scores, mask, 0.4, 40)
  for tile in (1, 7, 150, 1000):
    assert _kept(boxes, scores, mask, iou=0.4, k=40, tile=tile) == expected


def test_chains_and_thresholds_by_hand():
  """Columns 0-10, 4-14, 8-18: neighbours share 6 of 14, the outer 2 of 18."""
  boxes = [[0, 0, 10, 10], [0, 4, 10, 14], [0, 8, 10, 18]]
  chain = functools.partial(_kept, boxes, k=3)
  assert chain([0.9, 0.8, 0.7], iou=0.4) == [0, 2]
  assert chain([0.8, 0.9, 0.7], iou=0.4) == [1]
  assert chain([0.7, 0.9, 0.9], iou=0.43) == [1, 2, 0]
  # Half of a box: not above the threshold of a half.
  halves = [[0, 0, 10, 10], [0, 0, 10, 5]]
  assert _kept(halves, [0.9, 0.8], iou=0.5, k=2) == [0, 1]
  assert _kept(halves, [0.9, 0.8], iou=0.49, k=2) == [0]


def test_thresholds_between_float32_numbers():
  """6 of 10 in float32 is above .6 as Python has it: as in torchvision."""
  boxes = [[0, 0, 10, 10], [0, 0, 10, 6]]
  assert float(np.float32(0.6)) > 0.6
  assert _kept(boxes, [0.9, 0.8], iou=0.6, k=2) == [0]
  assert float(np.float32(0.7)) < 0.7
  boxes[1][3] = 7
  assert _kept(boxes, [0.9, 0.8], iou=0.7, k=2) == [0, 1]


def test_what_is_masked():
  boxes = [
    [0, 0, 10, 10], [0, 0, 10, 10], [5, 5, 5, 9], [np.nan, 0, 1, 1],
    [30, 30, 40, 40], [60, 60, 70, 70],
  ]  # fmt: skip
  scores = [0.9, 0.5, 0.8, 0.8, np.nan, -np.inf]
  mask = [False, True, True, True, True, True]
  assert _kept(boxes, scores, mask, iou=0.5, k=4) == [1]
  assert _kept(boxes, scores, [False] * 6, iou=0.5, k=4) == []
  assert _kept(np.zeros((0, 4)), np.zeros(0), iou=0.5, k=4) == []


def test_negative_scores_and_equal_ones():
  boxes = [[i * 20, 0, i * 20 + 10, 10] for i in range(4)]
  assert _kept(boxes, [-3, 0.0, -0.0, -1], iou=0.5, k=3) == [1, 2, 3]


def test_a_cut():
  boxes, scores, mask = _made_up(3)
  best = np.argsort(-np.where(mask, scores, -1), kind='stable')[:60]
  within = mask & np.isin(np.arange(len(mask)), best)
  expected = plain.suppress(boxes, scores, within, 0.4, 50)
  assert _kept(boxes, scores, mask, iou=0.4, k=50, first=60) == expected
  assert _kept(boxes, scores, mask, iou=0.4, k=50) != expected


def _batch(k, first, images):
  stacked = [jnp.stack(x) for x in zip(*images)]
  run = functools.partial(suppression.suppress_batch, iou=0.4, k=k, first=first)
  return jax.jit(run)(*stacked)


@pytest.mark.parametrize('k', [5, 40])
def test_a_batch_without_a_cut(k):
  """The 30 best hold 5 survivors and do not hold 40."""
  images = [_made_up(seed) for seed in (3, 4)]
  images.append((*images[0][:2], np.arange(150) < 8))  # fewer than are asked
  found = _batch(k, 30, images)
  short = 0
  for number, image in enumerate(images):
    expected = plain.suppress(*image, 0.4, k)
    num = int(found.mask[number].sum())
    assert found.index[number, :num].tolist() == expected
    short += len(_kept(*image, iou=0.4, k=k, first=30)) < len(expected)
  assert bool(short) == (k == 40)


def test_the_batch_is_decided_once():
  """A branch, and not both as under vmap: no sort of all boxes outside it."""
  shapes = [
    jax.ShapeDtypeStruct(s, d)
    for s, d in (
      ((2, 500, 4), 'float32'),
      ((2, 500), 'float32'),
      ((2, 500), bool),
    )
  ]
  run = functools.partial(suppression.suppress_batch, iou=0.4, k=5, first=60)
  jaxpr = jax.make_jaxpr(run)(*shapes).jaxpr
  names = [equation.primitive.name for equation in jaxpr.eqns]
  assert names.count('cond') == 1 and 'sort' not in names
