"""Faults that a trainer is given from within, for tests only.

Each is called in the trainer's process before anything else is.
"""

import ctypes
import dataclasses
import json
import os
import pathlib
import sys
import time
from typing import Any

_CAPABILITY_VERSION = 0x20080522  # 3, of linux/capability.h
_DAC = 1 << 1 | 1 << 2  # to override permissions, to read and search
_MUTEX_BYTES = 256  # of any libc


def failing_saves(numbers: list[int], error: int) -> None:
  """The commits of these saves, counted from 1, meet an errno."""
  from big_vision_like.checkpoints import manager

  write, count = manager.Checkpointer._write_manifest, 0

  def failing(self: Any) -> None:
    nonlocal count
    count += 1
    if count in numbers:
      print(f'INJECTED: save of step {self._saving} fails', flush=True)
      raise OSError(error, os.strerror(error))
    write(self)

  manager.Checkpointer._write_manifest = failing


def quick_retries(seconds: float) -> None:
  """The first wait before a failed save is tried again."""
  from big_vision_like.checkpoints import save_attempts

  save_attempts._FIRST_WAIT_S = seconds


def poisoned_loss(records: list[int], factor: str) -> None:
  """The loss of batches with one of these records is multiplied."""
  import jax.numpy as jnp

  from big_vision_like.tasks import multilabel

  real = multilabel.Task.loss

  def loss(
    self: Any, params: Any, extra: Any, batch: Any, rng: Any, train: bool
  ) -> Any:
    per_example, extra, aux = real(self, params, extra, batch, rng, train)
    hit = jnp.isin(batch['_id'], jnp.array(records)).any()
    return per_example * jnp.where(hit, float(factor), 1.0), extra, aux

  multilabel.Task.loss = loss


def slow_evaluations(told: str, seconds: float) -> None:
  """Sleeps before every batch of an evaluation.

  Args:
    told: file of lines [what, evaluator, step]: 'begins', 'ends'.
    seconds: of each sleep.
  """
  from big_vision_like import evaluate
  from input_pipeline import pipeline

  run_one, batches = evaluate.run_one, pipeline.Evaluation.__iter__

  def tell(*line: Any) -> None:
    with pathlib.Path(told).open('a') as file:
      file.write(json.dumps(line) + '\n')

  def told_of(scheduled: Any, step: int, *args: Any) -> Any:
    tell('begins', scheduled.name, step)
    result = run_one(scheduled, step, *args)
    tell('ends', scheduled.name, step)
    return result

  def slow(self: Any) -> Any:
    for batch in batches(self):
      time.sleep(seconds)
      yield batch

  evaluate.run_one = told_of
  pipeline.Evaluation.__iter__ = slow


def beginning_at(step: int) -> None:
  """A fresh run is one that has done so many steps."""
  from big_vision_like import opening
  from big_vision_like.training import skipping

  fresh = opening.start_state
  opening.start_state = lambda *args: skipping.moved_on(fresh(*args), step)


def timed_data(told: str) -> None:
  """Writes how long the first batch takes, and the images read till then."""
  from input_pipeline import pipeline
  from input_pipeline.sources import synthetic

  opened, read = pipeline.train, synthetic.Source.__getitem__
  give = pipeline.TrainIterator.__next__
  begun, reads = 0.0, 0

  def counted(self: Any, index: int) -> Any:
    nonlocal reads
    reads += 1
    return read(self, index)

  def opening(*args: Any, **options: Any) -> Any:
    nonlocal begun, reads
    begun, reads = time.monotonic(), 0
    return opened(*args, **options)

  def timed(self: Any) -> Any:
    batch = give(self)
    path = pathlib.Path(told)
    if not path.exists():
      line = {'seconds': time.monotonic() - begun, 'reads': reads}
      path.write_text(json.dumps(line))
    return batch

  synthetic.Source.__getitem__ = counted
  pipeline.train = opening
  pipeline.TrainIterator.__next__ = timed


def deaf_step() -> None:
  """A step does not come back and hears no signal, as inside a compiler."""
  from big_vision_like import experiment

  libc = ctypes.CDLL(None)
  mutex = ctypes.create_string_buffer(_MUTEX_BYTES)
  build = experiment.build

  def step(state: Any, batch: Any) -> Any:
    libc.pthread_mutex_lock(mutex)
    libc.pthread_mutex_lock(mutex)  # twice: for ever

  def deaf(*args: Any, **options: Any) -> Any:
    return dataclasses.replace(build(*args, **options), train_step=step)

  experiment.build = deaf


def heed_permissions() -> None:
  """Permissions of files hold, as they do not for root."""
  libc = ctypes.CDLL(None, use_errno=True)
  header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION, 0)
  sets = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable; twice
  if libc.capget(header, sets):
    raise OSError(ctypes.get_errno(), 'capget')
  sets[0] &= ~_DAC
  if libc.capset(header, sets):
    raise OSError(ctypes.get_errno(), 'capset')


def no_plot() -> None:
  """Nobody looks at the curves, which take half a second to draw."""
  from big_vision_like.pages import metrics_plot

  metrics_plot.plot = lambda *args, **options: None


def noted_records(told: str) -> None:
  """The records of every batch of training, a line each, in a file."""
  from input_pipeline import pipeline

  give = pipeline.TrainIterator.__next__

  def noting(self: Any) -> Any:
    batch = give(self)
    with open(told, 'a', encoding='utf-8') as file:
      file.write(' '.join(map(str, batch['_id'])) + '\n')
    return batch

  pipeline.TrainIterator.__next__ = noting


def importable(folder: str) -> None:
  """As PYTHONPATH, which counts at the start of Python only."""
  sys.path.insert(0, folder)
