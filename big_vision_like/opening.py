"""Opening a run: a fresh workdir, or one that goes on from its checkpoint.

Everything that can go wrong early goes wrong here, before the first step.
"""

import contextlib
import dataclasses
import functools
import pathlib
import platform
from collections.abc import Callable
from importlib import metadata
from typing import Any

import jax
import numpy as np

from big_vision_like import evaluate, experiment, mending, resuming
from big_vision_like.checkpoints import (
  best,
  compatibility,
  folders,
  late_answers,
  manager,
  reading,
  warm_start,
)
from big_vision_like.config import settings, stream_names
from big_vision_like.config.settings import Config
from big_vision_like.config.stream_names import MAIN
from big_vision_like.experiment import Experiment
from big_vision_like.protocols import NeedingStart
from big_vision_like.runtime import (
  distributed,
  figures,
  logs,
  workdirs,
  writers,
)
from big_vision_like.training import downpour
from big_vision_like.training.state import TrainState
from input_pipeline import (
  canvases,
  device,
  feature_map_checks,
  streams,
  workers,
)
from input_pipeline.files import atomic, retries
from input_pipeline.labels.space import LabelSpace


@dataclasses.dataclass
class Run:
  """What the loop works with; built by `open_run`."""

  exp: Experiment
  ckpt: manager.Checkpointer
  best: best.Best
  writer: writers.MetricWriter
  evals: dict[str, evaluate.Scheduled]
  data: streams.Batches
  state: TrainState
  meta: dict[str, Any]
  workdir: str
  anchor: workdirs.Anchor


def open_run(
  config: Config,
  workdir: str,
  console: writers.Console,
  stack: contextlib.ExitStack,
  stop_here: Callable[[], None],
) -> Run:
  """Everything that can go wrong early, in order of cost."""
  config = settings.complete(config)
  folders.check_name(workdir, '--workdir')
  distributed.check_platform(config.device)
  retries.use(
    retries.Policy(config.input.read_retries, config.input.retry_wait_s)
  )
  if config.init_from.path:
    folders.find(config.init_from.path)  # it is there
  early = resuming.early_proof(workdir, console)
  if early is not None:
    stack.callback(early.cancel)
  opened = streams.open_all(config)
  spaces = streams.spaces(opened)
  exp = experiment.build(
    config,
    spaces[MAIN],
    spaces=spaces,
    num_examples=len(opened[MAIN].source),
  )
  for name, stream in opened.items():
    feature_map_checks.check_net(
      stream.source, exp.config, f'{stream_names.config_key(name)}.source'
    )
  folder = _prepare(workdir, exp.config, console, stack)
  anchor = workdirs.Anchor(folder)
  stack.callback(anchor.close)
  checkpoints, proof = resuming.checkpoints(exp, folder, early, console)
  if proof is not None:
    stack.callback(proof.cancel)
  evals = evaluate.from_config(
    exp, workdir, lambda name: opened[name].source, stop_here=stop_here
  )
  resuming.try_saving(checkpoints, exp.abstract_state)
  stack.enter_context(late_answers.dropped())  # of saves that fail
  ckpt = manager.Checkpointer(
    workdir,
    folder=checkpoints,
    keep_last=exp.config.ckpt.keep_last,
    keep_every_steps=exp.config.ckpt.keep_every_steps,
  )
  stack.push(lambda kind, *error: ckpt.close(failed=kind is not None))
  data_id = streams.fingerprint(opened)
  console.say(_headline(exp, opened, folder))
  for name, stream in opened.items():
    for line in canvases.report(stream.source, stream.ops):
      console.say(f'  {name}: {line}' if name else f'  {line}')
  if exp.servers:
    console.say(exp.servers)
  state = resuming.restore(exp, ckpt, proof, data_id, console)
  restored = state is not None
  trained_on = ckpt.meta(int(state.step))['data'] if restored else None
  if state is None:
    state = _fresh_state(exp, console)
  for name, stream in opened.items():
    where = f'{stream_names.config_key(name)}.source'
    feature_map_checks.check_weights(
      stream.source, state.params, state.extra, where
    )
  step = int(state.step)
  note = _changes(folder, exp.config, data_id, trained_on, step + restored)
  anew_from = note.get(figures.ANEW_FROM)
  with workdirs.written(folder):
    writer = writers.MetricWriter(
      workdir, silent=not distributed.is_first(), anew_from=anew_from
    )
  stack.callback(writer.close)
  if note:  # before config.json is replaced: what has changed is known by it
    writer.write_note(step, note)
  if anew_from is not None:
    console.say(
      f'trained anew from step {anew_from} on: older figures of these steps do '
      'not count'
    )
  if distributed.is_first():
    with workdirs.written(folder):
      _store_config(folder / settings.FILE, exp.config)
  evals = evaluate.without_finished(evals, workdir)
  resuming.check_best(ckpt.folder, console)
  judge = _judge(exp.config.ckpt, ckpt, workdir, step)
  data = streams.train(
    opened,
    exp.config,
    start_step=int(state.step),
    part=functools.partial(device.process_part, exp.batch_sharding),
  )
  stack.callback(data.close)
  meta = {
    'config': settings.stored(exp.config),
    'data': data_id,
    **_told_of(exp.space),
    'also': {n: _told_of(s) for n, s in exp.spaces.items() if n != MAIN},
    'total_steps': exp.total_steps,
    'num_examples': exp.num_examples,
    'versions': _versions(),
  }
  return Run(
    exp, ckpt, judge, writer, evals, data, state, meta, workdir, anchor
  )


