"""The training mode: the whole loop, on one path for every task.

restore or start -> next batch -> step -> log -> save -> evaluate. The loop
knows no task, source, model or evaluator by name.
"""

import collections
import contextlib
import dataclasses
import json
import os
import pathlib
import platform
import time
from collections.abc import Callable
from importlib import metadata
from typing import Any

import jax
import numpy as np

from big_vision_like import (
  checkpoint,
  checkpoint_folders,
  compatibility,
  distributed,
  downpour,
  evaluate,
  experiment,
  profiling,
  settings,
  watchdog,
  workdirs,
  writers,
)
from big_vision_like.clock import Clock, duration
from big_vision_like.experiment import Experiment
from big_vision_like.preemption import Guard, Preempted
from big_vision_like.settings import Config
from big_vision_like.state import TrainState
from input_pipeline import device, pipeline

_MAX_BATCHES_REMEMBERED = 10_000
_NUM_KEYS_SHOWN = 10
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
    run = _open(config, workdir, console, stack)
    with _watchdog(run.exp.config) as dog:
      return _loop(run, console, guard, dog)


def _watchdog(config: Config) -> watchdog.Watchdog:
  return watchdog.Watchdog(
    {
      'data': (
        config.input.timeout_s,
        'a data worker hangs or storage is too slow (input.timeout_s)',
      ),
      'step': (
        config.train.step_timeout_s,
        'a device or another process hangs (train.step_timeout_s)',
      ),
    }
  )


@dataclasses.dataclass
class _Run:
  """What the loop works with; built by `_open`."""

  exp: Experiment
  ckpt: checkpoint.Checkpointer
  writer: writers.MetricWriter
  evals: dict[str, evaluate.Scheduled]
  data: pipeline.TrainIterator
  state: TrainState
  meta: dict[str, Any]
  key: Callable[[int], str]
  workdir: str


def _open(
  config: Config,
  workdir: str,
  console: writers.Console,
  stack: contextlib.ExitStack,
) -> _Run:
  """Everything that can go wrong early, in order of cost."""
  config = settings.complete(config)
  distributed.check_platform(config.device)
  start = None
  if config.init_from.path:
    start = checkpoint.find(config.init_from.path, say=console.say)
  source = pipeline.open_train(config)
  ops = pipeline.build_ops(config.input.ops, source)
  exp = experiment.build(
    config,
    num_examples=len(source),
    num_classes=len(source.vocabulary.names),
  )
  folder = _prepare(workdir, exp.config, stack)
  evals = evaluate.from_config(exp, workdir, lambda: source)
  _set_incomplete_aside(workdir, console)
  ckpt = checkpoint.Checkpointer(
    workdir,
    keep_last=exp.config.ckpt.keep_last,
    keep_every_steps=exp.config.ckpt.keep_every_steps,
  )
  stack.callback(ckpt.close)
  data_id = source.fingerprint()
  console.say(_headline(exp, source, folder))
  if exp.servers:
    console.say(exp.servers)
  state = _restore(exp, ckpt, data_id, source.vocabulary, console)
  if state is None:
    state = _init(exp, start, console)
  if distributed.is_first():
    _store_config(folder / settings.FILE, exp.config)
  part, num_parts = device.process_part(exp.batch_sharding, exp.batch_size)
  data = pipeline.train(
    source,
    ops,
    batch_size=exp.batch_size,
    seed=exp.config.seed,
    start_step=int(state.step),
    workers=exp.config.input.workers,
    threads=exp.config.input.threads,
    prefetch=exp.config.input.prefetch,
    max_bad_fraction=exp.config.input.max_bad_fraction,
    process_index=part,
    process_count=num_parts,
  )
  stack.callback(data.close)
  meta = {
    'config': json.loads(exp.config.to_json()),
    'data': data_id,
    'num_classes': exp.task.num_classes,
    'classes': source.vocabulary.fingerprint(),
    'total_steps': exp.total_steps,
    'versions': _versions(),
  }
  writer = writers.MetricWriter(workdir, silent=not distributed.is_first())
  stack.callback(writer.close)
  return _Run(exp, ckpt, writer, evals, data, state, meta, source.key, workdir)


