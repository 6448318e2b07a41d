"""The folder of a run: made, checked and held by one trainer at a time.

And looked after: somebody may rename it while it is written to.
"""

import contextlib
import fcntl
import os
import pathlib
import socket
from collections.abc import Iterator

LOCK = '.lock'


@contextlib.contextmanager
def locked(folder: pathlib.Path) -> Iterator[None]:
  """Makes the folder and holds its lock, which ends with the process.

  Raises:
    ValueError: it cannot be written, or another trainer holds it (named by
      host and process id).
  """
  with contextlib.ExitStack() as stack:
    with written(folder):
      folder.mkdir(parents=True, exist_ok=True)
      file = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
      stack.callback(os.close, file)
      try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
      except BlockingIOError:
        who = os.pread(file, 1000, 0).decode(errors='replace').strip()
        raise ValueError(
          f'--workdir={str(folder)!r} is in use by another trainer, '
          f'{who or "which has not said its name"}; stop that one or take '
          'another workdir'
        ) from None
      except OSError:  # a file system without locks: go on without
        pass
      os.ftruncate(file, 0)
      stack.callback(os.ftruncate, file, 0)
      name = f'pid {os.getpid()} on {socket.gethostname()}\n'
      os.pwrite(file, name.encode(), 0)
    yield


@contextlib.contextmanager
def written(folder: pathlib.Path) -> Iterator[None]:
  """Around what is written to a workdir before the first step.

  Raises:
    ValueError: it cannot be, as of a full disk; in one line.
  """
  try:
    yield
  except OSError as error:
    raise ValueError(
      f'--workdir={str(folder)!r} cannot be written: '
      f'{error.strerror or error}: {error.filename or folder}'
    ) from error


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
