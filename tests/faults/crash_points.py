"""Points inside a save at which a trainer kills itself, for tests only.

A thread watches the folder of the checkpoints and kills the process as soon as
the point is there. It looks at files, not at the library that writes them.
"""

import contextlib
import os
import pathlib
import signal
import threading
import time
from collections.abc import Callable

_LOOK_EVERY_S = 0.0005


def _size(folder: pathlib.Path) -> int:
  """Bytes of what is there; files and folders may vanish meanwhile."""
  found = 0
  for parent, _, names in os.walk(folder):  # which passes over its errors
    for name in names:
      with contextlib.suppress(OSError):
        found += os.stat(os.path.join(parent, name)).st_size
  return found


def _steps(folder: pathlib.Path) -> list[pathlib.Path]:
  return sorted(
    (p for p in folder.glob('*') if p.name.isdigit()), key=lambda p: int(p.name)
  )


def _temporary(folder: pathlib.Path) -> list[pathlib.Path]:
  """Folders of steps that are not yet committed."""
  return [
    p for p in folder.glob('*') if 'tmp' in p.name and p.name[0].isdigit()
  ]


class _Watch:
  """The folder, and what a whole checkpoint in it weighs."""

  def __init__(self, folder: pathlib.Path, saves: int):
    self.folder = folder
    self._saves = saves  # that pass unharmed
    self._whole = 0
    self._seen: set[str] = set()

  def new(self) -> bool:
    """Whether the save to be hurt has come; learns from those before."""
    done = _steps(self.folder)
    self._seen |= {p.name for p in done}
    if done and not self._whole and len(self._seen) >= self._saves:
      self._whole = _size(done[-1])
    return len(self._seen) >= self._saves

  def share(self) -> float:
    """How much of the save is there; 0 without one."""
    found = _temporary(self.folder)
    return _size(found[-1]) / max(self._whole, 1) if found else 0.0


def _temporary_made(watch: _Watch) -> bool:
  return bool(_temporary(watch.folder))


def _half(watch: _Watch) -> bool:
  return watch.share() > 0.5


def _arrays(watch: _Watch) -> bool:
  return watch.share() > 0.95


def _before_commit(watch: _Watch) -> bool:
  """The manifest is the last thing that is written."""
  return any((p / 'manifest.json').exists() for p in _temporary(watch.folder))


def _after_commit(watch: _Watch) -> bool:
  return len(watch._seen) > watch._saves


def _deleting(watch: _Watch) -> bool:
  """An old step is not whole any more."""
  gone = {p.name for p in _steps(watch.folder)}
  if watch._seen - gone:
    return True
  return any(_size(p) < 0.9 * watch._whole for p in _steps(watch.folder)[:-1])


POINTS: dict[str, Callable[[_Watch], bool]] = {
  'temporary folder made': _temporary_made,
  'half of the arrays': _half,
  'all arrays': _arrays,
  'before the commit': _before_commit,
  'after the commit': _after_commit,
  'deleting an old one': _deleting,
}


def arm(point: str, folder: str, saves: str) -> None:
  """Kills this process at a point of the save after so many whole ones."""
  watch, reached = _Watch(pathlib.Path(folder), int(saves)), POINTS[point]

  def look() -> None:
    while True:
      if watch.new() and reached(watch):
        os.kill(os.getpid(), signal.SIGKILL)
      time.sleep(_LOOK_EVERY_S)

  threading.Thread(target=look, daemon=True).start()
