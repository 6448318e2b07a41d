"""The training mode: the whole loop, on one path for every task.

restore or start -> next batch -> step -> log -> save -> evaluate. The loop
knows no task, source, model or evaluator by name.
"""

import collections
import contextlib
import pathlib
import shutil
import time
from collections.abc import Iterator
from typing import Any, NoReturn

import jax

from big_vision_like import evaluate, opening, recovery
from big_vision_like.checkpoints import manager, save_attempts
from big_vision_like.checkpoints.save_failures import SaveFailed
from big_vision_like.config import expected, stream_names
from big_vision_like.config.settings import Config
from big_vision_like.runtime import (
  distributed,
  profiling,
  watchdog,
  writers,
)
from big_vision_like.runtime.clock import Clock, duration
from big_vision_like.runtime.preemption import Guard, Preempted
from big_vision_like.training.state import TrainState
from input_pipeline import device, waiting, workers
from input_pipeline.files import retries

_MAX_BATCHES_REMEMBERED = 10_000
_STARVING_SHARE = 0.3  # of the time, over this many log intervals in a row
_STARVING_INTERVALS = 3


def run(config: Config, workdir: str) -> TrainState:
  """Trains to the end of the config, from where the workdir stands.

  Args:
    config: see configs/common.py.
    workdir: folder of the run; made if it does not exist.

  Returns:
    The final state.

  Raises:
    ValueError: the config, the data or the workdir are not what they must be.
    FloatingPointError: the loss is not finite.
    Preempted: asked to stop by a signal; exits with its code.
  """
  console = writers.Console(silent=not distributed.is_first())
  with Guard() as guard, contextlib.ExitStack() as stack:
    with guard.nothing_to_lose():
      run = opening.open_run(config, workdir, console, stack, guard.stop_here)
    guard.saved = int(run.state.step) > 0  # restored
    data = waiting.Patient(
      run.data,
      run.exp.config.input.timeout_s,
      'a data worker hangs or storage is too slow (input.timeout_s)',
    )
    stack.push(lambda *error: _let_go(data, failed=error[0] is not None))
    with _watchdog(run.exp.config) as dog:
      return _loop(run, console, guard, dog, data)


def _let_go(data: waiting.Patient, *, failed: bool) -> None:
  """Nobody waits for the data any more; what hangs must not hold the end up."""
  if failed:
    workers.kill()
  data.close()


def _watchdog(config: Config) -> watchdog.Watchdog:
  return watchdog.Watchdog(
    {
      'step': (
        config.train.step_timeout_s,
        'a device or another process hangs (train.step_timeout_s)',
      ),
    }
  )


