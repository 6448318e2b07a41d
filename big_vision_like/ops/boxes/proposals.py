"""What a region proposal network's outputs propose: boxes worth a look.

As the TensorFlow Object Detection API's faster_rcnn_meta_arch.py (2017): all
anchors are decoded and clipped to the image, boxes without an area dropped,
and the best of which no two overlap too much kept, without a cut before the
suppression. In training only anchors within the image take part; at inference
all do, clipped first, and codes are relative to the clipped ones. So the two
differ at the border, by design.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from big_vision_like.ops import own_images
from big_vision_like.ops.boxes import anchors as grids
from big_vision_like.ops.boxes import coding, geometry, suppression


class Proposals(NamedTuple):
  """Boxes of a batch, best first.

  Attributes:
    boxes: float32 [B, k, 4] in pixels of the canvas; 0 where nothing is.
    scores: float32 [B, k] probability of an object; 0 where nothing is.
    mask: bool [B, k].
  """

  boxes: jax.Array
  scores: jax.Array
  mask: jax.Array


def anchors_of(
  anchors: np.ndarray, image_size: jax.Array, *, train: bool, prune: bool = True
) -> tuple[jax.Array, jax.Array]:
  """The anchors of an image as codes are relative to them, and which count.

  Args:
    anchors: float32 [N, 4] of the canvas.
    image_size: int32 [2].
    train: True: as they are, and with `prune` only those within the image
      count. False: clipped to the image; those beyond it do not count.
    prune: leave out anchors that cross the border in training.

  Returns:
    float32 [N, 4] and bool [N].
  """
  whole = jnp.asarray(anchors)
  clipped = geometry.clip(whole, image_size)
  touching = ~geometry.is_degenerate(clipped)
  if not train:
    return clipped, touching
  return whole, grids.inside(whole, image_size) if prune else touching


def propose(
  codes: jax.Array,
  logits: jax.Array,
  anchors: np.ndarray,
  image_size: jax.Array,
  *,
  train: bool,
  prune: bool = True,
  k: int = 300,
  iou: float = 0.7,
  score: float = 0.0,
  pre_nms_top_k: int | None = None,
  max_log_size: float | None = None,
) -> Proposals:
  """Proposals of a batch; constants, no gradient.

  Not to be mapped over: the suppression decides once a batch how many boxes it
  looks at.

  Args:
    codes: float32 [B, N, 4] of the anchors' boxes.
    logits: float32 [B, N, 2] of background and object.
    anchors: float32 [N, 4] of the canvas.
    image_size: int32 [B, 2].
    train: see `anchors_of`.
    prune: see `anchors_of`.
    k: how many at most.
    iou: of two proposals, at most.
    score: only boxes with a probability above it.
    pre_nms_top_k: look at so many of the best only (a deviation from the API,
      for speed); None: at all.
    max_log_size: see `coding.decode`.
  """
  codes, logits = jax.lax.stop_gradient((codes, logits))
  scores = jax.nn.softmax(logits.astype(jnp.float32))[..., 1]

  def decoded(codes: jax.Array, size: jax.Array):
    own, counts = anchors_of(anchors, size, train=train, prune=prune)
    boxes = coding.decode(codes.astype(jnp.float32), own, max_log_size)
    return geometry.clip(boxes, size), counts

  boxes, counts = jax.vmap(decoded)(codes, image_size)
  mask = counts & (scores > score) & ~geometry.is_degenerate(boxes)
  if pre_nms_top_k is None:
    kept = suppression.suppress_batch(boxes, scores, mask, iou=iou, k=k)
  else:
    cut = functools.partial(
      suppression.suppress, iou=iou, k=k, first=pre_nms_top_k
    )
    kept = own_images.mapped(cut, boxes, scores, mask)
  boxes = jnp.take_along_axis(boxes, kept.index[..., None], axis=1)
  scores = jnp.take_along_axis(scores, kept.index, axis=1)
  return Proposals(
    jnp.where(kept.mask[..., None], boxes, 0.0),
    jnp.where(kept.mask, scores, 0.0),
    kept.mask,
  )
