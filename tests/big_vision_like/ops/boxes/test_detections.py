"""Detections by hand and against a plain loop over classes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from big_vision_like.ops.boxes import detections
from big_vision_like.ops.boxes.proposals import Proposals
from tests.big_vision_like.ops.boxes import plain

SIZES = np.array([[100, 120], [80, 90]], np.int32)
ORIGINAL = np.array([[200, 241], [40, 45]], np.int32)


def _outputs(seed, num=25, classes=3):
  rng = np.random.default_rng(seed)
  boxes = np.stack([plain.random_boxes(rng, num, smallest=15) for _ in SIZES])
  boxes = np.clip(boxes, 0, np.tile(SIZES, 2)[:, None])
  mask = np.arange(num) < np.array([num, 9])[:, None]
  given = Proposals(
    jnp.asarray(np.where(mask[..., None], boxes, 0), jnp.float32),
    jnp.zeros(mask.shape), jnp.asarray(mask),
  )  # fmt: skip
  logits = rng.normal(0, 2, (2, num, classes + 1)).astype(np.float32)
  codes = rng.normal(0, 0.5, (2, num, classes, 4)).astype(np.float32)
  return logits, codes, given


def _detect(logits, codes, given, **options):
  run = jax.jit(functools.partial(detections.detect, **options))
  return jax.tree.map(np.asarray, run(logits, codes, given, SIZES, ORIGINAL))


def _plain(logits, codes, boxes, mask, b, iou, score, per_class, in_all):
  wide = logits.astype(np.float64)
  exp = np.exp(wide - wide.max(axis=1, keepdims=True))
  scores = exp / exp.sum(axis=1, keepdims=True)
  height, width = SIZES[b]
  rows = []
  for label in range(codes.shape[1]):
    side = boxes[:, 2:] - boxes[:, :2]
    middle = (boxes[:, 2:] + boxes[:, :2]) / 2 + codes[:, label, :2] / 10 * side
    side = side * np.exp(codes[:, label, 2:] / 5)
    own = np.concatenate([middle - side / 2, middle + side / 2], axis=1)
    own = np.clip(own, 0, [height, width, height, width])
    fine = (
      mask & (scores[:, label + 1] > score) & [plain.area(x) > 0 for x in own]
    )
    kept = plain.suppress(own, scores[:, label + 1], fine, iou, per_class)
    rows += [(scores[i, label + 1], label, own[i]) for i in kept]
  rows.sort(key=lambda row: -row[0])
  return rows[:in_all]


@pytest.mark.parametrize(
  'options',
  [
    dict(iou=0.6, score=0.0, per_class=100, in_all=300),
    dict(iou=0.3, score=0.1, per_class=4, in_all=9),
    # Of twice 8 boxes of a class the others have to be looked at too.
    dict(iou=0.1, score=0.0, per_class=8, in_all=24),
  ],
)
def test_plain_loop(options):
  logits, codes, given = _outputs(0)
  found = _detect(logits, codes, given, **options)
  assert found.boxes.shape == (2, options['in_all'], 4)
  for b in range(2):
    boxes, mask = (np.asarray(x[b], x.dtype) for x in (given.boxes, given.mask))
    rows = _plain(
      logits[b], codes[b], boxes.astype(np.float64), mask, b, **options
    )
    num = len(rows)
    assert found.mask[b].tolist() == [True] * num + [False] * (
      options['in_all'] - num
    )
    assert num > 5
    assert found.labels[b, :num].tolist() == [row[1] for row in rows]
    np.testing.assert_allclose(
      found.scores[b, :num], [row[0] for row in rows], atol=1e-6
    )
    ratio = np.tile(ORIGINAL[b] / SIZES[b], 2)
    np.testing.assert_allclose(
      found.boxes[b, :num], [row[2] * ratio for row in rows], atol=2e-3
    )
    assert (found.labels[b, num:] == -1).all()
    assert not found.boxes[b, num:].any() and not found.scores[b, num:].any()


def test_no_detection_is_beyond_the_original_image():
  logits, codes, given = _outputs(1)
  found = _detect(logits, codes * 20, given)
  limit = np.tile(ORIGINAL, 2)[:, None] * (1 + 1e-6)
  assert (found.boxes >= 0).all() and (found.boxes <= limit).all()
  assert found.mask.any(axis=1).all()


def test_nothing_proposed():
  logits, codes, given = _outputs(2)
  empty = given._replace(
    boxes=jnp.zeros_like(given.boxes), mask=jnp.zeros_like(given.mask)
  )
  found = _detect(logits, codes, empty)
  assert not found.mask.any() and (found.labels == -1).all()
  assert np.isfinite(found.boxes).all()
