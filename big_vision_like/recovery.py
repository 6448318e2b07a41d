"""What a run does about steps that were not applied (train.on_nonfinite).

The step itself keeps what is not finite out of the state; here the host learns
of it, at the next log or save, names the step with its records, and stops, goes
on, or goes back to the newest checkpoint.
"""

import collections
import dataclasses
import math
import os
import zipfile
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from big_vision_like.checkpoints import manager
from big_vision_like.config.settings import Config
from big_vision_like.runtime import distributed, writers
from big_vision_like.training import skipping
from big_vision_like.training.state import TrainState
from input_pipeline import streams, waiting
from input_pipeline.files import atomic

MAX_ROLLBACKS = 3
_NUM_KEYS_SHOWN = 10


@dataclasses.dataclass
class Step:
  """A step that may yet turn out not to have been applied.

  Attributes:
    step: its number.
    ids: field of the batch -> indices of its records.
    figures: what it computed, on the device; {}: not begun.
  """

  step: int
  ids: dict[str, Any]
  figures: dict[str, jax.Array] = dataclasses.field(default_factory=dict)


class Recovery:
  """Looks at the steps since it last did; see the module docstring.

  Args:
    config: complete.
    abstract: the state's shapes and shardings, to restore one.
    ckpt: where checkpoints are.
    data: batches of the run, read again to be kept.
    console: is told what was passed over.
    finish_saves: waits for the save under way.
    workdir: folder for batches that stopped the run or set it back.
  """

  def __init__(
    self,
    config: Config,
    abstract: TrainState,
    ckpt: manager.Checkpointer,
    data: streams.Batches,
    console: writers.Console,
    finish_saves: Callable[[], None],
    workdir: str,
  ):
    self._policy = config.train.on_nonfinite
    self._max_skipped = config.train.max_skipped
    self._counts_skipped = (
      self._policy == 'skip' or config.train.skip_spikes_sigma is not None
    )
    self._abstract = abstract
    self._ckpt = ckpt
    self._data = data
    self._timeout_s = config.input.timeout_s
    self._workdir = workdir
    self._console = console
    self._finish_saves = finish_saves
    self._looked_at = 0  # the last step whose flag has been counted
    self.skipped = 0
    self.rollbacks = 0

  def look(
    self, step: int, state: TrainState, recent: collections.deque[Step]
  ) -> TrainState:
    """The state to go on with after `step`.

    Raises:
      FloatingPointError: the run must stop; names the step, its figures and
        the records of its batch.
    """
    self._count_skipped(step, recent)
    bad = int(state.nonfinite_step)
    if bad < 0:
      return state
    broken = next((s for s in recent if s.step == bad), Step(bad, {}))
    what = (
      f'loss, gradient or update is not finite at step {bad}{_wrong(broken)}; '
      f'it was not applied and nothing was saved since.'
    )
    text = f'{what} {self._records(broken)}\n{self._keep(bad)}'
    if self._policy != 'rollback':
      raise FloatingPointError(text)
    return self._rolled_back(step, text)

  def figures(self) -> dict[str, float]:
    """Counts of this process; none where nothing can be passed over."""
    found = {}
    if self._counts_skipped:
      found['skipped_steps'] = self.skipped
    if self._policy == 'rollback':
      found['rollbacks'] = self.rollbacks
    return found

  def _count_skipped(self, step: int, recent: collections.deque[Step]) -> None:
    new = [
      s
      for s in recent
      if self._looked_at < s.step <= step and skipping.FLAG in s.figures
    ]
    self._looked_at = step
    flags = jax.device_get([s.figures[skipping.FLAG] for s in new])
    for found, flag in zip(new, flags, strict=True):
      if not flag:
        continue
      self.skipped += 1
      loss = float(found.figures['loss'])
      text = (
        f'step {found.step} was passed over: loss {loss:.4g}{_wrong(found)}. '
        f'{self._records(found)}'
      )
      if self.skipped > self._max_skipped:
        raise FloatingPointError(
          f'more than train.max_skipped={self._max_skipped} steps were passed '
          f'over; {text}\n{self._keep(found.step)}'
        )
      self._console.say(text)

  def _rolled_back(self, step: int, text: str) -> TrainState:
    """The newest checkpoint's state, going on with the batch after `step`."""
    self.rollbacks += 1
    if self.rollbacks > MAX_ROLLBACKS:
      raise FloatingPointError(
        f'after {MAX_ROLLBACKS} rollbacks (train.on_nonfinite) again: {text}'
      )
    self._finish_saves()
    stored = distributed.decide(self._ckpt.latest_step())
    if stored is None:
      raise FloatingPointError(
        f'no checkpoint to go back to (train.on_nonfinite): {text}'
      )
    before = self._ckpt.restore(self._abstract, stored)
    self._console.say(
      f'{text}\nback to the checkpoint of step {stored}, rollback '
      f'{self.rollbacks} of {MAX_ROLLBACKS}; the batches of steps {stored + 1} '
      f'to {step} are passed over'
    )
    return skipping.moved_on(before, step)

  def _records(self, broken: Step) -> str:
    keys = '\n'.join(
      f'  {self._data.key(field, int(i))}'
      for field, ids in broken.ids.items()
      for i in ids[:_NUM_KEYS_SHOWN]
    )
    listed = '; '.join(f'({k}): {v.tolist()}' for k, v in broken.ids.items())
    return f'Records of the batch {listed}; the first are\n{keys}'

  def _keep(self, step: int) -> str:
    """Writes the batch of a step to a file; says where, or why it is not.

    It is read again, which its step alone decides: keeping all those that the
    host has not looked at yet would take their memory.
    """

    def read() -> Iterator[dict[str, np.ndarray]]:
      yield self._data.again(step)

    path = batch_file(self._workdir, step)
    reading = waiting.Patient(read(), self._timeout_s, 'see input.timeout_s')
    try:
      batch = reading.next(f'the batch of step {step}, read again,')
      keys = {
        f'{field.removesuffix("_id")}_key': np.array(
          [self._data.key(field, int(i)) for i in ids]
        )
        for field, ids in batch.items()
        if field.rpartition('/')[2] == '_id'
      }
      _write_arrays(path, batch | keys)
    except Exception as error:  # it must not hide what stops the run
      return f'The batch could not be kept in {path}: {error}'
    finally:
      reading.close()
    return f'The batch is kept in {path}'


def _wrong(broken: Step) -> str:
  """The figures of a step that are not finite, in brackets."""
  names = [k for k, v in broken.figures.items() if not math.isfinite(float(v))]
  return f' ({", ".join(names)})' if names else ''


def batch_file(workdir: str, step: int) -> str:
  """Where a batch is kept: NAME -> array, keys of the records in '_key'.

  Of several processes each keeps its part.
  """
  part = f'.process_{jax.process_index()}' if jax.process_count() > 1 else ''
  return os.path.join(workdir, f'bad_batch-{step}{part}.npz')


def _write_arrays(path: str, arrays: dict[str, np.ndarray]) -> None:
  """An npz file without pickles, which numpy.load reads by default."""
  with atomic.writing(path) as file, zipfile.ZipFile(file, 'w') as archive:
    for name, array in arrays.items():
      if array.dtype.kind == 'V':  # bfloat16, which files of numpy do not know
        array = array.astype(np.float32)
      with archive.open(f'{name}.npy', 'w', force_zip64=True) as member:
        np.save(member, array, allow_pickle=False)
