"""Which checkpoints of a run stay: the newest, every so many steps, the best.

Deleting happens in a thread, between saves: Orbax would decide at the start of
a save what goes at its end, whoever reads it by then. The best is told by a
file, written when its checkpoint is complete; until then the best before it
stays.
"""

import concurrent.futures
import contextlib
import json
import os
import pathlib
from typing import Any

from big_vision_like.checkpoints import folders, leases
from input_pipeline.files import atomic


class Keeper:
  """Keeps and deletes the checkpoints of a folder.

  Args:
    folder: of the checkpoints.
    last: number of the newest that stay.
    every: those stay whose step is a multiple of it.
  """

  def __init__(self, folder: pathlib.Path, last: int, every: int | None):
    self._folder, self._last, self._every = folder, last, every
    self._best = folders.read_best(folder)
    self._stored = self._best
    self._newest: int | None = None
    self._due = True
    self._thread = concurrent.futures.ThreadPoolExecutor(1, 'checkpoints')
    self._job = self._thread.submit(leases.delete_remains, folder)

  def set_best(self, best: dict[str, Any] | None) -> None:
    """{'metric', 'mode', 'step', 'value'} of the checkpoint that is best now.

    It may not be complete yet.
    """
    self._best, self._due = best, True

  def expect(self, step: int) -> None:
    """A save of this step has begun."""
    self._newest, self._due = step, True

  def start(self) -> None:
    """Does in the thread what has become due; raises what it met before."""
    if self._job.done():
      self._job.result()
      if self._due:
        self._job = self._thread.submit(self._tidy)

  def finish(self) -> None:
    """Does it now, and waits."""
    self._job.result()
    self._tidy()

  def close(self) -> None:
    self._thread.shutdown()

  def _tidy(self) -> None:
    steps = folders.by_step(self._folder)
    complete = {int(p.name) for p in steps}
    self._due = self._newest is not None and self._newest not in complete
    self._store_best(complete)
    kept = {p.name for p in steps[: self._last]}
    kept |= {str(b['step']) for b in (self._best, self._stored) if b}
    for path in steps:
      of_period = self._every and int(path.name) % self._every == 0
      if path.name not in kept and not of_period:
        with contextlib.suppress(FileNotFoundError):  # by someone else
          leases.delete(path)

  def _store_best(self, complete: set[int]) -> None:
    best, path = self._best, self._folder / folders.BEST_FILE
    if best == self._stored:
      return
    if best is None:
      path.unlink(missing_ok=True)
    elif best['step'] not in complete:
      return
    elif isinstance(path, pathlib.Path):
      atomic.write_json(os.fspath(path), best)
    else:  # an object store writes whole files
      path.write_text(json.dumps(best))
    self._stored = best
