"""Anchors of a map of features, in TensorFlow's Object Detection API's order.

Of its grid_anchor_generator.py (2017): rows first, then columns, then aspect
ratios, then scales, which vary fastest. The anchors of cell (i, j) are centred
on the pixel (i * stride, j * stride). An anchor of scale s and ratio r (width
over height) is s * base / sqrt(r) high and s * base * sqrt(r) wide.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np


def cell(
  base_size: float, scales: Sequence[float], ratios: Sequence[float]
) -> np.ndarray:
  """Heights and widths of the anchors of a cell: float32 [A, 2].

  Raises:
    ValueError: no scale or ratio, or one that is not positive.
  """
  for name, values in (
    ('base_size', [base_size]),
    ('scales', scales),
    ('ratios', ratios),
  ):
    if not len(values) or not all(0 < v < float('inf') for v in values):
      raise ValueError(
        f'anchors: {name} must be positive numbers, got {list(values)}'
      )
  root = np.sqrt(np.asarray(ratios, np.float64))[:, None]
  scale = np.asarray(scales, np.float64)[None, :]
  sides = np.stack([scale / root, scale * root], axis=-1) * base_size
  return sides.reshape(-1, 2).astype(np.float32)


def grid(
  shape: tuple[int, int],
  stride: int,
  sides: np.ndarray,
  offset: tuple[float, float] = (0.0, 0.0),
) -> np.ndarray:
  """All anchors of a map of `shape` (h, w): float32 [h * w * A, 4].

  Args:
    shape: height and width of the map of features.
    stride: pixels a feature.
    sides: of `cell`.
    offset: pixel (y, x) of the centre of the first cell.

  Returns:
    numpy, since it is a constant of the program.
  """
  height, width = shape
  y = np.arange(height, dtype=np.float32) * stride + np.float32(offset[0])
  x = np.arange(width, dtype=np.float32) * stride + np.float32(offset[1])
  centres = np.stack(np.meshgrid(y, x, indexing='ij'), axis=-1)
  corner = centres[:, :, None] - sides / 2
  return np.concatenate([corner, corner + sides], axis=-1).reshape(-1, 4)


def inside(anchors: jax.Array | np.ndarray, size: jax.Array) -> jax.Array:
  """Anchors [N, 4] -> bool [N]: none of it beyond an image of size [2]."""
  anchors = jnp.asarray(anchors)
  limit = jnp.asarray(size, anchors.dtype)
  return (anchors[:, :2] >= 0).all(axis=1) & (anchors[:, 2:] <= limit).all(
    axis=1
  )
