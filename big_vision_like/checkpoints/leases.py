"""A checkpoint that is read is not deleted meanwhile.

Readers hold a shared lock on a file of it, the trainer deletes only what it can
lock for itself. A lock ends with its process, so none is left behind. Where a
file system has no locks, object stores say, both go on without.
"""

import contextlib
import fcntl
import os
import pathlib
import shutil
import weakref
from collections.abc import Callable
from typing import Any

from big_vision_like.checkpoints import folder_files, manifest

DELETED = '.deleted'  # end of the name of a folder that is on its way out
_LOCKED = (manifest.FILE, 'meta/metadata')  # the first of them that is there


class Lease:
  """A folder that stays until `close`, or until nobody has the lease any more.

  Attributes:
    path: of the checkpoint of a step.
  """

  def __init__(self, path: pathlib.Path, locked: int | None):
    self.path = path
    self.close: Callable[[], Any] = lambda: None
    if locked is not None:
      self.close = weakref.finalize(self, os.close, locked)

  def __enter__(self) -> 'Lease':
    return self

  def __exit__(self, *exception: Any) -> None:
    self.close()


def take(path: pathlib.Path) -> Lease | None:
  """Keeps a checkpoint; None where it has just been deleted."""
  file = _open(path, os.O_RDONLY) if _is_local(path) else None
  if file is None:
    return Lease(path, None) if path.exists() else None
  if _lock(file, fcntl.LOCK_SH) and _is_still_there(path, file):
    return Lease(path, file)
  os.close(file)
  return None


def delete(path: pathlib.Path) -> bool:
  """Deletes a checkpoint; False where somebody reads it."""
  if not _is_local(path):
    of_etils: Any = path
    of_etils.rmtree()
    return True
  # Under another name first: half of a checkpoint is never seen.
  away = path.with_name(f'{path.name}{DELETED}')
  file = _open(path, os.O_RDWR)
  try:
    if file is not None and not _lock(file, fcntl.LOCK_EX):
      return False
    path.rename(away)
  finally:
    if file is not None:
      os.close(file)
  shutil.rmtree(away)
  return True


def _lock(file: int, kind: int) -> bool:
  """Whether the lock could be had, or there are none on this file system."""
  try:
    fcntl.flock(file, kind | fcntl.LOCK_NB)
  except BlockingIOError:
    return False
  except OSError:
    pass
  return True


def delete_remains(folder: pathlib.Path) -> None:
  """Deletes what a killed run had begun to delete."""
  if _is_local(folder) and folder.is_dir():
    for path in folder.iterdir():
      if path.name.endswith(DELETED):
        if path.is_symlink():
          path.unlink(missing_ok=True)
        shutil.rmtree(path, ignore_errors=True)


def _is_local(path: pathlib.Path) -> bool:
  return '://' not in str(path)


def _open(path: pathlib.Path, flags: int) -> int | None:
  """Handle of the file of a checkpoint that is locked; None without one."""
  opened = (folder_files.open_file(path / name, flags) for name in _LOCKED)
  return next((handle for handle in opened if handle is not None), None)


def _is_still_there(path: pathlib.Path, file: int) -> bool:
  held = os.fstat(file)
  for name in _LOCKED:
    with contextlib.suppress(OSError):
      if os.path.samestat(os.stat(path / name, follow_symlinks=False), held):
        return True
  return False
