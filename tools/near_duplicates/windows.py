"""Windows of an image as thumbnails: how crops become candidates.

A thumbnail changes when its frame does, so a crop has another one than its
original. But it has that of a window of the original. Each image is kept as a
sketch, a somewhat larger thumbnail, of which the thumbnails of all windows are
made when they are needed: they look for whole images and are never stored.

The windows cover crops down to 80% of height and width so that all edges lie
within some 3% (measured: docs/near-duplicates.md). Their shares are few because
each is one more search of all images.
"""

import functools
import itertools

import numpy as np
from PIL import Image

from . import thumbnails

Window = tuple[float, float, float]  # top, left, height = width: of the image

_LUMA_SIDE = 32
_CHROMA_SIDE = 16
_ROWS = 1 << 12  # described at a time
SKETCH_BYTES = _LUMA_SIDE**2 + 2 * _CHROMA_SIDE**2


def _places(share: float, num: int) -> list[Window]:
  """Windows of one size at num x num places."""
  starts = np.linspace(0, 1 - share, num).round(4).tolist()
  return [(y, x, share) for y, x in itertools.product(starts, starts)]


WINDOWS: tuple[Window, ...] = (*_places(0.93, 2), *_places(0.85, 4))


def sketch(image: np.ndarray) -> np.ndarray:
  """uint8 [SKETCH_BYTES] of an image uint8 [H, W, 3]; never all zeros."""
  picture = Image.fromarray(image).convert('YCbCr')
  size = (_LUMA_SIDE, _LUMA_SIDE)
  small = np.asarray(picture.resize(size, Image.Resampling.BOX), np.float32)
  half = (_CHROMA_SIDE, _LUMA_SIDE // _CHROMA_SIDE) * 2
  chroma = small[..., 1:].reshape(*half, 2).mean((1, 3))
  parts = (small[..., 0], chroma[..., 0], chroma[..., 1])
  return np.concatenate([part.ravel() for part in parts]).round().astype('u1')


def describe(sketches: np.ndarray, window: Window) -> np.ndarray:
  """float32 [n, thumbnails.DIM] of length 1 of one window of each image.

  Args:
    sketches: uint8 [n, SKETCH_BYTES]; rows of zeros (no image) stay zeros.
    window: which.
  """
  top, left, share = window
  planes, start = [], 0
  for side, out in (
    (_LUMA_SIDE, thumbnails.LUMA_SIDE),
    (_CHROMA_SIDE, thumbnails.CHROMA_SIDE),
    (_CHROMA_SIDE, thumbnails.CHROMA_SIDE),
  ):
    plane = sketches[:, start : start + side**2].reshape(-1, side, side)
    rows = _averages(side, out, top, share)
    columns = _averages(side, out, left, share)
    planes.append(rows @ (plane.astype(np.float32) / 255) @ columns.T)
    start += side**2
  vectors = thumbnails.of_planes(*planes)
  vectors[~sketches.any(axis=1)] = 0
  return vectors


@functools.lru_cache(maxsize=256)
def _averages(side: int, out: int, start: float, share: float) -> np.ndarray:
  """float32 [out, side]: means over equal parts of [start, start + share]."""
  edges = (start + share * np.arange(out + 1) / out) * side
  pixels = np.arange(side)
  low = np.maximum(edges[:-1, None], pixels)
  high = np.minimum(edges[1:, None], pixels + 1)
  weights = np.maximum(high - low, 0)
  return (weights / weights.sum(1, keepdims=True)).astype(np.float32)


class WindowVectors:
  """float16 [n, thumbnails.DIM] of one window, computed where it is indexed.

  Args:
    sketches: uint8 [n, SKETCH_BYTES], may be mapped from a file.
    window: which.
    mirrored: of the mirror images instead (of the window of the image).
  """

  def __init__(self, sketches: np.ndarray, window: Window, mirrored: bool):
    self._sketches = sketches
    self._window = window
    self._mirrored = mirrored

  def __len__(self) -> int:
    return len(self._sketches)

  def __getitem__(self, rows: slice | np.ndarray) -> np.ndarray:
    wanted = np.arange(len(self))[rows]
    out = np.empty((len(wanted), thumbnails.DIM), np.float16)
    for low in range(0, len(out), _ROWS):
      sketches = self._sketches[wanted[low : low + _ROWS]]
      found = describe(np.asarray(sketches), self._window)
      out[low : low + _ROWS] = (
        thumbnails.mirror(found) if self._mirrored else found
      )
    return out
