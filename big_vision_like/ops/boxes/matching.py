"""Which box of the truth an anchor or a proposal stands for, if any.

The rule is that of argmax_matcher.py of the TensorFlow Object Detection API
(2017): an anchor belongs to the box that it overlaps most if their IoU is high
enough, to nothing if it is too low, and is ignored between; and every box
forces the anchor that overlaps it most, which is then its own whatever else.

Boxes are met one after the other, up to the last that is none of the padding,
and only the best so far is kept: no [boxes, anchors] array is ever made.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from big_vision_like.ops.boxes import geometry

NEGATIVE, IGNORED = -1, -2
CROWD = ('ignore', 'as_box', 'drop')
DIFFICULT = ('train', 'ignore')
_IN_CROWD = 0.5  # share of an anchor's area


class Truth(NamedTuple):
  """Boxes of an image by what they do in training.

  Attributes:
    boxes: float32 [G, 4].
    labels: int32 [G] class of each.
    mask: bool [G], to be found: their anchors are positives.
    crowd: bool [G], regions; an anchor that lies in one for more than half of
      its area is no negative.
    left_out: bool [G], neither to be found nor background; an anchor that
      overlaps one is no negative.
    num_degenerate: int32, boxes that were dropped for want of an area.
  """

  boxes: jax.Array
  labels: jax.Array
  mask: jax.Array
  crowd: jax.Array
  left_out: jax.Array
  num_degenerate: jax.Array


def check_rules(crowd: str, difficult: str) -> None:
  """Raises a ValueError for a rule that there is not."""
  for name, value, valid in (
    ('crowd', crowd, CROWD),
    ('difficult', difficult, DIFFICULT),
  ):
    if value not in valid:
      raise ValueError(
        f'{name} must be one of {", ".join(valid)}, got {value!r}'
      )


def truth(
  boxes: jax.Array,
  labels: jax.Array,
  mask: jax.Array,
  is_crowd: jax.Array | None = None,
  is_difficult: jax.Array | None = None,
  *,
  crowd: str = 'ignore',
  difficult: str = 'train',
) -> Truth:
  """The boxes of an image, padded, by their part in training.

  Args:
    boxes: float32 [G, 4].
    labels: int32 [G].
    mask: bool [G], False where nothing is.
    is_crowd: bool [G], outlines around many objects; None: none is.
    is_difficult: bool [G], VOC's mark; None: none is.
    crowd: 'ignore': never positives, and what lies in one is no negative;
      'as_box': boxes as all others; 'drop': as if they were not there.
    difficult: 'train': boxes as all others; 'ignore': never positives, and
      what overlaps one enough not to be background is no negative.

  Raises:
    ValueError: no such rule.
  """
  check_rules(crowd, difficult)
  none = jnp.zeros(mask.shape, bool)
  is_crowd = none if is_crowd is None or crowd == 'as_box' else is_crowd
  if is_difficult is None or difficult == 'train':
    is_difficult = none
  sound = mask & ~geometry.is_degenerate(boxes)
  return Truth(
    # Zeros in place of what may be NaN: a gradient would meet it.
    boxes=jnp.where(sound[:, None], boxes, 0.0),
    labels=labels,
    mask=sound & ~is_crowd & ~is_difficult,
    crowd=none if crowd == 'drop' else sound & is_crowd,
    left_out=sound & ~is_crowd & is_difficult,
    num_degenerate=(mask & ~sound).sum(dtype=jnp.int32),
  )


def match(
  anchors: jax.Array,
  truth: Truth,
  *,
  positive_iou: float,
  negative_iou: float | None = None,
  force: bool = False,
  usable: jax.Array | None = None,
) -> jax.Array:
  """For each anchor the box that it is to find, NEGATIVE or IGNORED.

  Of boxes that overlap an anchor equally the first is its own. A box whose IoU
  with every anchor is 0 forces none; of two that force one anchor the later
  has it.

  Args:
    anchors: float32 [N, 4], or proposals.
    truth: of the image.
    positive_iou: an anchor with at least this IoU is positive.
    negative_iou: one with less than this is negative; None: as positive_iou,
      so that none lies between.
    force: every box makes the anchor that it overlaps most (the first of
      those) its own.
    usable: bool [N]; the others are IGNORED and forced by none. None: all are.

  Returns:
    int32 [N]: index of a box in [0, G), NEGATIVE or IGNORED.

  Raises:
    ValueError: thresholds that contradict each other.
  """
  if negative_iou is None:
    negative_iou = positive_iou
  if not 0 <= negative_iou <= positive_iou <= 1:
    raise ValueError(
      'matching: 0 <= negative_iou <= positive_iou <= 1 must hold, got '
      f'negative_iou={negative_iou} and positive_iou={positive_iou}'
    )
  num = anchors.shape[0]
  if usable is None:
    usable = jnp.ones(num, bool)
  anchors = jax.lax.stop_gradient(anchors)
  areas = geometry.area(anchors)
  places = jnp.arange(num, dtype=jnp.int32)

  def meet(number, state):
    best, owner, forced, spared = state
    box, is_box = truth.boxes[number], truth.mask[number]
    is_crowd, is_left_out = truth.crowd[number], truth.left_out[number]
    shared = geometry.intersection(anchors, box)
    union = areas + geometry.area(box) - shared
    iou = jnp.where(usable & (shared > 0), shared / union, 0.0)
    better = is_box & (iou > best)
    best = jnp.where(better, iou, best)
    owner = jnp.where(better, number, owner)
    if force:
      most = iou.max()
      first = jnp.where(iou == most, places, num).min()
      taken = is_box & (most > 0) & (places == first)
      forced = jnp.where(taken, number, forced)
    spared |= is_crowd & (shared > _IN_CROWD * areas)
    spared |= is_left_out & (iou >= negative_iou)
    return best, owner, forced, spared

  nobody = jnp.full(num, NEGATIVE, jnp.int32)
  start = jnp.zeros(num), nobody, nobody, jnp.zeros(num, bool)
  counts = truth.mask | truth.crowd | truth.left_out
  if counts.shape[0]:
    numbers = jnp.arange(1, counts.shape[0] + 1, dtype=jnp.int32)
    end = jnp.where(counts, numbers, 0).max()  # behind it is padding
    start = jax.lax.fori_loop(0, end, meet, start)
  best, owner, forced, spared = start
  found = jnp.where(best >= positive_iou, owner, IGNORED)
  found = jnp.where(best < negative_iou, NEGATIVE, found)
  found = jnp.where(spared & (found == NEGATIVE), IGNORED, found)
  found = jnp.where(forced >= 0, forced, found)
  return jnp.where(usable, found, IGNORED)
