"""Ends a run that no longer moves, with a message instead of silence.

The loop says what it is doing; a thread looks at the clock. When a phase takes
longer than its limit the stacks of all threads are written, the message names
the phase, the step and, with several processes, those that are behind, and the
process ends with code 1. A phase without a limit is not watched.
"""

import contextlib
import faulthandler
import multiprocessing
import os
import pathlib
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import jax

from big_vision_like.runtime import distributed

EXIT_CODE = 1
STACKS = 'stacks.txt'
_POLL_S = 0.5
_SIGN_OF_LIFE_S = 2.0
# The first step compiles: it may take this many times the limit.
FIRST_STEP_FACTOR = 4


class Watchdog:
  """Context manager; `phase` and `step` are called by the loop.

  Args:
    limits: phase -> (seconds, what to look at when they are over).
    warn_s: a phase that takes longer is announced once.
  """

  def __init__(
    self, limits: Mapping[str, tuple[float, str]], warn_s: float = 30
  ):
    self._limits = dict(limits)
    self._warn_s = warn_s
    self._now = time.monotonic
    self._step = 0
    self._phase: str | None = None
    self._since = self._now()
    self._factor = 1.0
    self._warned = False
    self._closed = threading.Event()
    # Two threads: a store that hangs must not stop the clock.
    work = [self._watch, *([self._publish] if jax.process_count() > 1 else [])]
    self._threads = [threading.Thread(target=w, daemon=True) for w in work]

  def __enter__(self) -> 'Watchdog':
    for thread in self._threads:
      thread.start()
    return self

  def __exit__(self, *error: object) -> None:
    self._closed.set()
    for thread in self._threads:
      thread.join(_SIGN_OF_LIFE_S)

  def at(self, step: int) -> None:
    """The loop is at this step."""
    self._step = step

  @contextmanager
  def phase(self, name: str, factor: float = 1.0) -> Iterator[None]:
    """Inside, the limit of `name` (times `factor`) runs."""
    self._since, self._factor, self._warned = self._now(), factor, False
    self._phase = name
    try:
      yield
    finally:
      self._phase = None

  def _watch(self) -> None:
    while not self._closed.wait(_POLL_S):
      phase, seconds = self._phase, self._now() - self._since
      limit, remedy = self._limits.get(phase or '', (0.0, ''))
      limit *= self._factor
      if not phase or not limit:
        continue
      if seconds > limit:
        self._end(phase, limit, remedy)
      if seconds > self._warn_s and not self._warned and self._factor == 1:
        self._warned = True
        print(
          f'waiting since {seconds:.0f} s for the {phase} of step '
          f'{self._step + 1} (limit {limit:g} s)',
          file=sys.stderr,
          flush=True,
        )

  def _publish(self) -> None:
    """Signs of life, which the others read when something hangs."""
    while not self._closed.wait(_SIGN_OF_LIFE_S):
      sign = f'{self._step} {time.monotonic_ns()}'
      distributed.put(f'alive/{jax.process_index()}', sign)

  def _end(self, phase: str, limit: float, remedy: str) -> None:
    faulthandler.dump_traceback(file=sys.stderr)
    text = (
      f'error: the {phase} of step {self._step + 1} takes longer than '
      f'{limit:g} s; {remedy}. The stacks of all threads are above.'
    )
    if jax.process_count() > 1:
      text += f'\n{_others()}'
    print(text, file=sys.stderr, flush=True)
    for worker in multiprocessing.active_children():
      worker.kill()  # they would outlive this process
    os._exit(EXIT_CODE)


def write_stacks(workdir: str) -> str:
  """Writes the stacks of all threads; returns where, for a message."""
  path = pathlib.Path(workdir) / STACKS
  with contextlib.suppress(OSError), path.open('w', encoding='utf-8') as file:
    faulthandler.dump_traceback(file=file)
    return f'the stacks of all threads are in {path}'
  return f'{path} for the stacks of all threads cannot be written'


def _others() -> str:
  """Which processes are silent: their sign of life stands still."""
  ids = range(jax.process_count())
  first = _signs(ids)
  time.sleep(2.5 * _SIGN_OF_LIFE_S)
  second = _signs(ids)
  lines = []
  for i in ids:
    if i == jax.process_index():
      continue
    silent = second[i] is None or first[i] == second[i]
    sign = (second[i] or 'never').split()[0]
    lines.append(
      f'  process {i}: step {sign}{", no sign of life" if silent else ""}'
    )
  return '\n'.join(['the other processes:', *lines])


def _signs(ids: range) -> dict[int, str | None]:
  """Signs of life; none at all if the coordinator itself does not answer."""
  found: dict[int, str | None] = dict.fromkeys(ids)

  def read() -> None:
    for i in ids:
      found[i] = distributed.get(f'alive/{i}')

  thread = threading.Thread(target=read, daemon=True)
  thread.start()
  thread.join(_SIGN_OF_LIFE_S)
  return dict(found)
