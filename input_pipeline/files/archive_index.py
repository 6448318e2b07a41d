"""What archives have in common: an index of names, handles, the interface.

A million names take some tens of megabytes: they are one block of bytes with
offsets, sorted and found by bisection, with the numbers of each member in flat
arrays beside them.
"""

import abc
import hashlib
import itertools
import os
import threading
from collections.abc import Iterator, Sequence
from typing import Any, overload

import numpy as np

from input_pipeline.examples.errors import BadExample
from input_pipeline.files import retries
from input_pipeline.files.image_files import MAX_IMAGE_BYTES
from input_pipeline.files.tar_members import shown

MAX_MEMBERS = 30_000_000  # ImageNet-21k has 14 million
MAX_OPEN = 64  # archives kept open; beyond, one is opened for each read


class Names(Sequence[str]):
  """Sorted names, as one block of bytes; found by bisection."""

  def __init__(self, blob: bytes, ends: np.ndarray):
    """`blob`: the names, one behind the other; `ends` [n + 1]: from 0 on."""
    self.blob, self.ends = blob, ends

  def __len__(self) -> int:
    return len(self.ends) - 1

  def raw(self, index: int) -> bytes:
    return self.blob[self.ends[index] : self.ends[index + 1]]

  @overload
  def __getitem__(self, index: int) -> str: ...
  @overload
  def __getitem__(self, index: slice) -> list[str]: ...
  def __getitem__(self, index: int | slice) -> str | list[str]:
    if isinstance(index, slice):
      return [self[i] for i in range(*index.indices(len(self)))]
    if not -len(self) <= index < len(self):
      raise IndexError(f'name {index} of {len(self)}')
    return os.fsdecode(self.raw(index % len(self)))

  def __iter__(self) -> Iterator[str]:
    start = 0
    for end in self.ends[1:].tolist():
      yield os.fsdecode(self.blob[start:end])
      start = end

  def find(self, name: str) -> int:
    """Position of a name, or -1."""
    wanted = os.fsencode(name)
    low, high = 0, len(self)
    while low < high:
      middle = (low + high) // 2
      if self.raw(middle) < wanted:
        low = middle + 1
      else:
        high = middle
    return low if low < len(self) and self.raw(low) == wanted else -1

  def __contains__(self, name: object) -> bool:
    return isinstance(name, str) and self.find(name) >= 0


class Files(abc.ABC):
  """Random access by name; picklable, thread safe, opened when read.

  Attributes:
    path: what was opened.
    names: sorted, relative, with '/': 'n01440764.tar/n01440764_18.JPEG' in a
      tar of tars.
    sizes: integer [n] bytes of each file, in the order of `names`.
  """

  path: str
  names: Names
  sizes: np.ndarray

  def __len__(self) -> int:
    return len(self.names)

  def __contains__(self, name: str) -> bool:
    return name in self.names

  def read(self, name: str, *, max_bytes: int = MAX_IMAGE_BYTES) -> bytes:
    """A whole file.

    Raises:
      BadExample: no such name, damaged, or larger than max_bytes.
    """
    index = self.names.find(name)
    if index < 0:
      raise BadExample(f'not in {self.path}')
    return self.read_at(index, max_bytes=max_bytes)

  def read_at(self, index: int, *, max_bytes: int = MAX_IMAGE_BYTES) -> bytes:
    """The same for position `index` of `names`, without looking it up."""
    if not 0 <= index < len(self.names):
      raise IndexError(f'file {index} of {len(self.names)} in {self.path}')
    if self.sizes[index] > max_bytes:
      raise BadExample(f'larger than {max_bytes:,} bytes')
    return self._read(index)

  @abc.abstractmethod
  def _read(self, index: int) -> bytes: ...

  def fingerprint(self) -> str:
    """16 hex digits of names and sizes; contents are not looked at."""
    state = hashlib.blake2b(digest_size=8)
    for part in (self.names.blob, self.names.ends, self.sizes):
      state.update(
        part if isinstance(part, bytes) else part.astype(np.int64).tobytes()
      )
    return state.hexdigest()

  def set_index(self, rows: 'Rows', *columns: str) -> None:
    """Sets names and, as attributes, the columns of the rows by name."""
    blob, ends, values = rows.sorted(self.path)
    self.names = Names(blob, ends)
    for name, column in zip(columns, values):
      setattr(self, name, column)


