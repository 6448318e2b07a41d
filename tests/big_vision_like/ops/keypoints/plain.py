"""Discs and votes in float64 numpy, as the paper's formulas say them."""

import math

import numpy as np
from scipy import ndimage


def disc(place, shape, stride, radius):
  """bool [h, w], position by position."""
  found = np.zeros(shape, bool)
  for i in range(shape[0]):
    for j in range(shape[1]):
      y, x = i * stride + 0.5, j * stride + 0.5
      found[i, j] = math.hypot(y - place[0], x - place[1]) <= radius
  return found


def way(place, shape, stride):
  """float64 [2, h, w]: from each position to the place."""
  found = np.zeros((2, *shape))
  for i in range(shape[0]):
    for j in range(shape[1]):
      found[:, i, j] = place[0] - i * stride - 0.5, place[1] - j * stride - 0.5
  return found


def fine(maps, shape, stride):
  """float64 [C, H, W] of [h, w, C] by scipy's interpolation."""
  points = np.meshgrid(*(np.arange(n) / stride for n in shape), indexing='ij')
  return np.stack(
    [
      ndimage.map_coordinates(one, points, order=1, mode='nearest')
      for one in np.moveaxis(maps.astype(np.float64), -1, 0)
    ]
  )


def votes(maps, shape, stride, radius, voting=None):
  """float64 [K, H, W]: the sum of the kernel over the positions of a map.

  Args:
    maps: [3 K, h, w].
    shape: (H, W) of what is voted for.
    stride: pixels a position.
    radius: of the discs.
    voting: bool [K, h, w], positions that vote; None: all.
  """
  num = len(maps) // 3
  rows, columns = np.indices(maps.shape[1:]).reshape(2, -1) * stride
  found = np.zeros((num, *shape))
  for k in range(num):
    logits = maps[k].ravel().astype(np.float64)
    chosen = np.flatnonzero(
      np.ones(logits.size) if voting is None else voting[k]
    )
    weight = stride**2 / (math.pi * radius**2) / (1 + np.exp(-logits[chosen]))
    y = rows[chosen] + maps[num + k].ravel()[chosen]
    x = columns[chosen] + maps[2 * num + k].ravel()[chosen]
    for down in (0, 1):
      for right in (0, 1):
        row, column = np.floor(y) + down, np.floor(x) + right
        share = (1 - abs(y - row)) * (1 - abs(x - column))
        ok = (row >= 0) & (row < shape[0]) & (column >= 0) & (column < shape[1])
        where = row[ok].astype(int), column[ok].astype(int)
        np.add.at(found[k], where, (weight * share)[ok])
  return found


def perfect(places, shape, stride, radius):
  """float32 [h, w, 3 K]: certain of the discs, and exact ways."""
  logits = [
    np.where(disc(place, shape, stride, radius), 40, -40) for place in places
  ]
  ways = [way(place, shape, stride) for place in places]
  found = np.stack([*logits, *(w[0] for w in ways), *(w[1] for w in ways)])
  return np.moveaxis(found, 0, -1).astype(np.float32)


def strongest_cells(maps, shape, stride, num):
  """bool [K, H, W]: the pixels of the cells between features that vote.

  Of [h, w, 3 K] the `num` cells of the largest mean of the probabilities of
  their corners; what is beyond the map is as its border.
  """
  height, width, channels = maps.shape
  found = np.zeros((channels // 3, *shape), bool)
  for k in range(channels // 3):
    p = 1 / (1 + np.exp(-maps[..., k].astype(np.float64)))
    strength = {}
    for i in range(height):
      for j in range(width):
        rows, columns = (i, min(i + 1, height - 1)), (j, min(j + 1, width - 1))
        strength[i, j] = sum(p[r, c] for r in rows for c in columns) / 4
    for i, j in sorted(strength, key=lambda cell: -strength[cell])[:num]:
      rows = slice(i * stride, (i + 1) * stride)
      found[k, rows, j * stride : (j + 1) * stride] = True
  return found
