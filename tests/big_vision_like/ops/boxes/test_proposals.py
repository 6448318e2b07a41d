"""Proposals of images on a canvas, by hand and against a plain loop."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from big_vision_like.ops.boxes import anchors as grids
from big_vision_like.ops.boxes import coding, proposals
from tests.big_vision_like.ops.boxes import plain

SIDES = grids.cell(32, [0.5, 1], [0.5, 1, 2])
ANCHORS = grids.grid((6, 8), 16, SIDES)
SIZES = np.array([[96, 128], [64, 80]], np.int32)


def _outputs(seed):
  rng = np.random.default_rng(seed)
  shape = len(SIZES), len(ANCHORS)
  return (
    rng.normal(0, 2, (*shape, 4)).astype(np.float32),
    rng.normal(0, 1, (*shape, 2)).astype(np.float32),
  )


def _propose(codes, logits, **options):
  run = functools.partial(proposals.propose, **options)
  return jax.jit(run)(codes, logits, ANCHORS, SIZES)


def _plain(codes, logits, size, train, prune, k, iou):
  """(boxes, scores) in float64, box by box."""
  height, width = size
  clip = lambda b: np.clip(b, 0, [height, width, height, width])
  boxes, scores, indices = [], [], []
  for index, (code, anchor, pair) in enumerate(zip(codes, ANCHORS, logits)):
    a = anchor.astype(np.float64)
    if not train:
      a = clip(a)
    elif prune and (clip(a) != a).any():
      continue
    if plain.area(clip(a)) == 0:
      continue
    side = a[2:] - a[:2]
    middle = (a[:2] + a[2:]) / 2 + code[:2] / 10 * side
    side = side * np.exp(code[2:] / 5)
    box = clip(np.concatenate([middle - side / 2, middle + side / 2]))
    if plain.area(box) > 0:
      boxes.append(box)
      scores.append(1 / (1 + np.exp(np.float64(pair[0]) - pair[1])))
      indices.append(index)
  boxes, scores = np.array(boxes), np.array(scores)
  kept = plain.suppress(boxes, scores, np.ones(len(boxes), bool), iou, k)
  return boxes[kept], scores[kept]


@pytest.mark.parametrize(
  ('train', 'prune'), [(True, True), (True, False), (False, True)]
)
def test_plain_loop(train, prune):
  codes, logits = _outputs(1)
  found = _propose(codes, logits, train=train, prune=prune, k=30, iou=0.5)
  for b, size in enumerate(SIZES):
    boxes, scores = _plain(codes[b], logits[b], size, train, prune, 30, 0.5)
    num = len(boxes)
    assert found.mask[b].sum() == num > 10
    np.testing.assert_allclose(found.boxes[b, :num], boxes, atol=1e-4)
    np.testing.assert_allclose(found.scores[b, :num], scores, atol=1e-6)
    assert not found.boxes[b, num:].any() and not found.scores[b, num:].any()


def test_codes_are_relative_to_clipped_anchors_at_inference_only():
  """Codes of 0 of the anchor at the corner: itself or what is left of it."""
  codes = np.zeros((2, len(ANCHORS), 4), np.float32)
  logits = np.zeros((2, len(ANCHORS), 2), np.float32)
  logits[:, 1, 1] = 5  # half of it is beyond the border
  logits[:, 1 + 6 * (2 * 8 + 2), 1] = 4  # within both images
  assert (ANCHORS[1][:2] < 0).all()
  trained = _propose(codes, logits, train=True, k=5)
  assert (trained.scores[:, 0] < 0.99).all()
  inferred = _propose(codes, logits, train=False, k=5)
  left = np.maximum(ANCHORS[1], 0)
  np.testing.assert_allclose(inferred.boxes[:, 0], [left, left], rtol=1e-6)


def test_anchors_beyond_the_image_do_not_count():
  """The canvas is wider than the second image."""
  for train in (True, False):
    own, counts = proposals.anchors_of(ANCHORS, SIZES[1], train=train)
    beyond = (ANCHORS[:, 0] >= 64) | (ANCHORS[:, 1] >= 80)
    assert beyond.any() and not counts[beyond].any() and counts.any()
  np.testing.assert_array_less(own[:, 2:].max(axis=0), [64.1, 80.1])


def test_thresholds_cuts_and_gradients():
  codes, logits = _outputs(2)
  found = _propose(codes, logits, train=False, k=40, score=0.8)
  assert (found.scores[found.mask] > 0.8).all()
  assert not found.mask.all()
  cut = _propose(codes, logits, train=False, k=40, pre_nms_top_k=20)
  assert cut.mask.sum(axis=1).max() <= 20
  total = lambda c: proposals.propose(
    c, logits, ANCHORS, SIZES, train=True, k=5
  ).boxes.sum()
  gradient = jax.jit(jax.grad(total))(codes)
  assert not gradient.any()


def test_wild_codes_give_no_box_that_is_not_finite():
  codes = np.full((2, len(ANCHORS), 4), 1e5, np.float32)
  codes[0] *= -1
  _, logits = _outputs(3)
  for limit in (None, float(np.log(1000 / 16))):
    found = _propose(codes, logits, train=False, max_log_size=limit)
    assert np.isfinite(found.boxes).all()
  decoded = coding.decode(jnp.asarray(codes[1]), jnp.asarray(ANCHORS))
  assert not np.isfinite(decoded).all()


def test_an_image_too_small_for_any_anchor_proposes_nothing():
  codes, logits = _outputs(4)
  large = grids.grid((6, 8), 16, grids.cell(256, [1], [1]))
  run = functools.partial(proposals.propose, anchors=large, train=True, k=7)
  found = jax.jit(run)(codes[:, :48], logits[:, :48], image_size=SIZES)
  assert not found.mask.any() and not found.boxes.any()
