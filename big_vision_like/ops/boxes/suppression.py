"""Greedy non-maximum suppression with a fixed number of survivors.

Boxes are met in tiles by falling score. A tile is tested against the boxes
kept so far, which are few, and then within itself: a box falls if a better one
of the tile stands that overlaps it too much, found as the fixed point of that
rule. It ends when enough are kept. The result is that of the plain greedy
loop, box for box: a box falls if its IoU with a kept one of a higher score is
above the threshold; of equal scores the lower index comes first.

Sorting all of 29,184 boxes takes longer than the rest. `suppress_batch` looks
at the best few thousand first.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from big_vision_like.ops import own_images
from big_vision_like.ops.boxes import geometry

_FIRST = 4096  # boxes that almost always hold the survivors


class Kept(NamedTuple):
  """The survivors of an image, best first.

  Attributes:
    index: int32 [k] into the boxes given; 0 where nothing is.
    mask: bool [k].
  """

  index: jax.Array
  mask: jax.Array


def suppress(
  boxes: jax.Array,
  scores: jax.Array,
  mask: jax.Array,
  *,
  iou: float,
  k: int,
  first: int | None = None,
  tile: int | None = None,
) -> Kept:
  """The k best boxes of which no two overlap too much.

  Args:
    boxes: float32 [N, 4].
    scores: float32 [N].
    mask: bool [N]; the others neither survive nor suppress. Degenerate boxes
      and scores of NaN or -inf are masked too.
    iou: a box falls if its IoU with a better survivor is above this.
    k: how many survive at most.
    first: look at so many of the best boxes only; None: at all.
    tile: boxes met at once; None: what is fast for their number.
  """
  count = boxes.shape[0]
  num = count if first is None else min(first, count)
  if not num:
    return Kept(jnp.zeros(k, jnp.int32), jnp.zeros(k, bool))
  scores = jnp.where(scores == 0, 0.0, scores)  # -0.0 ties with 0.0
  mask = mask & ~geometry.is_degenerate(boxes) & (scores > -jnp.inf)
  ranked = jnp.where(mask, scores, -jnp.inf)
  if num < count:
    _, order = jax.lax.top_k(ranked, num)
  else:
    order = jnp.argsort(ranked, descending=True, stable=True)
  return _by_tiles(
    boxes[order], mask[order], order, iou, k, tile or _tile_for(num)
  )


def suppress_batch(
  boxes: jax.Array,
  scores: jax.Array,
  mask: jax.Array,
  *,
  iou: float,
  k: int,
  first: int = _FIRST,
) -> Kept:
  """`suppress` of a batch [B, N, ...] without a cut, quick in the usual case.

  The `first` best boxes of each image nearly always hold its k survivors.
  Where they do not, in any image, all boxes of all images of the device are
  looked at. So it is one decision a batch, which under vmap would be both
  branches always.
  """

  def decided(*batch: jax.Array) -> Kept:
    def of_best(few: int | None) -> Kept:
      one = functools.partial(suppress, iou=iou, k=k, first=few)
      return jax.vmap(one)(*batch)

    if boxes.shape[1] <= first:
      return of_best(None)
    quick = of_best(first)
    is_short = quick.mask.sum(axis=1) < k
    more = batch[2].sum(axis=1) > first
    return jax.lax.cond(
      jnp.any(is_short & more), lambda: of_best(None), lambda: quick
    )

  return own_images.run(decided, boxes, scores, mask)


def _tile_for(num: int) -> int:
  return 64 if num <= 1024 else 128


def _at_most(threshold: float) -> np.float32:
  """The largest float32 that is no larger: x > it is exact in float32."""
  single = np.float32(threshold)
  # As Python floats: numpy would round the threshold to compare them.
  above = float(single) > threshold
  return np.nextafter(single, np.float32(-1)) if above else single


def _by_tiles(
  boxes: jax.Array,
  mask: jax.Array,
  order: jax.Array,
  iou: float,
  k: int,
  tile: int,
) -> Kept:
  """`suppress` of boxes [n, 4] by falling score, of index order [n]."""
  num = boxes.shape[0]
  tile = min(tile, num)
  num_tiles = -(-num // tile)
  pad = num_tiles * tile - num
  boxes = jnp.pad(boxes.T, ((0, 0), (0, pad)))  # coordinates side by side
  mask = jnp.pad(mask, (0, pad))
  order = jnp.pad(order.astype(jnp.int32), (0, pad))
  left = mask.reshape(num_tiles, tile).any(axis=1)  # tiles with a box to meet
  limit = _at_most(iou)
  earlier = jnp.arange(tile)[:, None] < jnp.arange(tile)

  def overlap(a: jax.Array, b: jax.Array) -> jax.Array:
    """bool [n, m]: IoU of a [4, n] and b [4, m] above the limit."""
    height = jnp.minimum(a[2, :, None], b[2]) - jnp.maximum(a[0, :, None], b[0])
    width = jnp.minimum(a[3, :, None], b[3]) - jnp.maximum(a[1, :, None], b[1])
    shared = jnp.maximum(height, 0.0) * jnp.maximum(width, 0.0)
    area_a, area_b = ((x[2] - x[0]) * (x[3] - x[1]) for x in (a, b))
    return shared / (area_a[:, None] + area_b - shared) > limit

  def goes_on(state):
    number, count, *_ = state
    return (number < num_tiles) & (count < k) & left[number]

  def meet(state):
    number, count, kept, kept_index = state
    start = number * tile
    here = jax.lax.dynamic_slice_in_dim(boxes, start, tile, axis=1)
    index = jax.lax.dynamic_slice_in_dim(order, start, tile)
    alive = jax.lax.dynamic_slice_in_dim(mask, start, tile)
    # Places not taken yet hold boxes of no area, which overlap nothing.
    alive &= ~overlap(kept, here).any(axis=0)
    fells = overlap(here, here) & earlier

    def settle(state):
      standing, _ = state
      now = alive & ~(fells & standing[:, None]).any(axis=0)
      return now, (now != standing).any()

    standing, _ = jax.lax.while_loop(
      lambda state: state[1], settle, (alive, jnp.bool_(True))
    )
    place = jnp.where(standing, count + jnp.cumsum(standing) - 1, k)
    kept = kept.at[:, place].set(here, mode='drop')
    kept_index = kept_index.at[place].set(index, mode='drop')
    count = jnp.minimum(count + standing.sum(dtype=jnp.int32), k)
    return number + 1, count, kept, kept_index

  zero = jnp.int32(0)
  start = zero, zero, jnp.zeros((4, k), boxes.dtype), jnp.zeros(k, jnp.int32)
  _, count, _, index = jax.lax.while_loop(goes_on, meet, start)
  return Kept(index, jnp.arange(k) < count)
