"""Struct arrays of MATLAB files: the numbers and strings of their fields.

ImageNet's development kit names its classes in a .mat file (level 5, MATLAB 5
to 7.2). scipy's reader, written in Cython for trusted files, crashes with a
segmentation fault on a few flipped bytes, so a file from elsewhere might do
worse. This one is a few slices with their bounds checked. Format: "MAT-File
Level 5 Format" in MathWorks' documentation.
"""

import math
import struct
import zlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

MAX_BYTES = 64 << 20  # decompressed
_MAX_FIELDS = 1000
_HEADER = 128
_COMPRESSED, _MATRIX = 15, 14
_STRUCT, _CHAR = 2, 4
_NUMBERS = range(6, 16)  # double, single, int8 ... uint64
_FORMATS = {  # type of an element -> format of struct, encoding of text
  1: ('b', 'latin-1'),
  2: ('B', 'latin-1'),
  3: ('h', ''),
  4: ('H', 'utf-16'),
  5: ('i', ''),
  6: ('I', ''),
  7: ('f', ''),
  9: ('d', ''),
  12: ('q', ''),
  13: ('Q', ''),
  16: ('', 'utf-8'),
  17: ('', 'utf-16'),
}

Value = str | float | None


class _Element(NamedTuple):
  kind: int
  data: memoryview


def struct_array(data: bytes, name: str) -> list[dict[str, Value]]:
  """The structs of the variable `name`, in order.

  A field is a string, a number, or None for whatever else it holds (several
  numbers, cells, objects).

  Raises:
    ValueError: not a level 5 file, damaged, too large, or no such struct array.
  """
  if len(data) < _HEADER or data[126:128] not in (b'IM', b'MI'):
    raise ValueError('not a MATLAB file of level 5')
  order = '<' if data[126:128] == b'IM' else '>'
  try:
    for element in _elements(memoryview(data)[_HEADER:], order):
      if element.kind == _COMPRESSED:
        (element,) = _elements(_decompressed(element.data), order)
      if element.kind == _MATRIX:
        parts = _elements(element.data, order)
        kind, shape, variable = _head(parts, order)
        if variable == name and kind == _STRUCT:
          return _structs(parts, shape, order)
  except (struct.error, StopIteration, UnicodeDecodeError) as error:
    raise ValueError(f'damaged: {str(error) or "cut short"}') from None
  raise ValueError(f'no struct array {name!r}')


def _decompressed(data: memoryview) -> memoryview:
  try:
    plain = zlib.decompressobj().decompress(data, MAX_BYTES + 1)
  except zlib.error as error:
    raise ValueError(f'damaged: {error}') from None
  if len(plain) > MAX_BYTES:
    raise ValueError(f'more than {MAX_BYTES:,} bytes when decompressed')
  return memoryview(plain)


def _elements(data: memoryview, order: str) -> Iterator[_Element]:
  """The data elements that follow one another: a tag and so many bytes."""
  at = 0
  while at < len(data):
    (first,) = struct.unpack_from(f'{order}I', data, at)
    if first >> 16:  # up to four bytes, within the tag
      kind, size = first & 0xFFFF, first >> 16
      start, end = at + 4, at + 8
      if size > 4:
        raise ValueError(f'damaged: a small element of {size} bytes')
    else:
      kind, size = struct.unpack_from(f'{order}II', data, at)
      start, end = at + 8, at + 8 + size
      if kind != _COMPRESSED:
        end += -size % 8
    if start + size > len(data):
      raise ValueError('damaged: cut short')
    yield _Element(kind, data[start : start + size])
    at = end


def _head(
  parts: Iterator[_Element], order: str
) -> tuple[int, tuple[int, ...], str]:
  """(class, shape, name) of a matrix, from its first three elements."""
  (flags, _) = struct.unpack_from(f'{order}II', next(parts).data)
  shape = tuple(map(int, _numbers(next(parts), order)))
  name = bytes(next(parts).data).decode('ascii')
  return flags & 0xFF, shape, name


def _structs(
  parts: Iterator[_Element], shape: Sequence[int], order: str
) -> list[dict[str, Value]]:
  (width,) = map(int, _numbers(next(parts), order))
  text = bytes(next(parts).data)
  if width < 1 or len(text) % width or len(text) > width * _MAX_FIELDS:
    raise ValueError('damaged: names of the fields')
  names = [
    text[i : i + width].partition(b'\0')[0].decode('ascii')
    for i in range(0, len(text), width)
  ]
  rows: list[dict[str, Value]] = []
  values = [_value(part, order) for part in parts]
  if not names or len(values) != len(names) * math.prod(shape):
    raise ValueError(
      f'damaged: {len(values)} values for {len(names)} fields of an array '
      f'{tuple(shape)}'
    )
  for i in range(0, len(values), len(names)):
    rows.append(dict(zip(names, values[i : i + len(names)])))
  return rows


def _value(element: _Element, order: str) -> Value:
  if element.kind != _MATRIX:
    raise ValueError(f'damaged: an element of type {element.kind} as a field')
  if not len(element.data):
    return None
  parts = _elements(element.data, order)
  kind, _, _ = _head(parts, order)
  if kind == _CHAR:
    return _text(next(parts), order)
  if kind in _NUMBERS:
    numbers = _numbers(next(parts), order)
    return float(numbers[0]) if len(numbers) == 1 else None
  return None


def _numbers(element: _Element, order: str) -> tuple[float, ...]:
  code = _FORMATS.get(element.kind, ('', ''))[0]
  if not code:
    raise ValueError(f'damaged: numbers of type {element.kind}')
  return struct.unpack(
    f'{order}{len(element.data) // struct.calcsize(code)}{code}', element.data
  )


def _text(element: _Element, order: str) -> str:
  encoding = _FORMATS.get(element.kind, ('', ''))[1]
  if not encoding:
    raise ValueError(f'damaged: text of type {element.kind}')
  if encoding == 'utf-16':
    encoding = 'utf-16-le' if order == '<' else 'utf-16-be'
  return bytes(element.data).decode(encoding)
