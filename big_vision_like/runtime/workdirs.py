"""The folder of a run: made, checked and held by one trainer at a time."""

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
