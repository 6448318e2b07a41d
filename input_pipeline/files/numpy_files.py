"""Arrays of .npy and .npz files, refused where they are not what they seem.

A header may claim a terabyte, hold Python objects, which are pickles, or belong
to a zip of arrays under the name of one. It is compared with the size of the
file before anything is reserved or mapped.
"""

import math
import os
import zipfile
from typing import Any

import numpy as np

from input_pipeline.files import retries

_KINDS = 'biufSU'  # numbers, and texts of a fixed length
_VERSION = (1, 0)  # what np.save writes for arrays of numbers


def mapped(path: str | os.PathLike[str]) -> np.ndarray:
  """The array of a .npy file, mapped; what is touched later is not retried.

  Raises:
    FileNotFoundError: no such file.
    ValueError: not one array of numbers, or another size than its header says.
  """
  try:
    with retries.open_binary(path) as file:
      shape, fortran, dtype = _header(file, os.path.getsize(path))
      offset = file.tell()
  except (ValueError, EOFError) as error:
    raise ValueError(f'{os.fspath(path)}: no array: {_line(error)}') from None
  order: Any = 'F' if fortran else 'C'
  if not math.prod(shape) * dtype.itemsize:
    return np.empty(shape, dtype, order)
  return retries.call(lambda: np.memmap(path, dtype, 'r', offset, shape, order))


def read(path: str | os.PathLike[str]) -> np.ndarray:
  """The same, read whole."""
  return np.array(mapped(path))


def read_all(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
  """The arrays of an .npz file as np.savez writes it, uncompressed.

  Raises:
    FileNotFoundError: no such file.
    ValueError: names the member that is none, claims more than it has, or
      stands there twice.
  """
  found: dict[str, np.ndarray] = {}
  member = ''
  try:
    with (
      retries.open_binary(path) as whole,
      zipfile.ZipFile(whole) as archive,
    ):
      for info in archive.infolist():
        member = info.filename
        name = member.removesuffix('.npy')
        if name in found:
          raise ValueError('occurs twice')
        if info.compress_type != zipfile.ZIP_STORED:
          raise ValueError('is compressed')
        with archive.open(info) as file:
          shape, fortran, dtype = _header(file, info.compress_size)
          data = bytearray(file.read())  # may be written to
        content = np.frombuffer(data, dtype) if data else np.empty(0, dtype)
        found[name] = content.reshape(shape, order='F' if fortran else 'C')
  except retries.StorageError:
    raise
  except (ValueError, EOFError, zipfile.BadZipFile, NotImplementedError) as e:
    where = f' {member!r:.80}' if member else ''
    raise ValueError(
      f'{os.fspath(path)}: no arrays:{where} {_line(e)}'
    ) from None
  return found


def _header(
  file: Any, num_bytes: int
) -> tuple[tuple[int, ...], bool, np.dtype]:
  """(shape, Fortran order, dtype) of an array whose file has so many bytes."""
  version = np.lib.format.read_magic(file)
  if version != _VERSION:
    raise ValueError(f'version {version} of the format')
  shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
  if dtype.kind not in _KINDS:
    held = 'Python objects' if dtype.hasobject else dtype
    raise ValueError(f'holds {held}, no numbers')
  if any(type(n) is not int or n < 0 for n in shape):
    raise ValueError(f'has the shape {shape}')
  claimed, there = math.prod(shape) * dtype.itemsize, num_bytes - file.tell()
  if claimed != there:
    raise ValueError(f'claims {claimed:,} bytes and has {there:,}')
  return shape, fortran, dtype


def _line(error: Exception) -> str:
  return ' '.join(str(error).split())[:200]
