"""From the second stage's outputs to what is reported: boxes of classes.

As the TensorFlow Object Detection API (2017): of every class the boxes with a
score above the threshold, decoded and clipped, of which no two of the class
overlap too much; of all classes together the best.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from big_vision_like.ops.boxes import (
  coding,
  geometry,
  own_images,
  suppression,
)
from big_vision_like.ops.boxes.proposals import Proposals


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
  one = lambda *image: _of_image(
    *image,
    iou=iou,
    score=score,
    per_class=per_class,
    in_all=in_all,
    max_log_size=max_log_size,
  )
  return own_images.mapped(
    one, logits, codes, proposals, image_size, original_size
  )


def _of_image(
  logits: jax.Array,
  codes: jax.Array,
  proposals: Proposals,
  image_size: jax.Array,
  original_size: jax.Array,
  *,
  iou: float,
  score: float,
  per_class: int,
  in_all: int,
  max_log_size: float | None,
) -> Detections:
  scores = jax.nn.softmax(logits.astype(jnp.float32))[:, 1:].T  # [C, P]
  codes = jnp.swapaxes(codes.astype(jnp.float32), 0, 1)  # [C, P, 4]
  boxes = coding.decode(codes, proposals.boxes, max_log_size)
  boxes = geometry.clip(boxes, image_size)
  mask = proposals.mask & (scores > score)
  kept = jax.vmap(
    lambda *of_class: suppression.suppress(*of_class, iou=iou, k=per_class)
  )(boxes, scores, mask)  # [C, per_class]
  kept_boxes = jnp.take_along_axis(boxes, kept.index[..., None], axis=1)
  kept_scores = jnp.take_along_axis(scores, kept.index, axis=1)
  ranked = jnp.where(kept.mask, kept_scores, -1.0).ravel()
  num = min(in_all, ranked.shape[0])
  best, place = jax.lax.top_k(ranked, num)
  mask = best >= 0
  found = geometry.rescale(
    kept_boxes.reshape(-1, 4)[place], image_size, original_size
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
