"""Records in the order of a hash of their ids: random, yet a function of ids.

The m records of smallest hash are a uniform random subset of exactly m. It lies
within that of any larger m, and neither the order of the records nor records
added later change which of two comes first (Sun et al. 2017, section 5.2: 10M,
30M and 100M of the 300M images).
"""

import hashlib
from collections.abc import Iterable

import numpy as np

from big_vision_like.protocols import HashOrdered, Source
from input_pipeline.labels import arrays

_BLOCK = 1 << 16  # keys hashed between two arrays
_POSITIONS = 1 << 18  # numbers hashed at once


def key_hashes(keys: Iterable[str], seed: int) -> np.ndarray:
  """uint64 [n] hashes of (seed, key): the order in which data are prepared."""
  prefix = _prefix(seed)
  found: list[np.ndarray] = []
  digests: list[bytes] = []

  def flush() -> None:
    found.append(np.frombuffer(b''.join(digests), '>u8').astype(np.uint64))
    digests.clear()

  for key in keys:
    digests.append(_digest(prefix, key))
    if len(digests) == _BLOCK:
      flush()
  flush()
  return np.concatenate(found)


def key_hash(key: str, seed: int) -> int:
  """The same of one key, 64 bits."""
  return int.from_bytes(_digest(_prefix(seed), key))


def _prefix(seed: int) -> bytes:
  return f'{seed}\n'.encode()


def _digest(prefix: bytes, key: str) -> bytes:
  data = prefix + key.encode('utf-8', 'surrogateescape')
  return hashlib.blake2b(data, digest_size=8).digest()


def position_hashes(positions: np.ndarray | range, seed: int) -> np.ndarray:
  """uint64 [n] hashes of (seed, position), without a loop over them.

  SplitMix64 (Steele et al. 2014), started at a hash of the seed.
  """
  start = hashlib.blake2b(f'positions\n{seed}'.encode(), digest_size=8).digest()
  offset = np.frombuffer(start, '>u8').astype(np.uint64)
  out = np.empty(len(positions), np.uint64)
  for first in range(0, len(positions), _POSITIONS):
    part = np.asarray(positions[first : first + _POSITIONS], np.uint64)
    mixed = part * np.uint64(0x9E3779B97F4A7C15) + offset
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
      mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    out[first : first + len(part)] = mixed ^ (mixed >> np.uint64(31))
  return out


def smallest(hashes: np.ndarray, num: int) -> np.ndarray:
  """int64 [num] positions of the smallest hashes, in their order.

  Equal hashes keep the order of their positions.
  """
  if num < len(hashes):
    limit = np.partition(hashes, num - 1)[num - 1]
    candidates = np.flatnonzero(hashes <= limit)
  else:
    candidates = np.arange(len(hashes))
  order = np.argsort(hashes[candidates], kind='stable')[:num]
  return candidates[order]


def stored(source: Source) -> bool:
  """Whether the records of a source are stored in hash order of seed 0."""
  return isinstance(source, HashOrdered) and source.in_hash_order


def first(
  source: Source, chosen: np.ndarray | range, num: int, seed: int
) -> np.ndarray | range:
  """The `num` records among the chosen ones that come first in hash order.

  A source whose records are stored in this order (`in_hash_order`) gives a
  prefix for seed 0: no key is read. Its records have no names but their places,
  so for another seed these are hashed.

  Args:
    source: random-access source.
    chosen: [n] its records to draw from, ascending.
    num: how many of them.
    seed: another one gives an independent draw.

  Returns:
    [num] records in hash order; a range where `chosen` is one and is cut.
  """
  in_order = stored(source)
  if in_order and seed == 0:
    prefix = chosen[:num]
    return prefix if isinstance(prefix, range) else prefix.copy()
  if in_order:
    hashes = position_hashes(chosen, seed)
  else:
    hashes = key_hashes((source.key(int(i)) for i in chosen), seed)
  drawn = smallest(hashes, num)
  if isinstance(chosen, range):
    assert chosen.start == 0 and chosen.step == 1
    return drawn.astype(arrays.dtype_for(len(source)))
  return chosen[drawn]
