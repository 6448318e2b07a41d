"""Files that are there whole or not at all, whatever ends their writer.

The content goes to a temporary file in the same folder, is brought to disk and
gets its name by a rename; whoever reads finds the old file or the new one. An
exception removes the temporary file. A kill leaves it, recognisable by its
suffix:

    NAME.X.tmp     by default, X new each time: several may write the same
                   file, the last one wins
    NAME.tmp       with unique=False, where there is one writer at a time: the
                   next attempt writes over what a killed one left, so that
                   large remains do not add up

Like a rename, this replaces a symbolic link, not the file that it points to.
Permissions are those of any new file. What is no file, such as /dev/stdout or a
pipe, is written to as it is.
"""

import contextlib
import errno
import hashlib
import json
import os
import secrets
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, TextIO

from input_pipeline.files import retries

SUFFIX = '.tmp'
_MAX_NAME_BYTES = 255  # of most file systems
# Folders that may not be read, file systems that cannot sync a folder.
_NO_FOLDER_SYNC = (errno.EACCES, errno.EINVAL, errno.ENOTSUP)
Path = str | os.PathLike[str]


@contextlib.contextmanager
def renamed(
  path: Path,
  *,
  suffix: str = SUFFIX,
  unique: bool = True,
  durable: bool = True,
) -> Iterator[str]:
  """Yields the path to write to; it becomes `path` when the block succeeds.

  Args:
    path: of the file; its folder exists.
    suffix: of the temporary name.
    unique: the temporary name is a new one each time.
    durable: on disk when the block is left, name and content. Without, a crash
      of the machine may leave an empty file; it is for files that are many,
      where waiting for the disk would take longest.
  """
  path = os.fspath(path)
  if os.path.isdir(path):
    raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
  if os.path.exists(path) and not os.path.isfile(path):
    yield path
    return
  temporary = _temporary(path, suffix, unique)
  try:
    yield temporary
    if durable:
      sync(temporary)
    os.replace(temporary, path)
  except BaseException as error:
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
      os.unlink(temporary)
    if isinstance(error, OSError) and error.filename == temporary:
      error.filename = path  # the name that the user knows
    raise
  if durable:
    sync_folder(os.path.dirname(path))


@contextlib.contextmanager
def writing(path: Path, **options: Any) -> Iterator[BinaryIO]:
  """Yields a binary file; options as those of `renamed`."""
  with renamed(path, **options) as temporary, open(temporary, 'wb') as file:
    yield file


@contextlib.contextmanager
def writing_text(path: Path, **options: Any) -> Iterator[TextIO]:
  """Yields a text file, UTF-8, line ends as written.

  What is not UTF-8 in a name of a file is written as JSON has it: \\udcff.
  """
  with (
    renamed(path, **options) as temporary,
    open(
      temporary,
      'w',
      encoding='utf-8',
      errors='backslashreplace',
      newline='',
    ) as file,
  ):
    yield file


def write_text(path: Path, text: str, **options: Any) -> None:
  def write() -> None:
    with writing_text(path, **options) as file:
      file.write(text)

  retries.call(write)


def write_json(path: Path, content: Any, **options: Any) -> None:
  """For people too: indented, UTF-8, a line end at the end."""
  text = json.dumps(content, indent=1, ensure_ascii=False)
  write_text(path, f'{text}\n', **options)


@contextlib.contextmanager
def writing_json_list(
  path: Path, **options: Any
) -> Iterator[Callable[[Any], None]]:
  """Yields a function that appends an entry, one a line, of a JSON list."""
  with writing_text(path, **options) as file:
    first = True

    def append(entry: Any) -> None:
      nonlocal first
      file.write('[\n' if first else ',\n')
      json.dump(entry, file, ensure_ascii=False)
      first = False

    yield append
    file.write('[]\n' if first else '\n]\n')


def sync(path: Path) -> None:
  """Waits until the content of a file is on disk."""
  with open(path, 'rb') as file:
    os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
  """Waits until the names in a folder are on disk, where that is possible."""
  try:
    handle = os.open(os.fspath(folder) or '.', os.O_RDONLY)
    try:
      os.fsync(handle)
    finally:
      os.close(handle)
  except OSError as error:
    if error.errno not in _NO_FOLDER_SYNC:
      raise


def _temporary(path: str, suffix: str, unique: bool) -> str:
  folder, name = os.path.split(path)
  end = f'.{secrets.token_hex(4)}{suffix}' if unique else suffix
  if len(os.fsencode(name + end)) > _MAX_NAME_BYTES:
    digest = hashlib.blake2b(os.fsencode(name), digest_size=8)
    name = f'.{digest.hexdigest()}'
  return os.path.join(folder, name + end)
