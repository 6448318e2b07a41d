"""A worker process of Beam on this machine (beam_runner.py starts it).

  python -m input_pipeline.prepared.beam_worker FOLDER

Beam's own worker writes a page of messages to the console, dies in the middle
of a shard at Ctrl-C, and is waited for without end once it is dead. This one
is silent, lets the main process decide when to stop, and says in FOLDER that it
runs, so that its death is seen.
"""

import contextlib
import logging
import os
import signal
import sys
import threading

_SUFFIX = '.worker'


def end(folder: str) -> None:
  """Ends the processes that work for this folder, in the middle of a shard."""
  for pid in _announced(folder):
    with contextlib.suppress(ProcessLookupError):
      os.kill(pid, signal.SIGTERM)


def lost(folder: str) -> list[int]:
  """Ids of processes that ended without taking leave."""
  return [pid for pid in _announced(folder) if not _is_alive(pid)]


def _announced(folder: str) -> list[int]:
  names = os.listdir(folder)
  return [int(n.removesuffix(_SUFFIX)) for n in names if n.endswith(_SUFFIX)]


def _is_alive(pid: int) -> bool:
  try:
    os.kill(pid, 0)
  except ProcessLookupError:
    return False
  return True


def main(folder: str) -> None:
  signal.signal(signal.SIGINT, signal.SIG_IGN)
  logging.disable(logging.CRITICAL)
  threading.excepthook = lambda _: None
  from apache_beam.runners.worker import sdk_worker_main

  name = os.path.join(folder, f'{os.getpid()}{_SUFFIX}')
  with open(name, 'w'):
    pass
  try:
    sdk_worker_main.main([])
  except Exception:  # the main process is gone
    sys.exit(1)
  with contextlib.suppress(FileNotFoundError):
    os.unlink(name)


if __name__ == '__main__':
  main(sys.argv[1])