class Rows:
  """Names with numbers, gathered member by member without an object each."""

  def __init__(self, num_columns: int):
    self._blob = bytearray()
    self._lengths: list[np.ndarray] = []
    self._columns: list[list[np.ndarray]] = [[] for _ in range(num_columns)]
    self._waiting: list[tuple[Any, ...]] = []
    self.num = 0

  def add(self, where: str, name: bytes, *values: int) -> None:
    if self.num >= MAX_MEMBERS:
      raise ValueError(f'{where}: more than {MAX_MEMBERS:,} files: refused')
    self._blob += name
    self._waiting.append((len(name), *values))
    self.num += 1
    if len(self._waiting) == 1 << 16:
      self._flush()

  def _flush(self) -> None:
    table = np.array(self._waiting, np.int64)
    table = table.reshape(-1, 1 + len(self._columns))
    self._lengths.append(table[:, 0])
    for column, values in zip(self._columns, table.T[1:]):
      column.append(values)
    self._waiting = []

  def sorted(self, path: str) -> tuple[bytes, np.ndarray, list[np.ndarray]]:
    """(names as one block, their ends [n + 1], columns), by name."""
    self._flush()
    blob = bytes(self._blob)
    ends = np.concatenate([[0], np.cumsum(np.concatenate(self._lengths))])
    columns = [np.concatenate(column) for column in self._columns]
    if not _ascending(blob, ends):
      places = ends.tolist()
      names = [blob[places[i] : places[i + 1]] for i in range(self.num)]
      order = sorted(range(self.num), key=names.__getitem__)
      for this, after in itertools.pairwise(order):
        if names[this] == names[after]:
          raise ValueError(f'{path}: member {shown(names[this])} occurs twice')
      columns = [column[order] for column in columns]
      blob = b''.join(names[i] for i in order)
      ends = np.concatenate([[0], np.cumsum(np.diff(ends)[order])])
    return blob, _narrow(ends), [_narrow(column) for column in columns]


def _ascending(blob: bytes, ends: np.ndarray) -> bool:
  """Whether the names are sorted and unique; holds few of them at a time."""
  before = None
  for start in range(0, len(ends) - 1, 1 << 16):
    places = ends[start : start + (1 << 16) + 1].tolist()
    for here, end in itertools.pairwise(places):
      name = blob[here:end]
      if before is not None and name <= before:
        return False
      before = name
  return True


def _narrow(values: np.ndarray) -> np.ndarray:
  """As uint32 where that holds the values: half the memory."""
  small = not len(values) or values.max() < 1 << 32
  return values.astype(np.uint32 if small else np.int64)


def safe_name(name: bytes, where: str) -> bytes:
  """A member's name as a relative path without '.' parts.

  Raises:
    ValueError: absolute, or with '..' in it; names the archive and the member.
  """
  parts = name.split(b'/')
  if name.startswith(b'/') or b'..' in name.replace(b'\\', b'/').split(b'/'):
    raise ValueError(
      f'{where}: member {shown(name)} leads out of the archive: refused'
    )
  if b'' in parts or b'.' in parts:
    name = b'/'.join(part for part in parts if part not in (b'', b'.'))
  if not name or b'\0' in name:
    raise ValueError(f'{where}: a member without a name: refused')
  return name


class Handles:
  """Descriptors of archives: opened when first read, for `pread` by threads.

  They are not pickled; beyond MAX_OPEN each read opens its own.
  """

  def __init__(self):
    self._open: dict[str, int] = {}
    self._failed: list[int] = []
    self._lock = threading.Lock()

  def read(self, path: str, offset: int, size: int) -> bytes:
    """Up to `size` bytes; fewer where the file ends."""
    return retries.call(self._read, path, offset, size)

  def _read(self, path: str, offset: int, size: int) -> bytes:
    if (descriptor := self._open.get(path)) is None:
      with self._lock:
        if path not in self._open and len(self._open) < MAX_OPEN:
          self._open[path] = _descriptor(path)
        descriptor = self._open.get(path)
    if descriptor is not None:
      try:
        return _pread(descriptor, offset, size)
      except OSError:  # it may be stale: what comes next opens another
        self._set_aside(path, descriptor)
        raise
    descriptor = _descriptor(path)
    try:
      return _pread(descriptor, offset, size)
    finally:
      os.close(descriptor)

  def _set_aside(self, path: str, descriptor: int) -> None:
    """Not closed: another thread may be reading from it."""
    with self._lock:
      if self._open.get(path) == descriptor:
        self._failed.append(self._open.pop(path))

  def __getstate__(self) -> dict[str, Any]:
    return {}

  def __setstate__(self, state: dict[str, Any]) -> None:
    self.__init__()

  def __del__(self):
    for descriptor in (*self._open.values(), *self._failed):
      os.close(descriptor)


def _descriptor(path: str) -> int:
  return os.open(path, os.O_RDONLY | os.O_CLOEXEC)


def _pread(descriptor: int, offset: int, size: int) -> bytes:
  data = os.pread(descriptor, size, offset)
  while 0 < len(data) < size:  # above 2 GiB, or a network file system
    more = os.pread(descriptor, size - len(data), offset + len(data))
    if not more:
      break
    data += more
  return data
