"""Traces of a few steps, for TensorBoard's profile plug-in and Perfetto."""

import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import jax

FOLDER = 'profile'


class Tracer:
  """Traces the steps first to last of a run to `<workdir>/profile`.

  Args:
    workdir: folder of the run.
    steps: (first, last), or () for no trace.
    say: prints one line.
  """

  def __init__(
    self, workdir: str, steps: Sequence[int], say: Callable[[str], None]
  ):
    self._folder = pathlib.Path(workdir) / FOLDER
    if jax.process_count() > 1:  # traces are named by host and second
      self._folder /= f'process_{jax.process_index()}'
    self._first, self._last = steps or (0, 0)
    self._say = say
    self._running = False

  def before(self, step: int) -> None:
    """Starts the trace; call it before a step is dispatched."""
    if step == self._first:
      options = jax.profiler.ProfileOptions()
      # Its hooks in all threads of Python can end the process (segmentation
      # fault, jax 0.10.2), and a step is one call anyway.
      options.python_tracer_level = 0
      jax.profiler.start_trace(
        str(self._folder), create_perfetto_trace=True, profiler_options=options
      )
      self._running = True

  def after(self, step: int, results: Any) -> None:
    """Ends the trace, once the results of its last step are there."""
    if self._running and step >= self._last:
      jax.block_until_ready(results)
      jax.profiler.stop_trace()
      self._running = False
      self._say(f'trace of steps {self._first} to {step}: {self._folder}')
