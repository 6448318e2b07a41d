"""What lies in the folder of a checkpoint: its files, and what is none.

Links are not followed and pipes not opened: one that somebody put there may
lead anywhere, or be without an end.
"""

import contextlib
import dataclasses
import os
import pathlib
import stat
from typing import Any

_KINDS = {
  stat.S_IFLNK: 'a link', stat.S_IFIFO: 'a pipe', stat.S_IFSOCK: 'a socket',
  stat.S_IFCHR: 'a device', stat.S_IFBLK: 'a device', stat.S_IFDIR: 'a folder',
}  # fmt: skip
MOST_BYTES = 2**28  # of a file that is read whole


@dataclasses.dataclass
class Found:
  """What is below a folder, by names such as 'params/d/abc'.

  Attributes:
    files: path of each file.
    empty: folders with nothing in them.
    odd: what is no file, nor a folder that can be looked into -> what it is.
  """

  files: dict[str, pathlib.Path] = dataclasses.field(default_factory=dict)
  empty: list[str] = dataclasses.field(default_factory=list)
  odd: dict[str, str] = dataclasses.field(default_factory=dict)


def look(folder: pathlib.Path) -> Found:
  """All that is below a folder; local, or a path of etils."""
  found, waiting = Found(), [('', folder)]
  while waiting:
    name, path = waiting.pop()
    try:
      entries = sorted(path.iterdir(), key=lambda p: p.name)
      if name and not entries:
        found.empty.append(name)
      for entry in entries:
        below = f'{name}/{entry.name}' if name else entry.name
        kind = _kind(entry)
        if kind == 'a folder':
          waiting.append((below, entry))
        elif kind:
          found.odd[below] = f'is {kind}'
        else:
          found.files[below] = entry
    except OSError as error:
      found.odd[name or '.'] = unreadable(error)
  return found


def _kind(path: pathlib.Path) -> str:
  """What a path is; '' for a file."""
  if not isinstance(path, pathlib.Path):  # object stores have nothing else
    of_etils: Any = path
    return 'a folder' if of_etils.is_dir() else ''
  return _KINDS.get(stat.S_IFMT(path.lstat().st_mode), '')


def read(path: pathlib.Path) -> bytes:
  """The content of a small file.

  Raises:
    OSError: it is none, or too large to be one; `strerror` says why.
  """
  kind = _kind(path)
  if kind:
    raise OSError(0, f'it is {kind}', str(path))
  if size_of(path) > MOST_BYTES:
    raise OSError(0, f'it has more than {MOST_BYTES:,} bytes', str(path))
  return path.read_bytes()


def unreadable(error: OSError) -> str:
  """'cannot be read: ...' of what a file or folder gives instead."""
  return f'cannot be read: {error.strerror or error}'


def size_of(path: pathlib.Path) -> int:
  """Bytes of a file; paths of etils have a `stat` of their own."""
  found: Any = path.stat()
  return found.st_size if hasattr(found, 'st_size') else found.length


def open_file(path: pathlib.Path, flags: int) -> int | None:
  """Handle of a local file; None where there is none, or it cannot be opened.

  Args:
    path: of the file.
    flags: of os.open.
  """
  with contextlib.suppress(OSError):
    handle = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)
    if stat.S_ISREG(os.fstat(handle).st_mode):
      return handle
    os.close(handle)
  return None
