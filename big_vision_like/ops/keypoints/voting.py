"""Hough voting: positions of a pose net's map say where a keypoint is.

Papandreou et al. 2017, section 3.3:

    f_k(x_i) = sum_j 1 / (pi R^2) G(x_j + F_k(x_j) - x_i) h_k(x_j)

Position j, whose probability to be near keypoint k is h, votes for the place
that its offset F points to, with a bilinear kernel G. Where map and offsets
are right a disc's votes meet in one pixel, and the peak is near 1.

The paper counts the votes of all pixels. A keypoint's disc has 1,961 of 90,721,
and the others have no say: the strongest 2,048 give the same peaks. The
positions of the net's own map are fewer still, and coarser.

Two forms of the same sum: `scatter` adds every vote at its four neighbours,
`matmul` multiplies with weights of the two axes. Scattering is what a CPU does
best; on accelerators it is slow or differs from run to run.
benchmarks/pose_ops.py measures both choices.
"""

import math
from typing import Literal, get_args

import jax
import jax.numpy as jnp

from big_vision_like.ops import interpolation
from big_vision_like.ops.keypoints import maps as channels
from big_vision_like.parallel import constraints

Voting = Literal['top', 'exact', 'grid']
VOTING = get_args(Voting)
Method = Literal['auto', 'scatter', 'matmul']
_TOP = 2048  # strongest positions of a keypoint
_CHUNK = 2048  # votes of a product


def num_top(radius: float) -> int:
  """How many positions 'top' looks at: 2,048, or those of a larger disc."""
  return max(_TOP, math.ceil(math.pi * (radius + 0.5) ** 2))


def fuse(
  maps: jax.Array,
  shape: tuple[int, int],
  *,
  radius: float,
  voting: Voting = 'top',
  method: Method = 'auto',
) -> jax.Array:
  """Votes for every pixel of a crop.

  Args:
    maps: float32 [h, w, 3 K] of one person, channels as in maps.py.
    shape: (H, W) of the crop.
    radius: of the discs in pixels.
    voting: 'exact': all pixels vote, by interpolated maps; 'top': of them the
      strongest of each keypoint; 'grid': the map's own positions, each with
      the weight of the pixels that it stands for.
    method: 'scatter', 'matmul', or 'auto' for the platform's.

  Returns:
    float32 [K, H, W], at most about 1. Votes for places outside are dropped.
  """
  stride = interpolation.stride_between(shape, maps.shape[:2])
  if voting == 'grid':
    logits, offsets = channels.split(jnp.moveaxis(maps, -1, 0))
  else:
    rows, columns = (interpolation.pixel_coordinates(n, stride) for n in shape)
    fine = interpolation.bilinear(maps, rows, columns)
    logits, offsets = channels.split(fine)
    stride = 1
  num, height, width = logits.shape
  logits = logits.reshape(num, -1)
  offsets = offsets.reshape(2, num, -1)
  place = jnp.broadcast_to(jnp.arange(height * width), logits.shape)
  if voting == 'top' and num_top(radius) < height * width:
    logits, place = jax.lax.top_k(logits, num_top(radius))
    offsets = jnp.take_along_axis(offsets, place[None], axis=2)
  votes = jax.nn.sigmoid(logits)
  rows = place // width * stride + offsets[0]
  columns = place % width * stride + offsets[1]
  if method == 'auto':
    method = 'scatter' if constraints.platform() == 'cpu' else 'matmul'
  add = _scattered if method == 'scatter' else _multiplied
  # Afterwards: sums of probabilities near 1 are rounded less.
  return add(votes, rows, columns, shape) * (stride**2 / math.pi / radius**2)


def _scattered(
  votes: jax.Array, rows: jax.Array, columns: jax.Array, shape: tuple[int, int]
) -> jax.Array:
  """float32 [K, H, W]: votes [K, n] added at fractional places [K, n]."""
  height, width = shape
  size = height * width
  total = jnp.zeros((votes.shape[0], size), jnp.float32)
  top, left = jnp.floor(rows), jnp.floor(columns)
  add = jax.vmap(lambda to, where, what: to.at[where].add(what, mode='drop'))
  for row in (top, top + 1):
    for column in (left, left + 1):
      share = (1 - jnp.abs(rows - row)) * (1 - jnp.abs(columns - column))
      within = (row >= 0) & (row < height) & (column >= 0) & (column < width)
      # Compared as floats: what is far away, or NaN, is no integer.
      index = jnp.where(within, row * width + column, size).astype(jnp.int32)
      total = add(total, index, votes * share)
  return total.reshape(-1, height, width)


def _multiplied(
  votes: jax.Array, rows: jax.Array, columns: jax.Array, shape: tuple[int, int]
) -> jax.Array:
  """As `_scattered`, by products of some votes at a time."""

  def weights(places: jax.Array, size: int) -> jax.Array:
    distance = jnp.abs(places[..., None] - jnp.arange(size, dtype=jnp.float32))
    return jnp.where(distance < 1, 1 - distance, 0.0)

  def product(
    votes: jax.Array, rows: jax.Array, columns: jax.Array
  ) -> jax.Array:
    return jnp.einsum(
      'kny,knx->kyx',
      votes[..., None] * weights(rows, shape[0]),
      weights(columns, shape[1]),
      precision=jax.lax.Precision.HIGHEST,
    )

  num, count = votes.shape
  if count <= _CHUNK:
    return product(votes, rows, columns)
  padding = (0, 0), (0, -count % _CHUNK)
  parts = [
    jnp.pad(x, padding).reshape(num, -1, _CHUNK).swapaxes(0, 1)
    for x in (votes, rows, columns)
  ]
  total, _ = jax.lax.scan(
    lambda total, part: (total + product(*part), None),
    jnp.zeros((num, *shape), jnp.float32),
    parts,
  )
  return total
