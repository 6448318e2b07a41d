"""What the two stages of a detector are to say, of one image.

Assignment (matching.py) and sampling (sampling.py) put together as in the
TensorFlow Object Detection API's faster_rcnn_meta_arch.py (2017). Losses look
at the sampled places only. An image without boxes gives negatives.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from big_vision_like.ops.boxes import coding, matching, sampling
from big_vision_like.ops.boxes.matching import Truth


class Targets(NamedTuple):
  """M sampled places: positives, then negatives, then nothing.

  Attributes:
    index: int32 [M] of the anchor or the proposal; 0 where nothing is.
    labels: int32 [M], 0: background; the first stage's 1 is an object, the
      second's are classes + 1.
    codes: float32 [M, 4] of the box to find; 0 but for positives.
    positive: bool [M].
    mask: bool [M], False where nothing is.
  """

  index: jax.Array
  labels: jax.Array
  codes: jax.Array
  positive: jax.Array
  mask: jax.Array


def of_anchors(
  anchors: jax.Array,
  usable: jax.Array,
  truth: Truth,
  *,
  positive_iou: float = 0.7,
  negative_iou: float = 0.3,
) -> jax.Array:
  """int32 [N]: the box of each anchor before any is sampled.

  As `matching.match`, every box having an anchor of its own.
  """
  return matching.match(
    anchors,
    truth,
    positive_iou=positive_iou,
    negative_iou=negative_iou,
    force=True,
    usable=usable,
  )


def for_anchors(
  key: jax.Array,
  anchors: jax.Array,
  usable: jax.Array,
  truth: Truth,
  *,
  size: int = 256,
  fraction: float = 0.5,
  positive_iou: float = 0.7,
  negative_iou: float = 0.3,
) -> Targets:
  """The first stage's targets.

  Args:
    key: of jax.random, the image's own.
    anchors: float32 [N, 4] and usable: bool [N], of `proposals.anchors_of`.
    truth: of `matching.truth`.
    size: M, the size of the minibatch.
    fraction: of positives, at most.
    positive_iou, negative_iou: see `of_anchors`.
  """
  found = of_anchors(
    anchors,
    usable,
    truth,
    positive_iou=positive_iou,
    negative_iou=negative_iou,
  )
  return _sampled(
    key, anchors, found, truth.boxes, jnp.zeros_like(truth.labels),
    size, fraction,
  )  # fmt: skip


def for_proposals(
  key: jax.Array,
  boxes: jax.Array,
  mask: jax.Array,
  truth: Truth,
  *,
  size: int = 64,
  fraction: float = 0.25,
  positive_iou: float = 0.5,
) -> Targets:
  """The second stage's targets: boxes [P, 4] and mask [P] of proposals."""
  found = matching.match(boxes, truth, positive_iou=positive_iou, usable=mask)
  return _sampled(key, boxes, found, truth.boxes, truth.labels, size, fraction)


def _sampled(
  key: jax.Array,
  boxes: jax.Array,
  found: jax.Array,
  true_boxes: jax.Array,
  classes: jax.Array,
  size: int,
  fraction: float,
) -> Targets:
  taken = sampling.sample(
    key, found >= 0, found == matching.NEGATIVE, size, fraction
  )
  owner = jnp.maximum(found[taken.index], 0)
  positive = taken.positive
  codes = coding.encode(true_boxes[owner], boxes[taken.index])
  return Targets(
    taken.index,
    jnp.where(positive, classes[owner] + 1, 0),
    jnp.where(positive[:, None], codes, 0.0),
    positive,
    taken.mask,
  )
