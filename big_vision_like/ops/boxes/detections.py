"""From the second stage's outputs to what is reported: boxes of classes.

As the TensorFlow Object Detection API (2017): of every class the boxes with a
score above the threshold, decoded and clipped, of which no two of the class
overlap too much; of all classes together the best.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from big_vision_like.ops import own_images
from big_vision_like.ops.boxes import coding, geometry, suppression
from big_vision_like.ops.boxes.proposals import Proposals

_FIRST = 2  # times as many boxes as are kept almost always hold those kept


class Detections(NamedTuple):
  """Detections of an image, or of a batch [B, ...], best first.

  Attributes:
    boxes: float32 [k, 4], 0 where nothing is.
    scores: float32 [k], 0 where nothing is.
    labels: int32 [k] in [0, C); -1 where nothing is.
    mask: bool [k].
  """

  boxes: jax.Array
  scores: jax.Array
  labels: jax.Array
  mask: jax.Array


def detect(
  logits: jax.Array,
  codes: jax.Array,
  proposals: Proposals,
  image_size: jax.Array,
  original_size: jax.Array,
  *,
  iou: float = 0.6,
  score: float = 0.0,
  per_class: int = 100,
  in_all: int = 300,
  max_log_size: float | None = None,
) -> Detections:
  """Detections of a batch, in pixels of the original images.

  Args:
    logits: float32 [B, P, C + 1], background first.
    codes: float32 [B, P, C, 4], of each class's box by its proposal.
    proposals: P an image.
    image_size: int32 [B, 2] of the images as the net saw them.
    original_size: int32 [B, 2] of the images as they are.
    iou: of two detections of a class, at most.
    score: only what has a probability above it.
    per_class: how many of a class at most.
    in_all: k, how many at most.
    max_log_size: see `coding.decode`.

  Returns:
    [B, k] each.
  """

  def found(logits, codes, proposals, image_size, original_size):
    decode = functools.partial(
      _of_classes, score=score, max_log_size=max_log_size
    )
    boxes, scores, mask = jax.vmap(decode)(logits, codes, proposals, image_size)
    # Classes of all images side by side: one decision for all of them.
    flat = (x.reshape(-1, *x.shape[2:]) for x in (boxes, scores, mask))
    kept = suppression.suppress_batch(
      *flat, iou=iou, k=per_class, first=_FIRST * per_class
    )
    kept = jax.tree.map(lambda x: x.reshape(*mask.shape[:2], per_class), kept)
    best = functools.partial(_best, in_all=in_all)
    return jax.vmap(best)(boxes, scores, kept, image_size, original_size)

  return own_images.run(
    found, logits, codes, proposals, image_size, original_size
  )


def _of_classes(
  logits: jax.Array,
  codes: jax.Array,
  proposals: Proposals,
  image_size: jax.Array,
  *,
  score: float,
  max_log_size: float | None,
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Boxes [C, P, 4] of an image, their scores, and which count: [C, P] each."""
  scores = jax.nn.softmax(logits.astype(jnp.float32))[:, 1:].T
  codes = jnp.swapaxes(codes.astype(jnp.float32), 0, 1)  # [C, P, 4]
  boxes = coding.decode(codes, proposals.boxes, max_log_size)
  boxes = geometry.clip(boxes, image_size)
  return boxes, scores, proposals.mask & (scores > score)


def _best(
  boxes: jax.Array,
  scores: jax.Array,
  kept: suppression.Kept,
  image_size: jax.Array,
  original_size: jax.Array,
  *,
  in_all: int,
) -> Detections:
  """Of all survivors of an image, [C, per_class], the best."""
  boxes = jnp.take_along_axis(boxes, kept.index[..., None], axis=1)
  scores = jnp.take_along_axis(scores, kept.index, axis=1)
  ranked = jnp.where(kept.mask, scores, -1.0).ravel()
  num = min(in_all, ranked.shape[0])
  best, place = jax.lax.top_k(ranked, num)
  mask = best >= 0
  found = geometry.rescale(
    boxes.reshape(-1, 4)[place], image_size, original_size
  )
  labels = (place // kept.index.shape[1]).astype(jnp.int32)
  fill = lambda array, value: jnp.pad(
    array,
    [(0, in_all - num)] + [(0, 0)] * (array.ndim - 1),
    constant_values=value,
  )
  return Detections(
    fill(jnp.where(mask[:, None], found, 0.0), 0.0),
    fill(jnp.where(mask, best, 0.0), 0.0),
    fill(jnp.where(mask, labels, -1), -1),
    fill(mask, False),
  )