def _loop(
  run: _Run, console: writers.Console, guard: Guard, dog: watchdog.Watchdog
) -> TrainState:
  exp, state = run.exp, run.state
  start = int(state.step)
  clock = Clock(exp.total_steps, exp.batch_size, start)
  recent = collections.deque(maxlen=_MAX_BATCHES_REMEMBERED)
  save_every = exp.config.ckpt.every_steps
  due = lambda step, every: step % every == 0 or step == exp.total_steps

  def save(step: int) -> None:
    _check_finite(state, recent, run.key)
    run.ckpt.save(step, state, {**run.meta, 'step': step})

  def stop_if_asked(step: int) -> None:
    if not guard.must_stop(step):
      return
    if step == start:
      raise Preempted(f'asked to stop before step {start + 1}: nothing to save')
    save(step)
    run.ckpt.wait()
    raise Preempted(f'asked to stop: saved step {step}')

  def run_evals(step: int) -> None:
    try:
      with clock.pause(), guard.interruptible():
        evaluate.run_due(run.evals, step, state, run.writer, console)
    except Preempted:
      stop_if_asked(step)
      raise

  def fetch(step: int, running: Any) -> dict[str, jax.Array]:
    """The batch of a step, on its way to the device.

    Time counts as waiting for data if the device has nothing left to do.
    """
    begun = time.monotonic()
    with dog.phase('data'):
      host = next(run.data)
    recent.append((step, host['_id']))
    batch = device.to_global(host, exp.batch_sharding)
    if running is None or running.is_ready():
      clock.spend('data_wait', time.monotonic() - begun)
    return batch

  starving = _Starving(exp.config.input.workers)
  tracer = profiling.Tracer(run.workdir, exp.config.profile.steps, console.say)
  run_evals(start)  # before the first step, or those that a stop cut short
  batch = None
  for step in range(start + 1, exp.total_steps + 1):
    stop_if_asked(step - 1)
    dog.at(step - 1)
    batch = fetch(step, None) if batch is None else batch
    first = step == start + 1
    tracer.before(step)
    with dog.phase('step', watchdog.FIRST_STEP_FACTOR if first else 1):
      with clock.timed('dispatch'):
        state, metrics = exp.train_step(state, batch)
      if first:
        jax.block_until_ready(metrics)  # compiled; rates start after it
        clock.restart(step)
    # While the device computes, the next batch comes.
    batch = fetch(step + 1, metrics['loss']) if step < exp.total_steps else None
    tracer.after(step, metrics)
    if due(step, exp.config.log_every_steps):
      with clock.timed('device_wait'), dog.phase('step'):
        values = {k: float(v) for k, v in jax.device_get(metrics).items()}
        _check_finite(state, recent, run.key)
      run.ckpt.check()
      while recent and recent[0][0] <= step:
        recent.popleft()
      share = _log(run, step, values, clock, console)
      starving.look(share, console)
    if due(step, save_every):
      with clock.timed('save'), dog.phase('step'):
        save(step)
    run_evals(step)
  _finish(run, start, console)
  return state


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
  run: _Run,
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
    'train/bad_records': run.data.bad.count,
  }
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


def _finish(run: _Run, start: int, console: writers.Console) -> None:
  run.ckpt.wait()
  _compare_with_expected(run, console)
  if start >= run.exp.total_steps:
    console.say(f'nothing to do: step {start} of {run.exp.total_steps} is done')
  bad = run.data.bad
  if bad.count:
    console.say(
      f'{bad.count} of {bad.seen} records could not be used:\n{bad.listing(10)}'
    )


def _compare_with_expected(run: _Run, console: writers.Console) -> None:
  """Says how the run's last figures compare with config.expected."""
  figures: dict[str, Any] = {}
  for line in writers.read_metrics(run.workdir):
    figures |= line
  for name, expected in run.exp.config.expected.items():
    got = figures.get(name)
    shown = 'no figure' if got is None else f'{got:.4g}'
    console.say(f'{name}: {shown}, about {expected:.4g} expected')


def _check_finite(
  state: TrainState, recent: collections.deque, key: Callable[[int], str]
) -> None:
  """Stops with the step and the records of the batch that broke the loss."""
  bad_step = int(state.nonfinite_step)
  if bad_step < 0:
    return
  ids = next((ids for step, ids in recent if step == bad_step), np.array([]))
  keys = '\n'.join(f'  {key(int(i))}' for i in ids[:_NUM_KEYS_SHOWN])
  raise FloatingPointError(
    f'loss, gradient or update is not finite at step {bad_step}; it was not '
    f'applied and nothing was saved since. Records of the batch (_id): '
    f'{ids.tolist()}; the first are\n{keys}'
  )


def _prepare(
  workdir: str, config: Config, stack: contextlib.ExitStack
) -> pathlib.Path:
  """Makes and locks the workdir; refuses one of another config."""
  folder = pathlib.Path(workdir)
  if distributed.is_first():
    stack.enter_context(workdirs.locked(folder))
  distributed.decide(True)  # the folder is there
  stored = folder / settings.FILE
  if stored.exists() and not config.resume.accept_config_change:
    changes = settings.differences(settings.from_json(stored), config)
    if changes:
      raise ValueError(
        f'--workdir={workdir!r} was written by another config; use another '
        'workdir, or --config.resume.accept_config_change=True to go on with '
        'the new one:\n' + '\n'.join(changes)
      )
  return folder