def _judge(
  section: Config, ckpt: manager.Checkpointer, workdir: str, step: int
) -> best.Best:
  """What tells the best checkpoint, knowing the figures so far."""
  if section.best is None:
    return best.Best(None)
  judge = best.Best(
    section.best,
    section.best_mode,
    section.patience,
    stored=evaluate.figures_of(section.best, workdir),
    start=step,
    present=distributed.decide(ckpt.steps()),
  )
  ckpt.set_best(judge.told())
  return judge


def _told_of(space: LabelSpace) -> dict[str, Any]:
  """What a checkpoint holds of the labels of a stream."""
  return {
    'num_classes': space.num_classes,
    'classes': space.fingerprint(),
    'space': space.to_json(),
  }


def _prepare(
  workdir: str,
  config: Config,
  console: writers.Console,
  stack: contextlib.ExitStack,
) -> pathlib.Path:
  """Makes and locks the workdir; refuses one of another config."""
  folder = pathlib.Path(workdir)
  if distributed.is_first():
    stack.enter_context(workdirs.locked(folder))
  distributed.decide(True)  # the folder is there
  if distributed.is_first():
    logs.open_in(folder)
    with workdirs.written(folder):
      for line in mending.mend(folder):
        console.say(line)
  distributed.decide(True)  # mended
  workers.own(f'{folder.resolve()} {jax.process_index()}')
  stack.callback(workers.disown)
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
    atomic.write_text(path, text)


def _changes(
  folder: pathlib.Path,
  config: Config,
  data: str,
  trained_on: str | None,
  first: int,
) -> dict[str, int]:
  """What has changed since metrics.jsonl was written, as a note; {}: nothing.

  Read off the config.json that is about to be replaced, the data that the
  figures so far are of, and the notes there are: the changes of one resume
  hold for all that follow.

  Args:
    folder: workdir.
    config: of the run as it goes on.
    data: fingerprint of its training data.
    trained_on: that of the checkpoint it goes on from, if there is one.
    first: the first step whose figures are not yet those of this training.
  """
  lines = list(figures.read(folder))
  shown = figures.counting(lines)
  stored = folder / settings.FILE
  before = settings.from_json(stored) if stored.exists() else None
  known = figures.last(lines, figures.DATA)
  if known is None and trained_on is not None:
    known = figures.data_number(trained_on)
  changed = known not in (None, figures.data_number(data))
  if before is not None:
    changed |= bool(settings.differences(before, config))
    changed |= any(before[key] != config[key] for key in settings.LENGTH)
  # What went on from a later step than this one, under another config.
  later = figures.last(lines, figures.ANEW_FROM)
  changed |= later is not None and later > first
  found = {name.partition('/')[0] for line in shown for name in line}
  evaluators = [
    name
    for name in config.evals
    if name in found
    and (
      before is None
      or not settings.equal(config.evals[name], before.evals.get(name))
    )
  ]
  if not (changed or evaluators or known is None):
    return {}
  return figures.note(data, first if changed else None, evaluators)


def _fresh_state(exp: Experiment, console: writers.Console) -> TrainState:
  path = exp.config.init_from.path
  if not path:
    return start_state(exp, None, console)
  with evaluate.hold(path, 'init_from.path', console, fall_back=True) as held:
    return start_state(exp, held.path, console)


def start_state(
  exp: Experiment, path: pathlib.Path | None, console: writers.Console
) -> TrainState:
  """A fresh state, or a warm start from the checkpoint in `path`."""
  task = exp.task
  if path is None and isinstance(task, NeedingStart) and task.needs_start:
    raise ValueError(f'init_from.path is not set, but {task.needs_start}')
  state = exp.init(exp.config.seed)
  if path is None:
    return state
  section = exp.config.init_from
  meta = reading.read_meta(path)
  compatibility.check_layout(exp.config, meta, path, 'init_from.path')
  state, report = warm_start.warm_start(
    state, path, section.reinit, ema=section.ema, part=section.part
  )
  console.say(f'warm start from {path}\n{report.summary()}')
  return downpour.refetch(state)


def _headline(
  exp: Experiment, opened: streams.Streams, folder: pathlib.Path
) -> str:
  devices = exp.mesh.devices.flatten()
  num = sum(
    int(np.prod(x.shape)) for x in jax.tree.leaves(exp.abstract_state.params)
  )
  return (
    f'{jax.process_count()} process(es), {exp.mesh.size} '
    f'{devices[0].device_kind} device(s), mesh '
    f'{"x".join(str(s) for s in exp.mesh.devices.shape)} '
    f'{exp.mesh.axis_names}\n'
    f'{num / 1e6:.2f}M parameters, {exp.space.num_classes} classes\n'
    + ''.join(_of_stream(exp, *item) for item in opened.items())
    + f'workdir {folder}'
  )


def _of_stream(exp: Experiment, name: str, stream: streams.Stream) -> str:
  source, batch_size = stream.source, stream.section.batch_size
  classes = f', {exp.spaces[name].num_classes} classes' if name else ''
  return (
    f'{f"{name}: " if name else ""}{len(source):,} training images of source '
    f'{stream.section.source.type!r}, batch {batch_size}, '
    f'{exp.total_steps:,} steps '
    f'({exp.total_steps * batch_size / len(source):.2f} epochs){classes}\n'
  )


def _versions() -> dict[str, str]:
  names = ('jax', 'flax', 'optax', 'orbax-checkpoint', 'grain', 'numpy')
  return {
    'python': platform.python_version(),
    **{n: metadata.version(n) for n in names},
  }
