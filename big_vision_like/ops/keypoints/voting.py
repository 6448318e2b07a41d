"""Hough voting: positions of a pose net's map say where a keypoint is.

Papandreou et al. 2017, section 3.3:

    f_k(x_i) = sum_j 1 / (pi R^2) G(x_j + F_k(x_j) - x_i) h_k(x_j)

Position j, whose probability to be near keypoint k is h, votes for the place
that its offset F points to, with a bilinear kernel G. Where map and offsets
are right a disc's votes meet in one pixel, and the peak is near 1.

The paper counts the votes of all pixels. A keypoint's disc has 1,961 of 90,721,
and the others have next to no say: where the most probable of the cells between
features vote, pixel by pixel, peaks hardly change. The features alone are fewer
still, and coarser.

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
_REACH = 1.5  # radii, of the disc whose cells are as many as those that vote
_CHUNK = 2048  # votes of a product


def num_cells(radius: float, stride: int) -> int:
  """How many cells of stride x stride pixels vote for a keypoint."""
  return math.ceil(math.pi * (_REACH * radius / stride + 1) ** 2)


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
    voting: 'exact': all pixels vote, by interpolated maps; 'top': those of the
      strongest cells of each keypoint, as many as a disc half as large again
      has; 'grid': the features' own positions, each with a cell's weight.
    method: 'scatter', 'matmul', or 'auto' for the platform's.

  Returns:
    float32 [K, H, W], at most about 1. Votes for places outside are dropped.
  """
  stride = interpolation.stride_between(shape, maps.shape[:2])
  maps = jnp.moveaxis(maps, -1, 0)
  if voting == 'grid':
    logits, offsets = channels.split(maps)
    place = jnp.indices(maps.shape[1:]) * stride
    votes = jax.nn.sigmoid(logits)
  else:
    num = num_cells(radius, stride) if voting == 'top' else None
    votes, place, offsets = _of_cells(maps, shape, stride, num)
  rows, columns = (
    (place[axis] + offsets[axis]).reshape(len(votes), -1) for axis in (0, 1)
  )
  if method == 'auto':
    method = 'scatter' if constraints.platform() == 'cpu' else 'matmul'
  add = _scattered if method == 'scatter' else _multiplied
  total = add(votes.reshape(len(votes), -1), rows, columns, shape)
  # Afterwards: sums of probabilities near 1 are rounded less.
  weight = stride**2 if voting == 'grid' else 1
  return total * (weight / (math.pi * radius**2))


def _of_cells(
  maps: jax.Array, shape: tuple[int, int], stride: int, num: int | None
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Pixels of the strongest cells of each keypoint.

  A cell is the stride x stride pixels from a feature on, of which the four
  around it are the corners.

  Args:
    maps: float32 [3 K, h, w].
    shape: (H, W) of the crop.
    stride: pixels a feature.
    num: how many cells, n; None: all.

  Returns:
    votes [K, n, p], 0 for what is beyond the crop; places int32 [2, K, n, p] or
    [2, 1, n, p]; offsets [2, K, n, p].
  """
  _, height, width = maps.shape
  wide = jnp.pad(maps, ((0, 0), (0, 1), (0, 1)), mode='edge')
  corners = jnp.stack(
    [
      wide[:, down : down + height, right : right + width]
      for down in (0, 1)
      for right in (0, 1)
    ],
    axis=-1,
  )  # [3 K, h, w, 4]
  logits = corners[: len(maps) // 3].reshape(-1, height * width, 4)
  offsets = corners[len(maps) // 3 :].reshape(2, *logits.shape)
  cell = jnp.arange(height * width)[None]
  if num is not None and num < height * width:
    strength = jax.nn.sigmoid(logits).sum(-1)
    cell = jax.lax.top_k(strength, num)[1]  # [K, n]
    logits = jnp.take_along_axis(logits, cell[..., None], axis=1)
    offsets = jnp.take_along_axis(offsets, cell[None, ..., None], axis=2)
  share = jnp.arange(stride, dtype=jnp.float32) / stride
  axis = jnp.stack([1 - share, share])  # [2, s]
  weights = (axis[:, None, :, None] * axis[None, :, None, :]).reshape(4, -1)
  fine = lambda x: jnp.matmul(x, weights, precision=jax.lax.Precision.HIGHEST)
  inside = jnp.indices((stride, stride)).reshape(2, 1, 1, -1)
  first = jnp.stack([cell // width, cell % width])[..., None] * stride
  place = first + inside
  limit = jnp.array(shape)[:, None, None, None]
  votes = jnp.where(
    (place < limit).all(axis=0), jax.nn.sigmoid(fine(logits)), 0.0
  )
  return votes, place, fine(offsets)


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