def _loop(
  run: opening.Run,
  console: writers.Console,
  guard: Guard,
  dog: watchdog.Watchdog,
  data: waiting.Patient,
) -> TrainState:
  exp, state = run.exp, run.state
  start = int(state.step)
  clock = Clock(exp.total_steps, exp.images_per_step, start)
  recent = collections.deque(maxlen=_MAX_BATCHES_REMEMBERED)
  save_every = exp.config.ckpt.every_steps
  due = lambda step, every: step % every == 0 or step == exp.total_steps

  saves = save_attempts.SaveAttempts(
    run.ckpt, console.say, exp.config.ckpt.max_failed_saves
  )
  recovered = recovery.Recovery(
    exp.config,
    exp.abstract_state,
    run.ckpt,
    run.data,
    console,
    saves.finish,
    run.workdir,
  )

  def save(step: int) -> None:
    nonlocal state
    state = recovered.look(step, state, recent)
    with storing(step):
      saves.save(step, state, {**run.meta, 'step': step})

  @contextlib.contextmanager
  def storing(step: int) -> Iterator[None]:
    """What saves meet in a workdir that is not there is told as that."""
    try:
      if not run.anchor.lost():
        yield
        return
    except Exception:
      if not run.anchor.lost():
        raise
    _leave_lost_workdir(run, step, state)

  def stop_if_asked(step: int) -> None:
    if not guard.must_stop():
      return
    if step == start:
      there = f'step {start} is saved' if guard.saved else 'nothing to save'
      raise Preempted(
        f'asked to stop before step {start + 1}: {there}', saved=guard.saved
      )
    guard.saved = False
    save(step)
    with storing(step):
      saves.wait()
    guard.saved = True
    raise Preempted(f'asked to stop: saved step {step}')

  lost: list[Exception] = []  # why the data do not come

  def end_if_lost(step: int) -> None:
    if lost:
      save_after(lost[0], step)
      raise lost[0]

  def save_after(error: Exception, step: int) -> None:
    """What is done must not be lost with the data; one of several cannot."""
    if isinstance(error, waiting.DataError) and error.hung:
      error.add_note(watchdog.write_stacks(run.workdir))
    if step > start and jax.process_count() == 1:
      save(step)
      with storing(step):
        saves.wait()
      error.add_note(f'saved step {step}')

  def run_evals(step: int, ending: bool = False) -> dict[str, float]:
    try:
      with clock.pause(), guard.interruptible():
        return evaluate.run_due(
          run.evals, step, state, run.writer, console, ending
        )
    except Preempted:
      stop_if_asked(step)
      raise
    except waiting.DataError as error:
      save_after(error, step)
      raise

  def evaluated(step: int) -> bool:
    """Evaluates, keeps the best; whether training ends here, before its end."""
    found = run_evals(step)
    value = run.best.figure(step, found)
    if value is not None and run.best.look(step, distributed.decide(value)):
      with clock.timed('save'), dog.phase('step'):
        save(step)
      run.ckpt.set_best(run.best.told())
    if not run.best.over or step == exp.total_steps:
      return False
    run_evals(step, ending=True)
    with clock.timed('save'), dog.phase('step'):
      save(step)
    console.say(
      f'{run.best.metric} has not become better for '
      f'{exp.config.ckpt.patience} evaluations: training ends at step {step}'
    )
    return True

  def fetch(step: int, running: Any) -> dict[str, jax.Array] | None:
    """The batch of a step, on its way to the device; None: it does not come.

    Time counts as waiting for data if the device has nothing left to do.
    """
    begun = time.monotonic()
    try:
      host = data.next(f'the data of step {step}', guard.may_stop_now)
    except waiting.Stopped:
      return None
    except Exception as error:
      lost.append(error)
      return None
    ids = {k: v for k, v in host.items() if k.rpartition('/')[2] == '_id'}
    recent.append(recovery.Step(step, ids))
    batch = device.to_global(host, exp.batch_sharding)
    if running is None or running.is_ready():
      clock.spend('data_wait', time.monotonic() - begun)
    return batch

  starving = _Starving(exp.config.input.workers)
  tracer = profiling.Tracer(run.workdir, exp.config.profile.steps, console.say)
  # Before the first step, or those that a stop cut short.
  last = start if evaluated(start) else exp.total_steps
  batch = None
  for step in range(start + 1, last + 1):
    stop_if_asked(step - 1)
    dog.at(step - 1)
    batch = fetch(step, None) if batch is None else batch
    if batch is None:
      end_if_lost(step - 1)
      stop_if_asked(step - 1)
    assert batch is not None
    first = step == start + 1
    if first:
      console.progress('compiling the train step')
    tracer.before(step)
    with dog.phase('step', watchdog.FIRST_STEP_FACTOR if first else 1):
      to_come = guard.nothing_to_lose() if first else contextlib.nullcontext()
      with to_come:
        with clock.timed('dispatch'):
          state, metrics = exp.train_step(state, batch)
          recent[-1].figures = metrics
        if first:
          jax.block_until_ready(metrics)  # compiled; rates start after it
          clock.restart(step)
    guard.saved = False
    # While the device computes, the next batch comes.
    batch = fetch(step + 1, metrics['loss']) if step < exp.total_steps else None
    tracer.after(step, metrics)
    owed = False
    if due(step, exp.config.log_every_steps):
      with clock.timed('device_wait'), dog.phase('step'):
        values = {k: float(v) for k, v in jax.device_get(metrics).items()}
        state = recovered.look(step, state, recent)
      with storing(step):
        owed = saves.check()
      while recent and recent[0].step <= step:
        recent.popleft()
      values |= recovered.figures() | saves.figures()
      share = _log(run, step, values, clock, console)
      starving.look(share, console)
    end_if_lost(step)
    if due(step, save_every) or owed:
      with clock.timed('save'), dog.phase('step'):
        save(step)
    if evaluated(step):
      break
  with storing(int(state.step)):
    saves.wait()
  _finish(run, start, console)
  return state


