"""Keeps what a failed read still says, after its error, from the terminal.

Where one of many concurrent reads fails, the others end later, unawaited or
with an answer to an event loop that is closed. Python hands each such end to
`sys.unraisablehook`, which prints it.
"""

import contextlib
import gc
import inspect
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from typing import Any

_QUIET_S = 0.2  # without such an end: no other will come
_MOST_S = 2.0  # waited for them, after a failure

_lock = threading.Lock()


class _Hook:
  """A hook that drops late answers while somebody holds it.

  Once nobody does it passes everything on, should it still be in the chain of
  a hook that others put over it.
  """

  def __init__(self, under: Any):
    self.under = under
    self.holders = 0
    self.last = 0.0  # when it dropped something

  def __call__(self, met: Any) -> None:
    if self.holders and _is_late_answer(met):
      self.last = time.monotonic()
    else:
      self.under(met)


def _is_late_answer(met: Any) -> bool:
  closed = str(met.exc_value) == 'Event loop is closed'
  return closed or inspect.iscoroutine(met.object)


@contextlib.contextmanager
def dropped() -> Iterator[None]:
  """Drops late answers of what fails inside; the hook is as before after it.

  Uses may be nested and concurrent: one hook serves all. An exception leaves
  once the answers have come, after 0.2 to 2 seconds.
  """
  with _lock:
    hook = sys.unraisablehook
    if not isinstance(hook, _Hook) or not hook.holders:
      hook = sys.unraisablehook = _Hook(hook)
    hook.holders += 1
  try:
    yield
  except Exception as error:
    _wait_for_answers(hook, error)
    raise
  finally:
    with _lock:
      hook.holders -= 1
      if not hook.holders and sys.unraisablehook is hook:
        sys.unraisablehook = hook.under


def _wait_for_answers(hook: _Hook, error: BaseException | None) -> None:
  """Ends what the frames of the error hold, and lets the others answer."""
  while error is not None:
    traceback.clear_frames(error.__traceback__)
    error = error.__cause__ or error.__context__
  begun = hook.last = time.monotonic()
  while time.monotonic() < min(hook.last + _QUIET_S, begun + _MOST_S):
    gc.collect()
    time.sleep(_QUIET_S / 10)
