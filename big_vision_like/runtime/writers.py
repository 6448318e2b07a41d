"""Where a run's figures go: metrics.jsonl, TensorBoard, the console.

`<workdir>/metrics.jsonl` is the interface that other tools read: one object a
line, `step` and flat names. It is append-only; after a resume a step may stand
in it twice, and the later line counts (figures.py).
"""

import contextlib
import json
import math
import pathlib
import sys
import time
import warnings
from collections.abc import Iterator, Mapping
from typing import Any, TextIO

from big_vision_like.runtime import figures

METRICS = figures.METRICS
EVALUATIONS = 'eval.jsonl'  # of --mode=eval


class MetricWriter:
  """Appends figures to metrics.jsonl and to TensorBoard event files.

  A TensorBoard that cannot be written costs one warning, never a JSONL line.
  """

  def __init__(
    self,
    workdir: str | pathlib.Path,
    name: str = METRICS,
    *,
    board: bool = True,
    silent: bool = False,
    anew_from: int | None = None,
  ):
    """Opens the files.

    Args:
      workdir: folder of the run.
      name: of the JSONL file.
      board: whether to write for TensorBoard too.
      silent: writes nothing.
      anew_from: TensorBoard shows no older figures of steps from here on.
    """
    self._file = self._board = None
    if silent:  # all but the first of several processes
      return
    self._path = pathlib.Path(workdir) / name
    _end_torn_line(self._path)
    self._file = self._path.open('ab', buffering=0)
    self._said_full = False
    self._unwritten = b''  # of lines, while the disk is full
    folder = pathlib.Path(workdir) / 'tensorboard'
    self._board = _open_board(folder, anew_from) if board else None

  def write(self, step: int, metrics: Mapping[str, float]) -> None:
    """Writes one line; values that are not finite become null."""
    if self._file is None:
      return
    values = {k: _number(v) for k, v in metrics.items()}
    self._write_line(step, values)
    self._write_board(step, values)

  def write_note(self, step: int, note: Mapping[str, int]) -> None:
    """Writes a line that holds no figures (`figures.note`)."""
    if self._file is not None:
      self._write_line(step, note)

  def close(self) -> None:
    if self._file is not None:
      self._flush()
      if self._unwritten:
        num = self._unwritten.count(b'\n')
        warnings.warn(f'{num} lines of {self._path} are lost', stacklevel=2)
      self._file.close()
    if self._board is not None:
      with contextlib.suppress(OSError):
        self._board.close()

  def _write_line(self, step: int, values: Mapping[str, Any]) -> None:
    line = json.dumps({'step': int(step), **values}) + '\n'
    self._unwritten += line.encode()
    self._flush()

  def _flush(self) -> None:
    """Writes what is there; a full disk is waited out in memory, said once."""
    assert self._file is not None
    try:
      while self._unwritten:
        self._unwritten = self._unwritten[self._file.write(self._unwritten) :]
      self._said_full = False
    except OSError as error:
      if not self._said_full:
        self._said_full = True
        warnings.warn(
          f'{self._path} cannot be written, its lines are kept in memory until '
          f'it can: {error.strerror}',
          stacklevel=4,
        )

  def _write_board(self, step: int, values: Mapping[str, Any]) -> None:
    if self._board is None:
      return
    try:
      self._board.write(step, values)
    except OSError as error:
      warnings.warn(f'TensorBoard is off from here: {error}', stacklevel=2)
      self._board = None


def read_metrics(workdir: str | pathlib.Path) -> Iterator[dict[str, Any]]:
  """The lines of a metrics.jsonl that count; torn ones are left out."""
  yield from figures.counting(list(figures.read(workdir)))


class Console:
  """Progress: one live line on a terminal, plain lines in a file."""

  def __init__(self, stream: TextIO | None = None, *, silent: bool = False):
    self._silent = silent  # all but the first of several processes
    self._stream = stream or sys.stdout
    self._live = self._stream.isatty()
    self._width = 0

  def progress(self, text: str) -> None:
    """Shows the state of the run; on a terminal it replaces the last one."""
    if self._silent:
      return
    if self._live:
      self._stream.write('\r' + text.ljust(self._width))
      self._width = len(text)
    else:
      self._stream.write(text + '\n')
    self._stream.flush()

  def say(self, text: str) -> None:
    """Prints a line that stays."""
    if self._silent:
      return
    if self._live and self._width:
      self._stream.write('\n')
      self._width = 0
    self._stream.write(text + '\n')
    self._stream.flush()


def _number(value: Any) -> float | int | None:
  value = value if isinstance(value, int) else float(value)
  return value if math.isfinite(value) else None


def _end_torn_line(path: pathlib.Path) -> None:
  """A line that a killed run left unfinished must not swallow the next."""
  if path.exists() and path.stat().st_size:
    with path.open('rb+') as file:
      file.seek(-1, 2)
      if file.read(1) != b'\n':
        file.write(b'\n')


class _Board:
  """An event file. It is written here and now, not by a thread.

  That of tensorboardX's SummaryWriter ends at its first error, as on a full
  disk, and whoever writes then waits for ever.
  """

  def __init__(self, folder: pathlib.Path, anew_from: int | None):
    files, self._events, self._summaries = board_modules()
    folder.mkdir(parents=True, exist_ok=True)
    self._file = files.EventsWriter(str(folder / 'events'))
    if anew_from is not None:
      start = self._events.SessionLog(status=self._events.SessionLog.START)
      self._add(step=anew_from, file_version='brain.Event:2')
      self._add(step=anew_from, session_log=start)

  def write(self, step: int, values: Mapping[str, float | int | None]) -> None:
    """One event of all figures, on the disk when it returns."""
    # TensorBoard has no '@' in names.
    shown = [
      self._summaries.Summary.Value(
        tag=name.replace('@', '_at_'), simple_value=value
      )
      for name, value in values.items()
      if value is not None
    ]
    self._add(step=step, summary=self._summaries.Summary(value=shown))
    self._file.flush()

  def close(self) -> None:
    self._file.close()

  def _add(self, **fields: Any) -> None:
    self._file.write_event(self._events.Event(wall_time=time.time(), **fields))


def board_modules() -> tuple[Any, Any, Any]:
  """tensorboardX's event files, and the protocol buffers in them.

  It takes torch in wherever that is installed, which is seconds and hundreds of
  megabytes for nothing: here it finds none.
  """
  hidden = 'torch' not in sys.modules
  if hidden:
    sys.modules['torch'] = None  # type: ignore[assignment]
  try:
    from tensorboardX import event_file_writer
    from tensorboardX.proto import event_pb2, summary_pb2
  finally:
    if hidden:
      del sys.modules['torch']
  return event_file_writer, event_pb2, summary_pb2


def _open_board(folder: pathlib.Path, anew_from: int | None) -> Any:
  try:
    return _Board(folder, anew_from)
  except (OSError, ImportError) as error:
    warnings.warn(f'no TensorBoard files: {error}', stacklevel=3)
    return None
