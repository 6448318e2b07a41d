"""A map of features as stored: its numbers in a file, and in an example.

In a file it is [h, w, D] little-endian numbers and nothing else; a bfloat16 is
a uint16 of its bits, the upper half of a float32.
"""

import dataclasses
from typing import Any, Literal

import numpy as np

DType = Literal['float32', 'float16', 'bfloat16']
_STORED = {'float32': '<f4', 'float16': '<f2', 'bfloat16': '<u2'}


def to_bytes(numbers: np.ndarray, dtype: str) -> bytes:
  """A map as a file holds it, rounded to nearest.

  Raises:
    ValueError: a number that is not finite, or not in that type.
  """
  kind = np.dtype(_STORED[dtype])
  with np.errstate(over='ignore'):
    if dtype == 'bfloat16':
      bits = np.ascontiguousarray(numbers, '<f4').view('<u4')
      even = (bits >> 16) & 1
      stored = ((bits + (0x7FFF + even)) >> 16).astype(kind)
      back = (stored.astype('<u4') << 16).view('<f4')
    else:
      stored = back = np.ascontiguousarray(numbers, kind)
  if not np.isfinite(back).all():
    raise ValueError(
      f'the largest feature is {np.abs(numbers).max():.4g}, which {dtype} does '
      'not hold; choose another dtype'
    )
  return stored.tobytes()


def from_bytes(
  data: bytes, shape: tuple[int, int, int], dtype: str
) -> np.ndarray:
  """float32 [h, w, D] of what `to_bytes` gave."""
  stored = np.frombuffer(data, _STORED[dtype]).reshape(shape)
  if dtype == 'bfloat16':
    return (stored.astype('<u4') << 16).view('<f4')
  return stored.astype('<f4', copy=False)


def bytes_of(shape: tuple[int, ...], dtype: str) -> int:
  """Of a map in a file."""
  return int(np.prod(shape)) * np.dtype(_STORED[dtype]).itemsize


@dataclasses.dataclass(frozen=True)
class StoredMap:
  """The map of an image or of its reflection, not read yet.

  Attributes:
    reader: of the shards, with `read(shard, position)` -> bytes.
    shard, position: where its record's maps begin.
    num_variants: 1, or 2 where the reflection is stored too.
    shape: (h, w, D).
    dtype: of the file.
    variant: 0, or 1 for the reflection.
  """

  reader: Any
  shard: int
  position: int
  num_variants: int
  shape: tuple[int, int, int]
  dtype: str
  variant: int = 0

  def mirrored(self) -> 'StoredMap':
    """That of the image's reflection.

    Raises:
      ValueError: only the images' own maps are stored.
    """
    if self.num_variants == 1:
      raise ValueError(
        "the op 'random_flip' needs maps of reflections, which are not stored "
        'here: extract them with a config that has this op'
      )
    return dataclasses.replace(self, variant=1 - self.variant)

  def read(self) -> np.ndarray:
    """float32 [h, w, D].

    Raises:
      ValueError: the file has been damaged.
    """
    data = self.reader.read(self.shard, self.position + self.variant)
    return from_bytes(data, self.shape, self.dtype)
