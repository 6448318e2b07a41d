"""What every process that works for another one does."""

import multiprocessing
import os
import threading


def end_with_parent() -> None:
  """Ends this worker when the main process is killed, busy or idle."""
  threading.Thread(target=_wait_and_end, daemon=True).start()


def _wait_and_end() -> None:
  parent = multiprocessing.parent_process()
  if parent is not None:
    parent.join()
    os._exit(1)
