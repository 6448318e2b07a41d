"""A descriptor without a model: the image as a small colour thumbnail.

Brightness at 16x16 and two colour differences at 8x8, each without its mean and
together of length one, so that a cosine near one means the same picture at any
size, contrast or compression. Crops have that of a window (windows.py).
"""

import numpy as np
from PIL import Image

LUMA_SIDE = 16
CHROMA_SIDE = 8
_COLOUR = 0.5  # of the mean colour, which counts only where there is no picture
DIM = LUMA_SIDE**2 + 2 * CHROMA_SIDE**2 + 3


def describe(image: np.ndarray) -> np.ndarray:
  """float32 [DIM] of length 1 of an image uint8 [H, W, 3]."""
  picture = Image.fromarray(image).convert('YCbCr')
  size = (LUMA_SIDE, LUMA_SIDE)
  small = np.asarray(picture.resize(size, Image.Resampling.BOX), np.float32)
  small = small / 255
  half = (LUMA_SIDE // CHROMA_SIDE,) * 2
  chroma = small[..., 1:].reshape(CHROMA_SIDE, half[0], CHROMA_SIDE, half[1], 2)
  chroma = chroma.mean((1, 3))
  return of_planes(
    small[None, ..., 0], chroma[None, ..., 0], chroma[None, ..., 1]
  )[0]


def of_planes(
  luma: np.ndarray, blue: np.ndarray, red: np.ndarray
) -> np.ndarray:
  """float32 [n, DIM] of length 1.

  Args:
    luma: [n, LUMA_SIDE, LUMA_SIDE], brightness in [0, 1].
    blue, red: [n, CHROMA_SIDE, CHROMA_SIDE], colour differences in [0, 1].
  """
  num = len(luma)
  planes = (luma, blue, red)
  means = np.stack([plane.mean((1, 2)) for plane in planes], 1)
  parts = [
    # Colours have 4 times fewer values, so each is twice as large.
    (plane - mean[:, None, None]).reshape(num, -1) * scale
    for plane, mean, scale in zip(planes, means.T, (1, 2, 2))
  ]
  vectors = np.concatenate([*parts, _COLOUR * (means + 0.1)], 1)
  return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def mirror(vectors: np.ndarray) -> np.ndarray:
  """[n, DIM] descriptors of the mirror images."""
  out = vectors.copy()
  start = 0
  for side in (LUMA_SIDE, CHROMA_SIDE, CHROMA_SIDE):
    stop = start + side**2
    part = vectors[:, start:stop].reshape(-1, side, side)
    out[:, start:stop] = part[:, :, ::-1].reshape(-1, side**2)
    start = stop
  return out
