"""64-bit perceptual hash of an image, and pairs of hashes that differ little.

The hash is the usual pHash (that of the ImageHash package, bit for bit): the
8x8 lowest frequencies of the 32x32 grey image's cosine transform, each compared
with their median. Near hashes are found by multi-index hashing: of four bands
of 16 bits, one differs in at most distance // 4 bits (pigeonhole principle).
"""

import itertools
from collections.abc import Iterator

import numpy as np
from PIL import Image

BITS = 64
MAX_DISTANCE = 15  # above, the variants of a band outnumber the database
_SIDE = 32
_LOW = 8
_BANDS = 4
_BAND_BITS = BITS // _BANDS
_NUM_VALUES = 1 << _BAND_BITS
_AT_ONCE = 1 << 21  # candidates


def _cosines() -> np.ndarray:
  """[8, 32]: the lowest rows of the DCT-II."""
  k, n = np.arange(_LOW)[:, None], np.arange(_SIDE)
  return 2 * np.cos(np.pi * k * (2 * n + 1) / (2 * _SIDE))


_DCT = _cosines()
_WEIGHTS = 1 << np.arange(BITS - 1, -1, -1, dtype=np.uint64)
_MIRROR = (-1.0) ** np.arange(_LOW)  # odd frequencies change sign


def phash(image: np.ndarray) -> tuple[int, int]:
  """Hashes of an image uint8 [H, W, 3] and of its mirror image."""
  grey = Image.fromarray(image).convert('L')
  small = grey.resize((_SIDE, _SIDE), Image.Resampling.LANCZOS)
  low = _DCT @ np.asarray(small, np.float64) @ _DCT.T  # [8, 8]
  return _bits(low), _bits(low * _MIRROR)


def _bits(low: np.ndarray) -> int:
  # A frequency that the image lacks is 0; the sum leaves some 1e-12 of it.
  low = np.round(low, 6)
  return int(_WEIGHTS[(low > np.median(low)).ravel()].sum())


def distance(a: np.ndarray, b: np.ndarray) -> np.ndarray:
  """Number of different bits of uint64 arrays, uint8."""
  return np.bitwise_count(np.bitwise_xor(a, b))


class Index:
  """Database of hashes that answers: which differ in at most so many bits.

  Args:
    hashes: uint64 [n].

  Memory: 8 bytes of the hash, 16 of the order and 4 x 0.5 MB beside.
  """

  def __init__(self, hashes: np.ndarray):
    self._hashes = hashes
    self._orders, self._starts = [], []
    for band in range(_BANDS):
      values = _band(hashes, band)
      kind = np.int32 if len(hashes) < 2**31 else np.int64
      self._orders.append(np.argsort(values, kind='stable').astype(kind))
      counts = np.bincount(values, minlength=_NUM_VALUES)
      self._starts.append(np.concatenate([[0], np.cumsum(counts)]))

  def near(
    self, queries: np.ndarray, max_distance: int
  ) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Every pair within the distance, exactly once, in portions.

    Args:
      queries: uint64 [q].
      max_distance: 0 to MAX_DISTANCE.

    Yields:
      (query int64 [m], member of the database int64 [m], distance uint8 [m]).
    """
    radius = max_distance // _BANDS
    flips = _flips(radius)
    for band in range(_BANDS):
      order, starts = self._orders[band], self._starts[band]
      step = max(1, _AT_ONCE // len(flips) // 8)
      for first in range(0, len(queries), step):
        values = _band(queries[first : first + step], band)
        wanted = np.bitwise_xor(values[:, None], flips)  # [s, V]
        begin = starts[wanted].ravel()
        sizes = starts[wanted + 1].ravel() - begin
        for rows, places in _ranges(begin, sizes):
          query = first + rows // len(flips)
          member = order[places].astype(np.int64)
          a, b = queries[query], self._hashes[member]
          bits = distance(a, b)
          keep = bits <= max_distance
          query, member, bits = query[keep], member[keep], bits[keep]
          if not len(query):
            continue
          fresh = np.ones(len(query), bool)  # else an earlier band has it
          for earlier in range(band):
            apart = np.bitwise_count(
              _band(queries[query], earlier)
              ^ _band(self._hashes[member], earlier)
            )
            fresh &= apart > radius
          yield query[fresh], member[fresh], bits[fresh]


def _band(hashes: np.ndarray, band: int) -> np.ndarray:
  shift = np.uint64(band * _BAND_BITS)
  return ((hashes >> shift) & np.uint64(_NUM_VALUES - 1)).astype(np.int64)


def _flips(radius: int) -> np.ndarray:
  """int64 [V]: all band values with at most `radius` bits set."""
  found = [
    sum(1 << bit for bit in bits)
    for size in range(radius + 1)
    for bits in itertools.combinations(range(_BAND_BITS), size)
  ]
  return np.array(found, np.int64)


def _ranges(
  begin: np.ndarray, sizes: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
  """(number of the range, place in it) of all places of many ranges.

  In portions of about _AT_ONCE places; a longer range is cut.
  """
  full = np.flatnonzero(sizes)
  ends = np.cumsum(sizes[full])
  total = int(ends[-1]) if len(ends) else 0
  for low in range(0, total, _AT_ONCE):
    place = np.arange(low, min(low + _AT_ONCE, total))
    part = np.searchsorted(ends, place, side='right')
    rows = full[part]
    yield rows, begin[rows] + place - (ends[part] - sizes[rows])
