"""Saves that the storage refuses: said, tried again, and given up by count.

A full disk, a quota or a server that is away for a while must not end a run
whose state is sound. Training goes on, what was saved before stays, and the
save is tried again at the next log after a wait that doubles. What else a save
meets is raised, and so is everything with several processes, which must not
part.
"""

import errno
import re
import shutil
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax

from big_vision_like.checkpoints.manager import Checkpointer
from big_vision_like.checkpoints.save_failures import SaveFailed
from big_vision_like.training.state import TrainState

_FIRST_WAIT_S, _LONGEST_WAIT_S = 10.0, 600.0
_OF_STORAGE = (
  errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.ESTALE,
  errno.ETIMEDOUT, errno.EFBIG, errno.EAGAIN,
)  # fmt: skip
_TENSORSTORE = re.compile(r"([^:\]]*)\s*\[os_error_code='(\d+)'")


class SaveAttempts:
  """Saves of a run's loop, tried until the storage takes them.

  Args:
    ckpt: what saves.
    say: is told of each failure.
    max_failed: failures in a row, after which the run stops.
  """

  def __init__(
    self, ckpt: Checkpointer, say: Callable[[str], None], max_failed: int
  ):
    self._ckpt = ckpt
    self._say = say
    self._max_failed = max_failed
    self._step: int | None = None  # of the last save that was begun
    self._retry_at: float | None = None  # None: nothing failed, or it is tried
    self.failed = 0  # in a row
    self.total_failed = 0

  def save(self, step: int, state: TrainState, meta: Mapping[str, Any]) -> None:
    """Starts a save in the background; a failure is noted, see `check`.

    That of the one before, too, which does not keep this one from starting.
    """
    if step == self._step and self._retry_at is None:
      return  # is under way or done, as where the best is saved that was due
    try:
      self._ckpt.settle()
    except Exception as error:
      self._note(error)
    self._settle()
    self._step, self._retry_at = step, None
    try:
      self._ckpt.save(step, state, meta)
    except Exception as error:
      self._note(error)

  def check(self) -> bool:
    """Whether to try again now, at any step, what failed and is not under way.

    Raises:
      SaveFailed: too many in a row.
    """
    self._settle()
    return self._retry_at is not None and time.monotonic() >= self._retry_at

  def figures(self) -> dict[str, float]:
    """The number of failures of this process, once there are any."""
    return {'failed_saves': self.total_failed} if self.total_failed else {}

  def finish(self) -> None:
    """Blocks until no save is under way; a failure is noted, see `check`."""
    try:
      self._ckpt.wait()
    except Exception as error:
      self._note(error)
    self._settle()

  def wait(self) -> None:
    """Blocks until the last save is complete.

    Raises:
      SaveFailed: the storage refused it.
    """
    try:
      self._ckpt.wait()
    except Exception as error:
      reason = _reason(error)
      if reason is None:
        raise
      raise SaveFailed(self._text(reason)) from error
    self._settle()
    if self._retry_at is not None:
      raise SaveFailed(self._text('the last save failed'))

  def _settle(self) -> None:
    """Notes what the last save has met by now."""
    try:
      self._ckpt.check()
    except Exception as error:
      self._note(error)
      return
    done = self._step is not None and self._step in self._ckpt.steps()
    if done and self.failed:
      self._say(f'saving works again: step {self._step} is saved')
      self.failed = 0

  def _note(self, error: Exception) -> None:
    reason = _reason(error)
    if reason is None or jax.process_count() > 1:
      raise error
    self.failed += 1
    self.total_failed += 1
    self._remove_remains()
    text = self._text(reason)
    if self.failed >= self._max_failed:
      raise SaveFailed(
        f'{text}; ckpt.max_failed_saves={self._max_failed} in a row'
      ) from error
    wait = min(_FIRST_WAIT_S * 2 ** (self.failed - 1), _LONGEST_WAIT_S)
    self._retry_at = time.monotonic() + wait
    self._say(
      f'ALARM: {text}; training goes on, tried again in {wait:.0f} s '
      f'({self.failed} of {self._max_failed})'
    )

  def _remove_remains(self) -> None:
    """What a failed save has written takes space that the next one needs."""
    for path in self._ckpt.folder.glob(f'{self._step}.orbax-checkpoint-tmp*'):
      shutil.rmtree(path, ignore_errors=True)

  def _text(self, reason: str) -> str:
    newest = self._ckpt.latest_step()
    kept = f'step {newest} stays' if newest is not None else 'nothing is saved'
    return (
      f'the save of step {self._step} to {self._ckpt.folder} failed: {reason} '
      f'({kept})'
    )


def _reason(error: BaseException | None) -> str | None:
  """What the storage said, in a few words; None: it was not the storage."""
  seen: set[int] = set()
  slow = None
  while error is not None and id(error) not in seen:
    seen.add(id(error))
    if isinstance(error, OSError) and error.errno in _OF_STORAGE:
      return error.strerror
    if isinstance(error, TimeoutError):  # Orbax's, by a clock that may step
      slow = f'it took too long: {error}'
    found = _TENSORSTORE.search(str(error))
    if found and int(found[2]) in _OF_STORAGE:
      return found[1].strip()
    error = error.__cause__ or error.__context__
  return slow
