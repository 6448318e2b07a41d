"""Files of arrays made to do harm: npy, npz, safetensors, pickles.

Each function writes a file of the name given and returns words of the refusal.
What would run creates the file `CANARY` in the working directory.
"""

import io
import json
import os
import pathlib
import pickle
import random
import struct
import warnings
import zipfile
from collections.abc import Callable

import numpy as np

CANARY = 'canary'
TERABYTE = 10**12


class Payload:
  """Its unpickling runs code."""

  def __reduce__(self):
    return os.system, (f'touch {CANARY}',)


def npy_header(shape: tuple, descr: str = '<f4') -> bytes:
  text = repr({'descr': descr, 'fortran_order': False, 'shape': shape})
  text += ' ' * (-(len(text) + 11) % 64) + '\n'
  return b'\x93NUMPY\x01\x00' + struct.pack('<H', len(text)) + text.encode()


def npy(array: np.ndarray, **options) -> bytes:
  out = io.BytesIO()
  np.save(out, array, **options)
  return out.getvalue()


def safetensors(text: str | bytes, data: bytes = bytes(16)) -> bytes:
  text = text.encode() if isinstance(text, str) else text
  return struct.pack('<Q', len(text)) + text + data


def tensor(shape: list, begin: int, end: int, kind: str = 'F32') -> str:
  return json.dumps(
    {'dtype': kind, 'shape': shape, 'data_offsets': [begin, end]}
  )


def _objects(rng: random.Random) -> bytes:
  array = np.array([Payload()] * rng.randrange(1, 4), object)
  return npy(array, allow_pickle=True)


def _of_arrays() -> bytes:
  out = io.BytesIO()
  np.savez(out, a=np.zeros(3))
  return out.getvalue()


# kind -> (content, words of the refusal).
NPY: dict[str, Callable[[random.Random], tuple[bytes, str]]] = {
  'Python objects': lambda rng: (_objects(rng), 'no numbers'),
  'a pickle': lambda rng: (pickle.dumps(Payload()), 'magic string'),
  'a terabyte claimed': lambda rng: (
    npy_header((TERABYTE // 4,)) + bytes(rng.randrange(99)),
    'claims 1,000,000,000,000 bytes',
  ),
  'more than all memory claimed': lambda rng: (
    npy_header((2**62, 2**62)) + bytes(8), 'claims ',
  ),
  'a negative size': lambda rng: (npy_header((-4,)) + bytes(16), 'the shape'),
  'less than is there': lambda rng: (npy_header((3,)) + bytes(16), 'claims 12'),
  'a header of 4 GB': lambda rng: (
    b'\x93NUMPY\x02\x00' + struct.pack('<I', 2**32 - 1) + b'{', 'version',
  ),
  'code for a header': lambda rng: (
    b'\x93NUMPY\x01\x00' + struct.pack('<H', 30)
    + b'__import__("os").getcwd()    \n', 'malformed',
  ),
  'a zip of arrays': lambda rng: (_of_arrays(), 'magic string'),
  'nothing': lambda rng: (b'', 'EOF'),
}  # fmt: skip

SAFETENSORS: dict[str, Callable[[random.Random], tuple[bytes, str]]] = {
  'a header of a terabyte': lambda rng: (
    struct.pack('<Q', TERABYTE) + b'{}', 'a header of 1,000,000,000,000 bytes',
  ),
  'a header of 100 MB': lambda rng: (
    safetensors(b'{"a":' + b' ' * 100_000_000 + b'1}'), 'a header of 100,000',
  ),
  'a tensor of a terabyte': lambda rng: (
    safetensors(f'{{"a":{tensor([TERABYTE // 4], 0, TERABYTE)}}}'),
    "'a' is no tensor of its 16 bytes",
  ),
  'a shape of a terabyte': lambda rng: (
    safetensors(f'{{"a":{tensor([TERABYTE, 2**40], 0, 16)}}}'),
    "'a' is no tensor of its 16 bytes",
  ),
  'a negative shape': lambda rng: (
    safetensors(f'{{"a":{tensor([-4, -1], 0, 16)}}}'), "'a' is no tensor",
  ),
  'a name twice': lambda rng: (
    safetensors(f'{{"a":{tensor([4], 0, 16)},"a":{tensor([2], 0, 8)}}}'),
    "the name 'a' occurs twice",
  ),
  'another type': lambda rng: (
    safetensors(f'{{"a":{tensor([4], 0, 16, "OBJ")}}}'), "is of type 'OBJ'",
  ),
  'a deep header': lambda rng: (
    safetensors('[' * 100_000 + ']' * 100_000), 'not a safetensors file',
  ),
  'a pickle': lambda rng: (pickle.dumps(Payload()), 'not a safetensors file'),
  'no table': lambda rng: (safetensors('[1]'), 'no table of tensors'),
}  # fmt: skip


def _zip(*members: tuple[str, bytes], method: int = 0) -> bytes:
  out = io.BytesIO()
  with warnings.catch_warnings(), zipfile.ZipFile(out, 'w', method) as archive:
    warnings.simplefilter('ignore')  # of names twice
    for name, data in members:
      archive.writestr(zipfile.ZipInfo(name), data, method)
  return out.getvalue()


NPZ: dict[str, Callable[[random.Random], tuple[bytes, str]]] = {
  'Python objects': lambda rng: (_zip(('a.npy', _objects(rng))), 'no numbers'),
  'a terabyte claimed': lambda rng: (
    _zip(('a.npy', npy_header((TERABYTE // 4,)))), 'claims 1,000,000,000,000',
  ),
  'a bomb': lambda rng: (
    _zip(('a.npy', npy(np.zeros(30_000_000, np.int8))), method=8),
    'is compressed',
  ),
  'a name twice': lambda rng: (
    _zip(('a.npy', npy(np.zeros(3))), ('a.npy', npy(np.ones(3)))),
    'occurs twice',
  ),
  'a pickle': lambda rng: (
    _zip(('a.npy', pickle.dumps(Payload()))), 'magic string',
  ),
  'no zip': lambda rng: (pickle.dumps(Payload()), 'not a zip file'),
}  # fmt: skip


def write(
  table: dict[str, Callable[[random.Random], tuple[bytes, str]]],
  kind: str,
  path: pathlib.Path,
  rng: random.Random,
) -> str:
  """Writes a file of a kind; returns words of its refusal."""
  content, words = table[kind](rng)
  path.write_bytes(content)
  return words
