"""A descriptor without a model: the image as a small colour thumbnail.

Brightness at 16x16 and two colour differences at 8x8, each without its mean and
together of length one, so that a cosine near one means the same picture at any
size, contrast or compression. It does not survive large crops; features of a
trained model do better (docs/near-duplicates.md).
"""

import numpy as np
from PIL import Image

_LUMA_SIDE = 16
_CHROMA_SIDE = 8
_COLOUR = 0.5  # of the mean colour, which counts only where there is no picture
DIM = _LUMA_SIDE**2 + 2 * _CHROMA_SIDE**2 + 3


def describe(image: np.ndarray) -> np.ndarray:
  """float32 [DIM] of length 1 of an image uint8 [H, W, 3]."""
  picture = Image.fromarray(image).convert('YCbCr')
  size = (_LUMA_SIDE, _LUMA_SIDE)
  small = np.asarray(picture.resize(size, Image.Resampling.BOX), np.float32)
  small = small / 255
  half = (_LUMA_SIDE // _CHROMA_SIDE,) * 2
  chroma = small[..., 1:].reshape(
    _CHROMA_SIDE, half[0], _CHROMA_SIDE, half[1], 2
  )
  chroma = chroma.mean((1, 3)) * 2  # 4 times fewer values, so twice as large
  mean = small.mean((0, 1))
  parts = (
    small[..., 0] - mean[0],
    chroma[..., 0] - 2 * mean[1],
    chroma[..., 1] - 2 * mean[2],
    _COLOUR * (mean + 0.1),
  )
  vector = np.concatenate([part.ravel() for part in parts])
  return vector / np.linalg.norm(vector)


def mirror(vectors: np.ndarray) -> np.ndarray:
  """[n, DIM] descriptors of the mirror images."""
  out = vectors.copy()
  start = 0
  for side in (_LUMA_SIDE, _CHROMA_SIDE, _CHROMA_SIDE):
    stop = start + side**2
    part = vectors[:, start:stop].reshape(-1, side, side)
    out[:, start:stop] = part[:, :, ::-1].reshape(-1, side**2)
    start = stop
  return out