def _leave_lost_workdir(
  run: opening.Run, step: int, state: TrainState
) -> NoReturn:
  """Its name is gone: what is done is saved where the folder now is."""
  there = run.anchor.path()
  fate = f'is now {there}' if there else 'was removed'
  text = f'--workdir={run.workdir!r} {fate}'
  with contextlib.suppress(Exception):  # a save that was under way
    run.ckpt.wait()
  _remove_remains(run)
  if there and jax.process_count() == 1:
    section = run.exp.config.ckpt
    moved = manager.Checkpointer(
      there,
      keep_last=section.keep_last,
      keep_every_steps=section.keep_every_steps,
    )
    moved.save(step, state, {**run.meta, 'step': step})
    moved.wait()
    moved.close()
    text += f': saved step {step} there; go on with --workdir={there}'
  raise SaveFailed(text)


def _remove_remains(run: opening.Run) -> None:
  """Of a save that was under way, which has made the old folder again."""
  workdir, folder = pathlib.Path(run.workdir), run.ckpt.folder
  if folder.parent != workdir.absolute():
    return
  for path in folder.glob('*.orbax-checkpoint-tmp*'):
    shutil.rmtree(path, ignore_errors=True)
  for path in (folder, workdir):
    with contextlib.suppress(OSError):  # not empty: it is somebody else's
      path.rmdir()


class _Starving:
  """Says once that the device waits for data, and what helps."""

  def __init__(self, workers: int):
    self._workers = workers
    self._intervals = 0
    self._said = False

  def look(self, share: float, console: writers.Console) -> None:
    above = share > _STARVING_SHARE
    self._intervals = self._intervals + 1 if above else 0
    if self._intervals >= _STARVING_INTERVALS and not self._said:
      self._said = True
      console.say(
        f'the device waits for data {share:.0%} of the time: raise '
        f'input.workers (now {self._workers}) or see docs/performance.md'
      )


def _log(
  run: opening.Run,
  step: int,
  values: dict[str, float],
  clock: Clock,
  console: writers.Console,
) -> float:
  """Writes and shows the figures; returns the share of waiting for data."""
  exp = run.exp
  breakdown = clock.breakdown(step)
  times = clock.read(step)
  lr = float(exp.schedule(step - 1))
  line = {f'train/{k}': v for k, v in {**values, **breakdown, **times}.items()}
  line |= {
    'train/lr': lr,
    'train/examples': step * exp.batch_size,
    'train/read_retries': retries.total(),
  }
  for name, bad in run.data.bad.items():
    line[f'train/{stream_names.field(name, "bad_records")}'] = bad.count
  if exp.num_examples:
    line['train/epoch'] = step * exp.batch_size / exp.num_examples
  run.writer.write(step, line)
  rate = f'{times["images_per_s"]:.0f} images/s' if times else ''
  eta = f'ETA {duration(times["eta_s"])}' if times else ''
  console.progress(
    f'step {step}/{exp.total_steps}  loss {values["loss"]:.4g}  '
    f'lr {lr:.3g}  {rate}  {eta}'.rstrip()
  )
  return breakdown.get('data_wait_share', 0.0)


def _finish(run: opening.Run, start: int, console: writers.Console) -> None:
  _compare_with_expected(run, console)
  if start >= run.exp.total_steps:
    console.say(f'nothing to do: step {start} of {run.exp.total_steps} is done')
  if again := retries.total():
    console.say(retries.told(again))
  for name, bad in run.data.bad.items():
    if bad.count:
      of = f' of {stream_names.config_key(name)}' if name else ''
      console.say(
        f'{bad.count} of {bad.seen} records{of} could not be used:\n'
        f'{bad.listing(10)}'
      )


def _compare_with_expected(run: opening.Run, console: writers.Console) -> None:
  """Says how the run's last figures compare with config.expected."""
  figures: dict[str, Any] = {}
  for line in writers.read_metrics(run.workdir):
    figures |= line
  for name, value in run.exp.config.expected.items():
    console.say(f'{name}: {expected.verdict(figures.get(name), value)}')
