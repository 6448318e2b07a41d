"""Outlines of objects in COCO's form: polygons, or run lengths of a mask.

An outline is a list of polygons [x0, y0, x1, y1, ...] in pixels, or a map
{'size': [height, width], 'counts': ...} of the lengths of runs of 0 and 1 down
the columns, as numbers or packed as text (COCO's mask API). A run-length map
covers the whole image whatever its own size is, so it survives a resize as it
is; a crop or a flip redraws it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

Outline = Sequence[Sequence[float]] | Mapping[str, Any]


def mask(outline: Outline, height: int, width: int) -> np.ndarray:
  """bool [height, width], the object's pixels.

  Raises:
    ValueError: run lengths that do not add up to their size.
  """
  if isinstance(outline, Mapping):
    return nearest(_from_runs(outline), height, width)
  inside = np.zeros((height, width), bool)
  for polygon in outline:
    inside |= _fill(_points(polygon), height, width)
  return inside


def _fill(points: np.ndarray, height: int, width: int) -> np.ndarray:
  """bool [height, width]: pixels whose centre is inside, by even and odd."""
  x, y = points.T[..., None]  # [n, 1]
  x_next, y_next = np.roll(x, -1), np.roll(y, -1)
  centre = np.arange(height) + 0.5
  edge, row = np.nonzero((y <= centre) != (y_next <= centre))
  x, y = x[edge, 0], y[edge, 0]
  slope = (x_next[edge, 0] - x) / (y_next[edge, 0] - y)
  crossing = x + (centre[row] - y) * slope
  # The first pixel whose centre is not left of the crossing.
  column = np.ceil(crossing - 0.5).clip(0, width).astype(np.intp)
  toggles = np.zeros((height, width + 1), np.uint8)
  np.bitwise_xor.at(toggles, (row, column), 1)
  return np.bitwise_xor.accumulate(toggles, axis=1)[:, :width].astype(bool)


def area(outline: Outline) -> float:
  """Pixels inside; of polygons by the shoelace formula, of runs as stored."""
  if isinstance(outline, Mapping):
    return float(np.sum(_counts(outline)[1::2]))
  return float(sum(_polygon_area(_points(p)) for p in outline if len(p)))


def crop(
  outline: Outline, top: int, left: int, size: tuple[int, int], whole: Any
) -> Outline:
  """The part of an outline in a window of the image, in its coordinates.

  Args:
    outline: polygons or run lengths.
    top, left: corner of the window.
    size: (height, width) of the window.
    whole: (height, width) of the image.
  """
  height, width = size
  if isinstance(outline, Mapping):
    inside = mask(outline, *whole)[top : top + height, left : left + width]
    return _to_runs(inside)
  cut = (_clip(_points(p) - (left, top), height, width) for p in outline)
  return [
    points.ravel().tolist()
    for points in cut
    if len(points) > 2 and np.ptp(points, axis=0).all()  # not just an edge
  ]


def flip(outline: Outline, height: int, width: int) -> Outline:
  """The outline of the image of this size mirrored left to right."""
  if isinstance(outline, Mapping):
    return _to_runs(mask(outline, height, width)[:, ::-1])
  return [
    [width - n if i % 2 == 0 else n for i, n in enumerate(p)] for p in outline
  ]


def nearest(image: np.ndarray, height: int, width: int) -> np.ndarray:
  """[H, W] resized without mixing: each pixel is the one at its centre."""
  if image.shape == (height, width):
    return image
  rows = nearest_index(image.shape[0], height)
  return image[rows[:, None], nearest_index(image.shape[1], width)]


def nearest_index(source: int, target: int) -> np.ndarray:
  """intp [target]: the source pixel in which each target pixel's centre lies.

  In integers, so that a part of a row is exactly the part of its whole.
  """
  return (2 * np.arange(target) + 1) * source // (2 * target)


def _points(polygon: Sequence[float]) -> np.ndarray:
  """float64 [n, 2] of x, y."""
  return np.asarray(polygon, np.float64).reshape(-1, 2)


def _polygon_area(points: np.ndarray) -> float:
  x, y = points.T
  open_sum = x[:-1] @ y[1:] - y[:-1] @ x[1:]
  return abs(float(open_sum + x[-1] * y[0] - y[-1] * x[0])) / 2


def _clip(points: np.ndarray, height: int, width: int) -> np.ndarray:
  """Sutherland-Hodgman: the polygon [n, 2] cut by the four edges in turn.

  A concave polygon that falls into parts keeps them joined along the edge;
  area and filled pixels are those of the parts.
  """
  edges = ((0, 1, 0), (0, -1, -width), (1, 1, 0), (1, -1, -height))
  for axis, sign, limit in edges:
    if not len(points):
      break
    depth = sign * points[:, axis] - limit  # >= 0 is inside
    if (depth >= 0).all():
      continue
    kept: list[np.ndarray] = []
    for i in range(len(points)):
      before, here = depth[i - 1], depth[i]
      if (before >= 0) != (here >= 0):
        share = before / (before - here)
        kept.append(points[i - 1] + share * (points[i] - points[i - 1]))
      if here >= 0:
        kept.append(points[i])
    points = np.array(kept).reshape(-1, 2)
  return points


def _from_runs(runs: Mapping[str, Any]) -> np.ndarray:
  """bool [height, width] of COCO's run lengths."""
  height, width = runs['size']
  counts = _counts(runs)
  if counts.sum() != height * width or (counts < 0).any():
    raise ValueError(
      f'run lengths add up to {counts.sum()} where their size is '
      f'{height}x{width}'
    )
  values = np.arange(len(counts)) % 2 == 1
  return np.repeat(values, counts).reshape(width, height).T


def _to_runs(inside: np.ndarray) -> dict[str, Any]:
  """Run lengths as numbers, the first one of zeros (it may be 0)."""
  column_major = np.concatenate([[False], inside.T.ravel()])
  ends = np.flatnonzero(column_major[1:] != column_major[:-1])
  counts = np.diff(np.concatenate([[0], ends, [inside.size]]))
  return {'size': list(inside.shape), 'counts': counts.tolist()}


def _counts(runs: Mapping[str, Any]) -> np.ndarray:
  """int64 run lengths, unpacked where they are text.

  The mask API packs each as groups of 5 bits, least first, in characters from
  48 on, bit 6 saying that more follow; from the third on the difference to
  the last but one is stored.
  """
  packed = runs['counts']
  if not isinstance(packed, str | bytes):
    return np.asarray(packed, np.int64)
  text = packed.encode() if isinstance(packed, str) else packed
  counts: list[int] = []
  value = shift = 0
  for character in text:
    bits = character - 48
    value |= (bits & 31) << shift
    shift += 5
    if not bits & 32:
      if bits & 16:
        value -= 1 << shift  # negative, in two's complement
      counts.append(value + (counts[-2] if len(counts) > 2 else 0))
      value = shift = 0
  return np.array(counts, np.int64)
