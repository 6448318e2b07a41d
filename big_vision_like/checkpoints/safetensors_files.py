"""Tensors of a safetensors file, refused where they are not what they seem.

The format holds no code. The library checks that offsets cover the file; a name
that stands in the header twice it takes silently, so that is looked for here.
"""

import json
import os
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

_MAX_HEADER_BYTES = 100_000_000  # the format's own limit
_DTYPES = ('F64', 'F32', 'F16', 'BF16', 'I64', 'I32', 'I16', 'I8', 'U8', 'BOOL')


def read(path: str) -> dict[str, np.ndarray]:
  """All tensors of a file; bfloat16 as float32.

  Raises:
    FileNotFoundError: no such file.
    ValueError: not a safetensors file, damaged, or a repeated name.
  """
  header = _header(path)
  try:
    with safetensors.safe_open(path, 'numpy') as file:
      return {
        name: _widened(file.get_tensor(name))
        for name in header
        if name != '__metadata__'
      }
  except safetensors.SafetensorError as error:
    raise ValueError(f'{path}: not a safetensors file: {error}') from None


def metadata(path: str) -> dict[str, str]:
  """The file's own notes, text by text; raises as `read` does."""
  return dict(_header(path).get('__metadata__', {}))


def write(
  path: str, tensors: Mapping[str, np.ndarray], notes: Mapping[str, str]
) -> None:
  """Writes tensors and notes; a failure leaves a partial file."""
  with open(path, 'wb') as file:  # save_file would make it private
    file.write(safetensors.numpy.save(dict(tensors), dict(notes)))


def _widened(tensor: np.ndarray) -> np.ndarray:
  return tensor.astype(np.float32) if tensor.dtype.itemsize == 2 else tensor


def _header(path: str) -> dict[str, Any]:
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
    header = json.loads(text, object_pairs_hook=_unique)
  except (ValueError, RecursionError) as error:
    raise ValueError(f'{path}: not a safetensors file: {error}') from None
  if not isinstance(header, dict):
    raise ValueError(f'{path}: not a safetensors file: no table of tensors')
  for name, entry in header.items():
    kind = entry.get('dtype') if isinstance(entry, dict) else None
    if name != '__metadata__' and kind not in _DTYPES:
      raise ValueError(
        f'{path}: {name!r} is of type {kind!r}; valid: {", ".join(_DTYPES)}'
      )
  return header


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
  found = dict(pairs)
  if len(found) < len(pairs):
    names = [name for name, _ in pairs]
    twice = next(n for n in names if names.count(n) > 1)
    raise ValueError(f'the name {twice!r} occurs twice')
  return found
