"""What the storage refuses for a moment is tried again.

Remote and busy storage fails now and then: a read times out, a connection is
reset, a handle is stale. Such a read is repeated after waits that double; a
file that is not there, or may not be read, is no such failure. How often and
how long is said once for the process (`use`), and every repetition is counted.
"""

import contextlib
import dataclasses
import errno
import io
import os
import random
import threading
import time
from collections.abc import Callable
from typing import Any, BinaryIO, TypeVar

T = TypeVar('T')

_NAMES = (
  'EIO', 'EAGAIN', 'EBUSY', 'EINTR', 'ESTALE', 'ETIMEDOUT', 'ENETDOWN',
  'ENETUNREACH', 'ENETRESET', 'EHOSTDOWN', 'EHOSTUNREACH', 'ECONNABORTED',
  'ECONNREFUSED', 'ECONNRESET', 'ENOTCONN', 'ESHUTDOWN', 'EREMOTEIO', 'ECOMM',
  'EPROTO', 'ENOLINK',
)  # fmt: skip
# Not every system has all of them.
_TRANSIENT = frozenset(getattr(errno, name, None) for name in _NAMES) - {None}
_LONGEST_WAIT_S = 60.0


class StorageError(OSError):
  """The storage went on refusing; the message is one line for the user."""


@dataclasses.dataclass(frozen=True)
class Policy:
  """How often a read is repeated, and the wait before the first repetition.

  Attributes:
    retries: 0: never.
    wait_s: seconds; it doubles each time, up to a minute.
  """

  retries: int = 5
  wait_s: float = 0.5


class _Counter:
  """Repetitions in this process and, as they are told, in its workers."""

  def __init__(self) -> None:
    self._lock = threading.Lock()
    self._untold = 0
    self._told = 0

  def add(self) -> None:
    with self._lock:
      self._untold += 1

  def take(self) -> int:
    with self._lock:
      taken, self._untold = self._untold, 0
    return taken

  def book(self, taken: int) -> None:
    with self._lock:
      self._told += taken

  def total(self) -> int:
    return self._untold + self._told


_policy = Policy()
_counter = _Counter()
_jitter = random.Random()  # many processes must not come back at once


def use(policy: Policy) -> None:
  """What holds in this process from here on; counting begins anew."""
  global _policy, _counter
  _policy, _counter = policy, _Counter()


def policy() -> Policy:
  return _policy


def take() -> int:
  """Repetitions of this process that nobody has been told of yet."""
  return _counter.take()


def book(taken: int) -> None:
  """Counts what `take` gave, here or in a worker."""
  _counter.book(taken)


def total() -> int:
  """Repetitions so far, of this process and those booked."""
  return _counter.total()


def told(number: int) -> str:
  """What `total` says, for people."""
  return f'the storage refused {number:,} times what was then tried again'


def call(read: Callable[..., T], *args: Any) -> T:
  """`read(*args)`, again while the storage fails for a moment.

  Args:
    read: may be called several times.

  Raises:
    StorageError: it failed so more often than the policy allows.
  """
  begun = time.monotonic()
  number = 0
  while True:
    try:
      return read(*args)
    except OSError as error:
      if not is_transient(error):
        raise
      if number >= _policy.retries:
        text, seconds = _text(error), time.monotonic() - begun
        if number:
          text += f' (tried {number + 1} times in {seconds:.0f} s)'
        raise StorageError(text) from error
    _counter.add()
    wait = min(_policy.wait_s * 2**number, _LONGEST_WAIT_S)
    time.sleep(wait * _jitter.uniform(0.5, 1))
    number += 1


def is_transient(error: OSError) -> bool:
  """Whether the same may succeed a little later."""
  if isinstance(error, StorageError):
    return False
  if error.errno is not None:
    return error.errno in _TRANSIENT
  return type(error) is OSError or isinstance(
    error, TimeoutError | ConnectionError
  )


def _text(error: OSError) -> str:
  if error.filename is None or not error.strerror:
    return str(error.strerror or error).partition('\n')[0]
  return f'{os.fsdecode(error.filename)}: {error.strerror}'


def listed(folder: str) -> list[os.DirEntry[str]]:
  """The entries of a folder, in no order."""

  def entries() -> list[os.DirEntry[str]]:
    with os.scandir(folder) as found:
      return list(found)

  return call(entries)


def from_message(reason: str, path: str) -> OSError:
  """The error that a library without error numbers describes in words."""
  for code in errno.errorcode:
    if os.strerror(code).lower() in reason.lower():
      return OSError(code, os.strerror(code), path)
  return OSError(f'{path}: {reason}')


def open_binary(path: str | bytes | os.PathLike[str]) -> BinaryIO:
  """A file to read, each of whose reads is tried again; as `open(path, 'rb')`.

  Raises:
    StorageError: see `call`.
    OSError: not there, not allowed, a folder.
  """
  return io.BufferedReader(_Raw(path, call(io.FileIO, path)))


class _Raw(io.RawIOBase):
  """What `open_binary` buffers; after a failure the file is opened anew."""

  def __init__(self, path: str | bytes | os.PathLike[str], file: io.FileIO):
    super().__init__()
    self._path = path
    self._file = file

  @property
  def name(self) -> str | bytes | os.PathLike[str]:
    return self._path

  def readable(self) -> bool:
    return True

  def seekable(self) -> bool:
    return self._file.seekable()

  def fileno(self) -> int:
    return self._file.fileno()

  def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
    return self._file.seek(offset, whence)

  def tell(self) -> int:
    return self._file.tell()

  def readinto(self, buffer: Any, /) -> int | None:
    return self._read(lambda file: file.readinto(buffer))

  def readall(self) -> bytes:
    return self._read(lambda file: file.readall())

  def close(self) -> None:
    if not self.closed:
      self._file.close()
    super().close()

  def _read(self, how: Callable[[io.FileIO], T]) -> T:
    at = self._file.tell() if self._file.seekable() else None

    def attempt() -> T:
      try:
        return how(self._file)
      except OSError:
        if at is not None:  # a pipe cannot be read twice
          self._reopen(at)
        raise

    return call(attempt)

  def _reopen(self, at: int) -> None:
    """The handle may be stale; where it opens no more, the old one is kept."""
    with contextlib.suppress(OSError):
      fresh = io.FileIO(self._path)
      fresh.seek(at)
      self._file.close()
      self._file = fresh
