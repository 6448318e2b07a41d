"""Headers of a tar file: the name, offset and size of each file in it.

The standard library's reader takes a damaged header in the middle for the end
of the archive, keeps an object a member and seeks on a shared handle. Images
would be lost silently and a million of them would take gigabytes; so headers
are read here, one `pread` a member, and whatever is not understood is refused.
Formats: ustar, GNU (long names) and pax (path and size), as written by GNU
tar, bsdtar and Python.
"""

import os
from collections.abc import Callable, Iterator
from typing import NamedTuple

BLOCK = 512
_MAX_LONG_NAME = 1 << 20  # bytes of a GNU long name or a pax header
_FILES = b'\x000'  # '7', a contiguous file, has not been written for decades
_KINDS = {
  b'1': 'a hard link',
  b'2': 'a symbolic link',
  b'3': 'a character device',
  b'4': 'a block device',
  b'6': 'a named pipe',
  b'7': 'a contiguous file',
  b'K': 'a link with a long name',
  b'M': 'the rest of a file in another volume',
  b'S': 'a sparse file',
  b'V': 'a volume label',
}

# (offset, number of bytes) -> at most so many bytes
Read = Callable[[int, int], bytes]


class Member(NamedTuple):
  """A regular file of the archive; its bytes are at [offset, offset + size)."""

  name: bytes
  offset: int
  size: int


def members(read: Read, start: int, end: int, where: str) -> Iterator[Member]:
  """The regular files of the tar that lies at [start, end) of a file.

  Directories are passed over.

  Args:
    read: bytes of the file by offset.
    start: first byte of the archive.
    end: the byte behind its last.
    where: name of the archive, for messages.

  Raises:
    ValueError: cut short, damaged, not a tar, or a member that is neither a
      file nor a directory; names the archive and the member.
  """
  at = start
  pax: dict[bytes, bytes] = {}
  long_name: bytes | None = None
  last = 'its beginning'
  while True:
    header = read(at, BLOCK) if at + BLOCK <= end else b''
    if len(header) < BLOCK:
      raise ValueError(f'{where}: cut short: no end mark behind {last}')
    if not header.strip(b'\0'):
      return
    if not _checksum_is_right(header):
      if at == start:
        raise ValueError(f'{where}: not a tar file, or damaged at its start')
      raise ValueError(
        f'{where}: damaged: no header at byte {at - start:,}, behind {last}'
      )
    kind = header[156:157]
    name = pax.get(b'path') or long_name or _short_name(header)
    size = _size(header, where)
    if kind not in (b'x', b'L', b'g') and b'size' in pax:
      size = _decimal(pax[b'size'], where)
    last = f'member {shown(name)}'
    data = at + BLOCK
    if data + size > end:
      raise ValueError(
        f'{where}: cut short: {last} ends at byte {data - start + size:,}, '
        f'the file at {end - start:,}'
      )
    if kind == b'x':
      pax = _pax(_extra(read, data, size, where), where)
    elif kind == b'L':
      long_name = _extra(read, data, size, where).rstrip(b'\0')
    elif kind != b'g':  # a comment of the whole archive, from git
      if any(key.startswith(b'GNU.sparse') for key in pax):
        kind = b'S'
      if kind in _KINDS:
        raise ValueError(f'{where}: {last} is {_KINDS[kind]}: refused')
      if kind != b'5' and kind not in _FILES:
        raise ValueError(f'{where}: {last} is of unknown type {kind!r}')
      if kind != b'5' and not name.endswith(b'/'):
        yield Member(name, data, size)
      pax, long_name = {}, None
    at = data + -(-size // BLOCK) * BLOCK


def shown(name: bytes) -> str:
  """A member's name for messages, on one line and not too long."""
  return repr(os.fsdecode(name))[:200]


def _checksum_is_right(header: bytes) -> bool:
  try:
    given = int(header[148:156].strip(b' \0') or b'-1', 8)
  except ValueError:
    return False
  found = sum(header) - sum(header[148:156]) + 8 * ord(' ')
  if given == found:
    return True
  above = sum(byte > 127 for byte in header[:148] + header[156:])
  return given == found - 256 * above  # old programs summed signed bytes


def _short_name(header: bytes) -> bytes:
  name = header[:100].partition(b'\0')[0]
  if header[257:263] == b'ustar\0':  # GNU's 'ustar ' has times there
    prefix = header[345:500].partition(b'\0')[0]
    if prefix:
      return prefix + b'/' + name
  return name


def _size(header: bytes, where: str) -> int:
  field = header[124:136]
  if field[0] == 0x80:  # GNU: binary above 8 GiB
    return int.from_bytes(field[1:])
  text = field.strip(b' \0')
  try:
    size = int(text or b'0', 8)
  except ValueError:
    size = -1
  if size < 0:
    raise ValueError(
      f'{where}: damaged: member {shown(_short_name(header))} has the size '
      f'{field!r}'
    )
  return size


def _decimal(text: bytes, where: str) -> int:
  if not text.isdigit() or len(text) > 19:
    raise ValueError(f'{where}: damaged: a pax header has the size {text!r}')
  return int(text)


def _extra(read: Read, offset: int, size: int, where: str) -> bytes:
  if size > _MAX_LONG_NAME:
    raise ValueError(f'{where}: a long name of {size:,} bytes: refused')
  return read(offset, size)


def _pax(data: bytes, where: str) -> dict[bytes, bytes]:
  """Records 'LENGTH KEY=VALUE\\n' of a pax header."""
  found = {}
  while data.strip(b'\0'):
    digits, space, _ = data.partition(b' ')
    length = int(digits) if digits.isdigit() and len(digits) < 8 else 0
    record = data[len(digits) + 1 : length]
    key, equals, value = record.partition(b'=')
    if not space or not equals or not value.endswith(b'\n'):
      raise ValueError(f'{where}: damaged: a pax header that is none')
    found[key] = value[:-1]
    data = data[length:]
  return found
