"""Files of a folder, a .zip, a .tar or a tar of tars, by name, at random.

Public image sets are published as archives of millions of files. Unpacking
them doubles the disk space and leaves as many small files behind, so nothing
is unpacked: one pass over the headers notes where each member lies, and a
member is read from there. The index is a few flat arrays (about 50 bytes a
member and its name), which travel to worker processes quickly.

A tar compressed as a whole has no random access: it is decompressed once into
a scratch folder (`decompress.py`), small ones into memory.
"""

import errno
import os
import stat
import zipfile
import zlib
from collections.abc import Sequence

import numpy as np

from input_pipeline.examples.errors import BadExample
from input_pipeline.files import (
  decompress,
  image_files,
  retries,
  tar_members,
)
from input_pipeline.files.archive_index import Files, Handles, Rows, safe_name
from input_pipeline.files.tar_members import shown

MAX_RATIO = 200  # of a zip member's sizes; beyond it is a bomb
_RATIO_FROM = 1 << 20  # bytes from which on the ratio is looked at
_COMPRESSED_TARS = ('.tar.gz', '.tgz')
_OTHER_COMPRESSED = ('.tar.bz2', '.tbz2', '.tar.xz', '.txz', '.tar.zst', '.rar')


def open_files(
  path: str | os.PathLike[str],
  *,
  scratch: str | None = None,
) -> Files:
  """The files at `path`, from their names and places alone.

  Args:
    path: folder, .zip, .tar (its members ending in .tar are gone into), or
      .tar.gz/.tgz.
    scratch: folder for what must be decompressed as a whole.

  Raises:
    FileNotFoundError: nothing is there.
    ValueError: of another kind, damaged, cut short, or with members that are
      refused; names the archive and the member.
  """
  path = os.fspath(path)
  if os.path.isdir(path):
    return _Folder(path)
  if not os.path.exists(path):
    raise FileNotFoundError(f'{path}: no such file or folder')
  lower = path.lower()
  if lower.endswith('.zip'):
    return _Zip(path)
  if lower.endswith('.tar'):
    return _Tars(path, [(b'', path)])
  if lower.endswith(_COMPRESSED_TARS):
    small = decompress.small(path)
    if small is not None:
      return _Tars(path, [(b'', small)])
    return _Tars(path, [(b'', decompress.to_scratch(path, scratch))])
  if lower.endswith(_OTHER_COMPRESSED):
    raise ValueError(
      f'{path}: compressed in a way that is not read here; decompress it to '
      f'a .tar or a folder first'
    )
  raise ValueError(
    f'{path}: neither a folder nor a .zip, .tar, .tar.gz or .tgz'
  )


def open_tars(folder: str, names: Sequence[str]) -> Files:
  """The members of several .tar files of a folder, as of one tar of tars.

  Args:
    folder: what `names` are relative to, and `path` of the result.
    names: the tars; a member is called 'NAME/MEMBER'.

  Raises:
    FileNotFoundError, ValueError: as `open_files`.
  """
  stores = []
  for name in names:
    path = os.path.join(folder, name)
    if not os.path.isfile(path):
      raise FileNotFoundError(f'{path}: no such file')
    stores.append((os.fsencode(name) + b'/', path))
  return _Tars(folder, stores)


class _Tars(Files):
  """Members of tars, read by their offsets."""

  _store: np.ndarray
  _offset: np.ndarray

  def __init__(self, path: str, stores: Sequence[tuple[bytes, str | bytes]]):
    """`stores`: (prefix of the names, file or content) of each tar."""
    self.path = path
    self._stores = [store for _, store in stores]
    self._handles = Handles()
    rows = Rows(3)
    for number, (prefix, store) in enumerate(stores):
      if isinstance(store, bytes):
        where, end = path, len(store)
      else:
        where, end = store if prefix else path, os.path.getsize(store)
      self._gather(rows, number, 0, end, prefix, where)
    self.set_index(rows, '_store', '_offset', 'sizes')

  def _gather(
    self,
    rows: Rows,
    number: int,
    start: int,
    end: int,
    prefix: bytes,
    where: str,
  ) -> None:
    def read(offset: int, size: int) -> bytes:
      return self._bytes(number, offset, size)

    found = tar_members.members(read, start, end, where)
    # Sorted tar by tar: little memory, and mostly all of them are then.
    for name, offset, size in sorted(
      (safe_name(name, where), offset, size) for name, offset, size in found
    ):
      if not name.lower().endswith(b'.tar'):
        rows.add(where, prefix + name, number, offset, size)
      elif prefix:
        raise ValueError(
          f'{where}: member {shown(name)} is a tar in a tar in a tar: refused'
        )
      else:
        inner = f'{where}/{os.fsdecode(name)}'
        at = offset, offset + size
        self._gather(rows, number, *at, name + b'/', inner)

  def _bytes(self, number: int, offset: int, size: int) -> bytes:
    store = self._stores[number]
    if isinstance(store, bytes):
      return store[offset : offset + size]
    return self._handles.read(store, offset, size)

  def _read(self, index: int) -> bytes:
    place = int(self._offset[index]), int(self.sizes[index])
    data = self._bytes(int(self._store[index]), *place)
    if len(data) < place[1]:
      raise BadExample(f'{self.path} has become shorter')
    return data