def _store_config(path: pathlib.Path, config: Config) -> None:
  """Writes config.json whole or not at all; what was accepted once is not."""
  config = settings.complete(config)
  config.resume = settings.complete({}).resume
  text = settings.to_json(config)
  if not path.exists() or path.read_text(encoding='utf-8') != text:
    temporary = path.with_suffix('.json.tmp')
    temporary.write_text(text, encoding='utf-8')
    os.replace(temporary, path)


def _set_incomplete_aside(workdir: str, console: writers.Console) -> None:
  """The first process does it, before any looks at the checkpoints."""
  if distributed.is_first():
    for old, new, missing in checkpoint_folders.set_incomplete_aside(workdir):
      console.say(
        f'checkpoint {old} is incomplete (no {missing}): it is now called '
        f'{new.name}, and the run goes on from the one before'
      )
  distributed.decide(True)  # done


def _restore(
  exp: Experiment,
  ckpt: checkpoint.Checkpointer,
  data_id: str,
  classes: Any,
  console: writers.Console,
) -> TrainState | None:
  """The state of the workdir's newest checkpoint; None if there is none."""
  step = distributed.decide(ckpt.latest_step())
  if step is None:
    return None
  path = ckpt.path(step)
  try:
    meta = ckpt.meta(step)
    if meta['data'] != data_id and not exp.config.resume.accept_data_change:
      raise ValueError(
        f'the data set is not the one that {path} was trained on '
        f'(fingerprint {meta["data"]} -> {data_id}); '
        '--config.resume.accept_data_change=True goes on with the new one, in '
        'its own order'
      )
    _check_resume(exp, meta, step, path, console)
    if compatibility.classes_differ(meta, classes):
      console.say(
        'the classes have other names, or another order, than those that '
        f'{path} was trained on'
      )
    console.say(f'resuming from step {step} of {path}')
    return ckpt.restore(exp.abstract_state, step)
  except checkpoint.DamagedError as error:
    before = [s for s in ckpt.steps() if s < step]
    then = f'step {before[-1]}' if before else 'the start'
    error.add_note(f'without that folder the same command goes on from {then}')
    raise


def _init(
  exp: Experiment, path: pathlib.Path | None, console: writers.Console
) -> TrainState:
  """A fresh state, or a warm start from the checkpoint in `path`."""
  state = exp.init(exp.config.seed)
  if path is None:
    return state
  section = exp.config.init_from
  meta = checkpoint.read_meta(path)
  compatibility.check_layout(exp.config, meta, path, 'init_from.path')
  state, report = checkpoint.warm_start(
    state, path, section.reinit, ema=section.ema
  )
  console.say(f'warm start from {path}\n{report.summary()}')
  return downpour.refetch(state)


def _check_resume(
  exp: Experiment,
  meta: dict[str, Any],
  step: int,
  path: pathlib.Path,
  console: writers.Console,
) -> None:
  """What shapes alone do not tell apart."""
  before, now = meta['config']['optim']['type'], exp.config.optim.type
  if before != now:
    raise ValueError(
      f'checkpoint {path} holds the slots of optim.type={before!r}, not of '
      f'{now!r}; start from it with init_from.path in another workdir'
    )
  if step > exp.total_steps:
    raise ValueError(
      f'checkpoint {path} is past the end of the run, total_steps='
      f'{exp.total_steps}'
    )
  if meta['total_steps'] != exp.total_steps:
    console.say(
      f'the run was planned for {meta["total_steps"]} steps and is now for '
      f'{exp.total_steps}: a schedule that follows the length changes'
    )
  # Padded heads of equal width may still hold different classes.
  if meta['num_classes'] != exp.task.num_classes:
    raise ValueError(
      f'checkpoint {path} has {meta["num_classes"]} classes, the config '
      f'{exp.task.num_classes} (task.num_classes, or those of input.source)'
    )


def _headline(exp: Experiment, source: Any, folder: pathlib.Path) -> str:
  devices = exp.mesh.devices.flatten()
  num = sum(
    int(np.prod(x.shape)) for x in jax.tree.leaves(exp.abstract_state.params)
  )
  return (
    f'{jax.process_count()} process(es), {exp.mesh.size} '
    f'{devices[0].device_kind} device(s), mesh '
    f'{"x".join(str(s) for s in exp.mesh.devices.shape)} '
    f'{exp.mesh.axis_names}\n'
    f'{num / 1e6:.2f}M parameters, {exp.task.num_classes} classes\n'
    f'{len(source):,} training images of source '
    f'{exp.config.input.source.type!r}, batch {exp.batch_size}, '
    f'{exp.total_steps:,} steps '
    f'({exp.total_steps * exp.batch_size / len(source):.2f} epochs)\n'
    f'workdir {folder}'
  )


def _versions() -> dict[str, str]:
  names = ('jax', 'flax', 'optax', 'orbax-checkpoint', 'grain', 'numpy')
  return {
    'python': platform.python_version(),
    **{n: metadata.version(n) for n in names},
  }
