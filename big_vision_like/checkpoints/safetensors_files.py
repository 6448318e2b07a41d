"""Tensors of a safetensors file, refused where they are not what they seem.

The format holds no code. A name that stands in the header twice the library
takes silently, and what a header claims it may reserve: both are looked at here
first.
"""

import json
import math
import os
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

_MAX_HEADER_BYTES = 8_000_000  # of a net: some 100 bytes a tensor
_ITEM_BYTES = {
  'F64': 8, 'F32': 4, 'F16': 2, 'BF16': 2, 'I64': 8, 'I32': 4, 'I16': 2,
  'I8': 1, 'U8': 1, 'BOOL': 1,
}  # fmt: skip


def read(path: str) -> dict[str, np.ndarray]:
  """All tensors of a file; bfloat16 as float32.

  Raises:
    FileNotFoundError: no such file.
    ValueError: not a safetensors file, damaged, or a repeated name.
  """
  table, _ = header(path)
  try:
    with safetensors.safe_open(path, 'numpy') as file:
      return {
        name: _widened(file.get_tensor(name))
        for name in table
        if name != '__metadata__'
      }
  except safetensors.SafetensorError as error:
    raise ValueError(f'{path}: not a safetensors file: {error}') from None


def metadata(path: str) -> dict[str, str]:
  """The file's own notes, text by text; raises as `read` does."""
  return dict(header(path)[0].get('__metadata__', {}))


def write(
  path: str, tensors: Mapping[str, np.ndarray], notes: Mapping[str, str]
) -> None:
  """Writes tensors and notes; a failure leaves a partial file."""
  with open(path, 'wb') as file:  # save_file would make it private
    file.write(safetensors.numpy.save(dict(tensors), dict(notes)))


def _widened(tensor: np.ndarray) -> np.ndarray:
  return tensor.astype(np.float32) if tensor.dtype.itemsize == 2 else tensor


def header(path: str) -> tuple[dict[str, Any], int]:
  """(table of the tensors and '__metadata__', where the data begin).

  Raises:
    FileNotFoundError: no such file.
    ValueError: not a safetensors file, a repeated name, or tensors that are not
      of the size of their bytes, or lie outside the file.
  """
  if not os.path.isfile(path):
    raise FileNotFoundError(f'no file {path!r}')
  with open(path, 'rb') as file:
    start = file.read(8)
    num_bytes = struct.unpack('<Q', start)[0] if len(start) == 8 else 0
    if not 2 <= num_bytes <= min(_MAX_HEADER_BYTES, os.path.getsize(path) - 8):
      raise ValueError(
        f'{path}: not a safetensors file: a header of {num_bytes:,} bytes'
      )
    text = file.read(num_bytes)
  try:
    table = json.loads(text, object_pairs_hook=_unique)
  except (ValueError, RecursionError) as error:
    raise ValueError(f'{path}: not a safetensors file: {error}') from None
  if not isinstance(table, dict):
    raise ValueError(f'{path}: not a safetensors file: no table of tensors')
  there = os.path.getsize(path) - 8 - num_bytes
  for name, entry in table.items():
    if name == '__metadata__':
      continue
    kind = entry.get('dtype') if isinstance(entry, dict) else None
    if kind not in _ITEM_BYTES:
      raise ValueError(
        f'{path}: {name!r:.80} is of type {kind!r:.80}; valid: '
        f'{", ".join(_ITEM_BYTES)}'
      )
    if not _fits(entry, _ITEM_BYTES[kind], there):
      raise ValueError(
        f'{path}: not a safetensors file: {name!r:.80} is no tensor of its '
        f'{there:,} bytes: {json.dumps(entry):.200}'
      )
  return table, 8 + num_bytes


def _fits(entry: dict[str, Any], item_bytes: int, there: int) -> bool:
  """Whether the bytes of a tensor are there, and as many as its shape needs."""
  shape: Any = entry.get('shape')
  places: Any = entry.get('data_offsets')
  for numbers in (shape, places):
    if not isinstance(numbers, list):
      return False
    if any(type(n) is not int or n < 0 for n in numbers):
      return False
  if len(places) != 2:
    return False
  begin, end = places
  needed = math.prod(shape) * item_bytes
  return begin <= end <= there and end - begin == needed


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
  found = dict(pairs)
  if len(found) < len(pairs):
    names = [name for name, _ in pairs]
    twice = next(n for n in names if names.count(n) > 1)
    raise ValueError(f'the name {twice!r} occurs twice')
  return found
