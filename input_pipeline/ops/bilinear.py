"""Bilinear resampling of a window of the resized image.

Samples at half-pixel centres with edges clamped and without antialiasing: the
four neighbours of each output pixel and nothing else, rounded to nearest. One
call yields any window of the resized image, mirrored or not, so that a resize
followed by a crop and a flip touches each surviving pixel once.
"""

import dataclasses
import threading

import numpy as np

_scratch = threading.local()
_MAX_KEPT = 1 << 23  # elements


def _buffer(name: str, shape: tuple[int, int], dtype: type) -> np.ndarray:
  """Uninitialised array of this thread, used again by its next image.

  Fresh arrays of megabytes cost more page faults than the arithmetic on them.
  """
  size = shape[0] * shape[1]
  kept = getattr(_scratch, name, None)
  if kept is None or kept.size < size:
    kept = np.empty(size, dtype)
    if size <= _MAX_KEPT:
      setattr(_scratch, name, kept)
  return kept[:size].reshape(shape)


@dataclasses.dataclass(frozen=True)
class Window:
  """Rectangle of the resized image, in its pixels."""

  top: int
  left: int
  height: int
  width: int
  flip: bool = False  # mirrored left to right after cutting


def _axis(source: int, target: int, start: int, count: int):
  """Lower and upper neighbour and weight of the upper, each [count]."""
  x = (np.arange(start, start + count) + 0.5) * (source / target) - 0.5
  low = np.floor(x)
  weight = (x - low).astype(np.float32)
  low = low.astype(np.intp)
  return low.clip(0, source - 1), (low + 1).clip(0, source - 1), weight


def resize(
  image: np.ndarray, height: int, width: int, window: Window | None = None
) -> np.ndarray:
  """Window of `image` [H,W,C] uint8 resized to [height,width,C].

  Args:
    image: uint8 [H,W,C], not empty.
    height: rows of the whole resized image.
    width: columns of the whole resized image.
    window: part to compute, default all.

  Returns:
    uint8 [window.height, window.width, C], within half a grey level of the
    exact value.
  """
  window = window or Window(0, 0, height, width)
  rows, columns, channels = image.shape
  up, down, y = _axis(rows, height, window.top, window.height)
  left, right, x = _axis(columns, width, window.left, window.width)
  first, last = left[0], right[-1] + 1  # the only columns needed
  if window.flip:
    left, right, x = left[::-1], right[::-1], x[::-1]

  flat = image.reshape(rows, -1)[:, first * channels : last * channels]
  size = (window.height, flat.shape[1])
  row = _buffer('row', size, np.uint8)
  mixed = _buffer('mixed', size, np.float32)
  step = _buffer('step', size, np.float32)
  mixed[...] = flat.take(up, 0, out=row, mode='clip')
  step[...] = flat.take(down, 0, out=row, mode='clip')
  step -= mixed
  step *= y[:, None]
  mixed += step

  size = (window.height, window.width * channels)
  out = _buffer('out', size, np.float32)
  step = _buffer('step', size, np.float32)
  channel = np.arange(channels)
  low = ((left - first)[:, None] * channels + channel).ravel()
  high = ((right - first)[:, None] * channels + channel).ravel()
  mixed.take(low, 1, out=out, mode='clip')
  mixed.take(high, 1, out=step, mode='clip')
  step -= out
  step *= np.repeat(x, channels)
  out += step
  out += 0.5  # the cast below truncates
  return out.astype(np.uint8).reshape(window.height, window.width, channels)
