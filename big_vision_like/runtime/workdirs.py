"""The folder of a run: made, checked and held by one trainer at a time.

And looked after: somebody may rename it while it is written to.
"""

import fcntl
import os
import pathlib
import socket
from collections.abc import Iterator
from contextlib import contextmanager

LOCK = '.lock'


@contextmanager
def locked(folder: pathlib.Path) -> Iterator[None]:
  """Makes the folder and holds its lock, which ends with the process.

  Raises:
    ValueError: it cannot be written, or another trainer holds it (named by
      host and process id).
  """
  try:
    folder.mkdir(parents=True, exist_ok=True)
    file = (folder / LOCK).open('a+', encoding='utf-8')
  except OSError as error:
    raise ValueError(
      f'--workdir={str(folder)!r} cannot be written: {error.strerror}'
    ) from error
  with file:
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      file.seek(0)
      raise ValueError(
        f'--workdir={str(folder)!r} is in use by another trainer, '
        f'{file.read().strip() or "which has not said its name"}; stop that '
        'one or take another workdir'
      ) from None
    except OSError:  # a file system without locks: go on without
      pass
    file.seek(0)
    file.truncate()
    file.write(f'pid {os.getpid()} on {socket.gethostname()}\n')
    file.flush()
    try:
      yield
    finally:
      file.truncate(0)


class Anchor:
  """Holds on to a folder, whatever it is called later.

  Attributes:
    name: the path by which it is known.
  """

  def __init__(self, folder: str | pathlib.Path):
    self.name = str(folder)
    self._open = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)

  def lost(self) -> bool:
    """Whether its name is no longer its own, or its files were removed."""
    try:
      return not self._is_at(self.name)
    except (FileNotFoundError, NotADirectoryError):
      return True
    except OSError:  # storage that is away for a while
      return False

  def path(self) -> str | None:
    """Where it is now; None: removed, or the system does not tell."""
    try:
      path = os.readlink(f'/proc/self/fd/{self._open}')
      return path if self._is_at(path) else None
    except OSError:
      return None

  def _is_at(self, path: str) -> bool:
    os.stat(os.path.join(path, LOCK))
    return os.path.samestat(os.stat(path), os.fstat(self._open))

  def close(self) -> None:
    """Lets go."""
    os.close(self._open)