class _Zip(Files):
  """Members of a zip, stored or deflated."""

  _offset: np.ndarray  # of the local header
  _stored: np.ndarray  # compressed bytes
  _method: np.ndarray
  _crc: np.ndarray

  def __init__(self, path: str):
    self.path = path
    self._handles = Handles()
    rows = Rows(5)
    try:
      with (
        retries.open_binary(path) as file,
        zipfile.ZipFile(file) as archive,
      ):
        members = archive.infolist()
    except retries.StorageError:
      raise
    except (zipfile.BadZipFile, OSError, ValueError, EOFError) as error:
      raise ValueError(
        f'{path}: cannot be read as a zip, perhaps cut short: {error}'
      ) from None
    end = os.path.getsize(path)
    for member in members:
      name = safe_name(_zip_name(member), path)
      if member.is_dir():
        continue
      _check_zip_member(member, name, path, end)
      rows.add(
        path, name, member.header_offset, member.file_size,
        member.compress_size, member.compress_type, member.CRC,
      )  # fmt: skip
    columns = '_offset', 'sizes', '_stored', '_method', '_crc'
    self.set_index(rows, *columns)
    self._refuse_overlaps()

  def _refuse_overlaps(self) -> None:
    """Members that share their bytes make a bomb whatever the ratio is."""
    order = np.argsort(self._offset, kind='stable')
    starts = self._offset[order].astype(np.int64)
    ends = starts + _LOCAL_HEADER + self._stored[order]
    bad = np.flatnonzero(ends[:-1] > starts[1:])
    if len(bad):
      name = self.names.raw(int(order[bad[0] + 1]))
      raise ValueError(
        f'{self.path}: member {shown(name)} overlaps another: refused'
      )

  def _read(self, index: int) -> bytes:
    at, size = int(self._offset[index]), int(self.sizes[index])
    header = self._handles.read(self.path, at, _LOCAL_HEADER)
    if len(header) < _LOCAL_HEADER or header[:4] != b'PK\3\4':
      raise BadExample(f'damaged: no member at byte {at:,} of {self.path}')
    lengths = int.from_bytes(header[26:28], 'little') + int.from_bytes(
      header[28:30], 'little'
    )
    stored = int(self._stored[index])
    data = self._handles.read(self.path, at + _LOCAL_HEADER + lengths, stored)
    if int(self._method[index]) == zipfile.ZIP_DEFLATED:
      try:
        data = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, size + 1)
      except zlib.error as error:
        raise BadExample(f'damaged in {self.path}: {error}') from None
    if len(data) != size or zlib.crc32(data) != int(self._crc[index]):
      raise BadExample(f'damaged in {self.path}: wrong checksum or size')
    return data


_LOCAL_HEADER = 30  # bytes before the name


def _zip_name(member: zipfile.ZipInfo) -> bytes:
  return member.orig_filename.encode('utf-8', 'surrogateescape')


def _check_zip_member(
  member: zipfile.ZipInfo, name: bytes, path: str, end: int
) -> None:
  """Refuses what is no plain file of a believable size."""
  where = f'{path}: member {shown(name)}'
  if member.flag_bits & 0x1:
    raise ValueError(f'{where} is encrypted; decrypt the archive first')
  kind = stat.S_IFMT(member.external_attr >> 16)
  if kind not in (0, stat.S_IFREG):
    what = 'a symbolic link' if kind == stat.S_IFLNK else 'a device or a pipe'
    raise ValueError(f'{where} is {what}: refused')
  if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
    raise ValueError(
      f'{where} is compressed by method {member.compress_type}; only stored '
      f'and deflated members are read'
    )
  if member.header_offset + _LOCAL_HEADER + member.compress_size > end:
    raise ValueError(f'{where} ends behind the end of the file: cut short')
  allowed = MAX_RATIO * max(member.compress_size, 1)
  if member.file_size > max(_RATIO_FROM, allowed):
    raise ValueError(
      f'{where} claims {member.file_size:,} bytes in {member.compress_size:,}'
      f', above {MAX_RATIO}:1: refused'
    )


class _Folder(Files):
  """Files below a folder; links are followed, they are the user's own."""

  def __init__(self, path: str):
    self.path = path
    rows = Rows(1)
    waiting = [(path, b'', frozenset[tuple[int, int]]())]
    while waiting:
      folder, prefix, above = waiting.pop()
      try:
        status = os.stat(folder)
        identity = status.st_dev, status.st_ino
        if identity in above:
          raise ValueError(f'{folder}: a link back to a folder above it')
        for entry in retries.listed(folder):
          name = prefix + os.fsencode(entry.name)
          if entry.is_dir():
            below = entry.path, name + b'/', above | {identity}
            waiting.append(below)
          else:
            rows.add(path, name, _size_of(entry))
      except retries.StorageError:
        raise
      except OSError as error:
        raise ValueError(
          f'{folder}: cannot be read: {error.strerror}'
        ) from None
    self.set_index(rows, 'sizes')

  def _read(self, index: int) -> bytes:
    path = os.path.join(os.fsencode(self.path), self.names.raw(index))
    return image_files.read_image(path)


def _size_of(entry: os.DirEntry[str]) -> int:
  """0 for a link that leads nowhere: reading it says so."""
  try:
    return entry.stat().st_size
  except OSError as error:
    if error.errno in (errno.ENOENT, errno.ELOOP, errno.EACCES):
      return 0
    raise
