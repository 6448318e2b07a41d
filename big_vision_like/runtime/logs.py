"""What a command prints, also in a file, whoever reads the terminal or not.

`head`, a closed ssh session or a pager that ends take the reader of stdout
away. The run goes on then, and `<workdir>/log.txt` has every line with its
time. Lines of libraries that write to the file descriptor are not in it, and no
secrets are (config/redaction.py).
"""

import contextlib
import io
import os
import pathlib
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any, TextIO

from big_vision_like.config import redaction

FILE = 'log.txt'
_MOST_KEPT = 10_000  # lines before the file is known


class Log:
  """Lines with their times; kept until the file is known."""

  def __init__(self) -> None:
    self._lock = threading.RLock()
    self._file: TextIO | None = None
    self._kept: list[str] = []

  def open(self, folder: pathlib.Path) -> None:
    """Writes to <folder>/log.txt from here on, what came before too."""
    with self._lock, contextlib.suppress(OSError):
      self._file = (folder / FILE).open(
        'a', encoding='utf-8', errors='backslashreplace', buffering=1
      )
      self._file.writelines(self._kept)
      self._kept.clear()

  def add(self, line: str) -> None:
    text = f'{time.strftime("%Y-%m-%d %H:%M:%S")}  {line}\n'
    with self._lock, contextlib.suppress(OSError):  # as where the disk is full
      if self._file is not None:
        self._file.write(text)
      elif len(self._kept) < _MOST_KEPT:
        self._kept.append(text)


class Tee(io.TextIOBase):
  """A stream of which every line is logged; one that is gone is no error."""

  def __init__(self, stream: Any, log: Log):
    self._stream = stream
    self._log = log
    self._line = ''
    self._lock = threading.RLock()

  def write(self, text: str) -> int:
    with self._lock:
      with self._gone_is_fine():
        self._stream.write(redaction.text(text))
      # On a terminal a line that begins with \r replaces the last one.
      *lines, self._line = (self._line + text).replace('\r', '\n').split('\n')
      for line in lines:
        if line.strip():
          self._log.add(redaction.text(line.rstrip()))
    return len(text)

  def flush(self) -> None:
    with self._gone_is_fine():
      self._stream.flush()

  def isatty(self) -> bool:
    with contextlib.suppress(ValueError):
      return self._stream.isatty()
    return False

  def fileno(self) -> int:
    return self._stream.fileno()

  def writable(self) -> bool:
    return True

  @property
  def encoding(self) -> str:  # type: ignore[override]
    return self._stream.encoding

  @property
  def buffer(self) -> Any:
    return self._stream.buffer

  @contextlib.contextmanager
  def _gone_is_fine(self) -> Iterator[None]:
    try:
      yield
    except (OSError, ValueError):  # no reader, no terminal, closed
      with contextlib.suppress(OSError, ValueError):
        # Else what it still holds is an error again when Python ends.
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, self._stream.fileno())
        os.close(null)


_log: Log | None = None


def capture() -> None:
  """All that this process prints from here on is for the log, too."""
  global _log
  for number in (0, 1, 2):  # a file opened later must not become stdout
    try:
      os.fstat(number)
    except OSError:
      os.open(os.devnull, os.O_RDWR)
  if _log is None:
    _log = Log()
    for name, number in (('stdout', 1), ('stderr', 2)):
      stream = getattr(sys, name) or os.fdopen(number, 'w', closefd=False)
      redaction.shows_all(stream)
      setattr(sys, name, Tee(stream, _log))


def open_in(folder: pathlib.Path) -> None:
  """The log is <folder>/log.txt; does nothing without `capture`."""
  if _log is not None:
    _log.open(folder)
