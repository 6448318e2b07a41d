"""A rectangle of an image, anywhere and of any size, resampled by Pillow.

Coordinates are pixel edges, y and x: pixel (row, column) covers [row, row + 1)
x [column, column + 1), its centre is at .5, and the rectangle's own edges
become the edges of the result. What lies outside the image is filled.

Where the rectangle is reduced, each result is a triangle-weighted mean as wide
as the reduction (Pillow's BILINEAR), so that nothing aliases; where it is
enlarged, the mix of the four neighbours. A turned rectangle takes two steps:
the upright region around it is resampled at the pitch of the result, or kept
at its own pixels where that is finer, and then turned with the mix of four
neighbours, which alone would alias.
"""

import dataclasses
import math

import numpy as np
from PIL import Image

_SUPPORT = 1  # of the triangle, in pixels of the result, or of the image


@dataclasses.dataclass(frozen=True)
class Span:
  """`count` pixels from `start` on along an axis, `pitch` apart, of the image.

  Attributes:
    start: edge of the first, in pixels of the image.
    pitch: pixels of the image to one of these.
    count: how many.
  """

  start: float
  pitch: float
  count: int

  @property
  def reach(self) -> float:
    """Pixels of the image that one of these looks to either side."""
    return _SUPPORT * max(self.pitch, 1)

  def touched(self, length: int) -> tuple[int, int]:
    """First and one past the last that see an image of this length."""
    first = math.floor((-self.reach - self.start) / self.pitch)
    last = math.ceil((length + self.reach - self.start) / self.pitch)
    first, last = max(first, 0), min(last, self.count)
    return first, max(last, first)

  def part(self, first: int, last: int) -> 'Span':
    return Span(self.start + first * self.pitch, self.pitch, last - first)

  def seen(self) -> tuple[int, int]:
    """Whole pixels of the image that these look at, also outside it."""
    end = self.start + self.count * self.pitch
    return (
      math.floor(self.start - self.reach) - 1,
      math.ceil(end + self.reach) + 1,
    )


def upright(
  image: np.ndarray, rows: Span, columns: Span, fill: np.ndarray
) -> np.ndarray:
  """uint8 [rows.count, columns.count, 3] of an image uint8 [H, W, 3].

  Args:
    image: the image.
    rows, columns: what of it.
    fill: uint8 [3] or a number, of what is outside.
  """
  out = np.empty((rows.count, columns.count, 3), np.uint8)
  top, bottom = rows.touched(image.shape[0])
  left, right = columns.touched(image.shape[1])
  whole = (top, bottom, left, right) == (0, rows.count, 0, columns.count)
  if not whole:
    out[...] = fill
  if bottom > top and right > left:
    out[top:bottom, left:right] = _resampled(
      image, rows.part(top, bottom), columns.part(left, right), fill
    )
  return out


def _resampled(
  image: np.ndarray, rows: Span, columns: Span, fill: np.ndarray
) -> np.ndarray:
  """The same, of rectangles that reach little beyond the image."""
  (y0, y1), (x0, x1) = rows.seen(), columns.seen()
  height, width = image.shape[:2]
  cut = image[max(y0, 0) : min(y1, height), max(x0, 0) : min(x1, width)]
  if y0 < 0 or x0 < 0 or y1 > height or x1 > width:
    padded = np.empty((y1 - y0, x1 - x0, 3), np.uint8)
    padded[...] = fill
    top, left = max(-y0, 0), max(-x0, 0)
    padded[top : top + cut.shape[0], left : left + cut.shape[1]] = cut
    cut = padded
  box = (
    columns.start - x0,
    rows.start - y0,
    columns.start + columns.count * columns.pitch - x0,
    rows.start + rows.count * rows.pitch - y0,
  )
  picture = Image.fromarray(cut)
  size = columns.count, rows.count
  return np.asarray(picture.resize(size, Image.Resampling.BILINEAR, box=box))


def turned(
  image: np.ndarray,
  to_image: np.ndarray,
  size: tuple[int, int],
  pitch: tuple[float, float],
  fill: np.ndarray,
) -> np.ndarray:
  """uint8 [*size, 3] of an image under any affine map.

  Args:
    image: uint8 [H, W, 3].
    to_image: [2, 3], (y, x) of the image = to_image @ (y', x', 1).
    size: height and width of the result.
    pitch: about how many pixels of the image lie between two of the result,
      along y and x of the image.
    fill: uint8 [3] or a number, of what is outside.
  """
  height, width = size
  corners = np.array(
    [(0, 0, 1), (0, width, 1), (height, 0, 1), (height, width, 1)]
  )
  reached = corners @ to_image.T
  spans = [
    _around(reached[:, axis].min(), reached[:, axis].max(), pitch[axis])
    for axis in (0, 1)
  ]
  around = upright(image, spans[0], spans[1], fill)
  starts = np.array([span.start for span in spans])
  pitches = np.array([span.pitch for span in spans])
  y, x = (to_image - np.array([[0, 0, 1]]) * starts[:, None]) / pitches[:, None]
  picture = Image.fromarray(around).transform(
    (width, height),
    Image.Transform.AFFINE,
    (x[1], x[0], x[2], y[1], y[0], y[2]),
    Image.Resampling.BILINEAR,
  )
  return np.asarray(picture)


def _around(low: float, high: float, pitch: float) -> Span:
  """A span of at least one pixel more than from `low` to `high`, so that no
  neighbour is missing; of whole pixels of the image where it is enlarged.
  """
  pitch = max(float(pitch), 1.0)
  start = math.floor(low - 2 * pitch)
  return Span(start, pitch, math.ceil((high + 2 * pitch - start) / pitch))
