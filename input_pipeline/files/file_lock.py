"""A file that one command at a time holds; the kernel frees it."""

import contextlib
import fcntl
from collections.abc import Iterator
from typing import IO


@contextlib.contextmanager
def held(file: IO[str], busy: str) -> Iterator[None]:
  """Holds an open file, and closes it in the end.

  Args:
    file: opened for writing.
    busy: what to say where another command holds it.

  Raises:
    ValueError: `busy`.
  """
  with file:
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      raise ValueError(busy) from None
    yield
