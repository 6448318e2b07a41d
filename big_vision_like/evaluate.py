"""Evaluators of a config: when they run, and the evaluation mode.

An evaluator that finished at a step is not run again at that step after a
resume: its figures already stand in metrics.jsonl. Those of steps that are
trained again under another config, or on other data, do not count.
"""

import dataclasses
import functools
import pathlib
import re
import time
import traceback
from collections.abc import Callable
from typing import Any

import jax

from big_vision_like import experiment
from big_vision_like.checkpoints import (
  compatibility,
  folders,
  leases,
  manager,
  reading,
)
from big_vision_like.config import durations, option_types, settings
from big_vision_like.config.settings import Config
from big_vision_like.config.stream_names import MAIN, SHOWN
from big_vision_like.experiment import Experiment
from big_vision_like.protocols import Evaluator, Source, WithParts
from big_vision_like.runtime import distributed, figures, logs, writers
from big_vision_like.runtime.clock import duration
from big_vision_like.training.state import TrainState
from evaluators.harness import building, context
from input_pipeline import feature_map_checks, streams
from input_pipeline.files import retries

_MOST_OF_A_GROUP = 8  # figures 'a/...' of an evaluator on its line


@dataclasses.dataclass(frozen=True)
class Scheduled:
  """An evaluator and the steps at which it runs."""

  name: str
  evaluator: Evaluator
  every_steps: int
  at_start: bool
  at_end: bool
  total_steps: int
  on_error: str
  done: frozenset[int] = frozenset()

  def due(self, step: int, ending: bool = False) -> bool:
    """Whether it has to run after this many steps.

    Args:
      step: of training.
      ending: training turns out to end here: whether it has to run once more.
    """
    if step in self.done:
      return False
    if ending:
      return self.at_end and not self.due(step)
    if step == 0:
      return self.at_start
    if step == self.total_steps:
      return self.at_end
    return step % self.every_steps == 0


def from_config(
  exp: Experiment,
  workdir: str,
  train_source: Callable[[str], Source],
  classes: str | None = None,
  stop_here: Callable[[], None] = lambda: None,
) -> dict[str, Scheduled]:
  """Builds the evaluators of a config; every argument is checked now.

  Args:
    exp: the experiment.
    workdir: folder of the run.
    train_source: opens the training source of a stream.
    classes: fingerprint of the names that a checkpoint was trained with, in
      the main stream.
    stop_here: see `EvalContext`.
  """
  evals = exp.config.evals
  for name in evals:
    if name == 'train' or not re.fullmatch(r'[A-Za-z0-9_-]+', name):
      raise ValueError(
        f'evals: {name!r} cannot name an evaluator; use letters, digits, _ and '
        "-, and not 'train'"
      )

  def ctx_for(name: str) -> context.EvalContext:
    part, stream = part_of(exp, name), stream_of(exp, name)
    return context.EvalContext(
      mesh=exp.mesh,
      workdir=workdir,
      name=name,
      space=exp.spaces[stream],
      train_source=functools.partial(train_source, stream),
      classes=classes if stream == MAIN else None,
      process_index=jax.process_index(),
      check_source=lambda source, where: feature_map_checks.check_net(
        source, exp.config, where
      ),
      stream=stream,
      part=part,
      parts=_parts(exp),
      timeout_s=exp.config.input.timeout_s,
      stop_here=stop_here,
    )

  built = building.from_config(evals, exp.predict, ctx_for)
  return {
    name: Scheduled(
      name=name,
      evaluator=evaluator,
      every_steps=_every(exp, name),
      at_start=_flag(evals[name], name, 'at_start'),
      at_end=_flag(evals[name], name, 'at_end'),
      total_steps=exp.total_steps,
      on_error=exp.config.on_eval_error,
    )
    for name, evaluator in built.items()
  }


def part_of(exp: Experiment, name: str) -> str:
  """The part of a joint task that an evaluator scores; '' where it says none.

  Raises:
    ValueError: there is none of that name.
  """
  part, valid = exp.config.evals[name].get('part', ''), _parts(exp)
  if part != '' and part not in valid:
    raise ValueError(
      f'evals.{name}.part={part!r}; valid: {", ".join(valid) or "none"}, the '
      f'parts of the task {exp.config.task.type!r}'
    )
  return part


def _parts(exp: Experiment) -> tuple[str, ...]:
  return tuple(exp.task.parts) if isinstance(exp.task, WithParts) else ()


def stream_of(exp: Experiment, name: str) -> str:
  """The stream that an evaluator is about: its part's, or the one it names.

  It is the main one where the evaluator says neither.

  Raises:
    ValueError: there is none of that name, or its part reads another.
  """
  entry, part = exp.config.evals[name], part_of(exp, name)
  if part and isinstance(exp.task, WithParts):
    read = exp.task.parts[part].stream
    if entry.get('stream', read) != read:
      raise ValueError(
        f'evals.{name}.stream={entry.stream!r}, but its part {part!r} reads '
        f'{read or SHOWN!r}; leave it out'
      )
    return read
  stream = entry.get('stream', MAIN)
  if not isinstance(stream, str) or stream not in exp.spaces:
    others = [n for n in exp.spaces if n != MAIN]
    raise ValueError(
      f'evals.{name}.stream={stream!r}; valid: {", ".join(others) or "none"}, '
      'the streams of input.also'
    )
  return stream


def _every(exp: Experiment, name: str) -> int:
  section = exp.config.evals[name]
  try:
    every = exp.steps(section, 'every', default=exp.total_steps)
  except ValueError as error:  # it begins with the key
    raise ValueError(f'evals.{name}.{error}') from None
  if every < 1:
    key = durations.find(section, 'every')
    raise ValueError(
      f'evals.{name}.{key}={section[key]!r} must be at least one step'
    )
  return every


def _flag(options: Any, name: str, key: str) -> bool:
  value = options.get(key, True)
  option_types.check_value(f'evals.{name}.{key}', bool, value)
  return value


def run_due(
  evals: dict[str, Scheduled],
  step: int,
  state: TrainState,
  writer: writers.MetricWriter,
  console: writers.Console,
  ending: bool = False,
) -> dict[str, float]:
  """Runs the evaluators that are due and writes their figures.

  Returns:
    '<name>/<metric>' -> figure, of those that ran.
  """
  found: dict[str, float] = {}
  for name, scheduled in evals.items():
    if scheduled.due(step, ending):
      result = run_one(scheduled, step, state, writer, console)
      found |= {f'{name}/{k}': v for k, v in result.items()}
  return found


def run_one(
  scheduled: Scheduled,
  step: int,
  state: TrainState,
  writer: writers.MetricWriter,
  console: writers.Console,
) -> dict[str, float]:
  """Runs one evaluator; its figures are '<name>/<metric>'."""
  name = scheduled.name
  start = time.monotonic()
  try:
    result = building.check_result(
      name, scheduled.evaluator.run(state.for_evaluation())
    )
  except Exception as error:
    error.add_note(f'in evaluator {name!r} at step {step}')
    if scheduled.on_error == 'raise':
      raise
    console.say(f'evaluator {name!r} failed at step {step}; going on')
    console.say(''.join(traceback.format_exception(error)).rstrip())
    return {}
  seconds = time.monotonic() - start
  writer.write(step, {f'{name}/{k}': v for k, v in result.items()})
  shown = '  '.join(f'{name}/{text}' for text in _shown(result))
  console.say(f'[eval] step {step}  {shown}  ({duration(seconds)})')
  return result


def _shown(result: dict[str, float]) -> list[str]:
  """Figures as text; of a large group 'a/...' their number and range.

  'a' itself is no member of that group: it is what the group's mean is called.
  """
  groups: dict[str, list[str]] = {}
  for key in result:
    group, slash, _ = key.partition('/')
    groups.setdefault(group + slash, []).append(key)
  texts = []
  for group, keys in groups.items():
    if len(keys) > _MOST_OF_A_GROUP:
      values = [result[key] for key in keys]
      span = f'{min(values):.5g} to {max(values):.5g}'
      texts.append(f'{group}* {span} ({len(keys)} figures)')
    else:
      texts += [f'{key} {result[key]:.5g}' for key in keys]
  return texts


def run(
  config: Config,
  workdir: str,
  path: str | None = None,
  stop_here: Callable[[], None] = lambda: None,
) -> dict[str, float]:
  """The evaluation mode: all evaluators on the newest checkpoint.

  Figures go to `<workdir>/eval.jsonl`, so that they never pass for those of
  training. Optimizer and averages are those that the checkpoint was trained
  with.

  Args:
    config: model, data and evaluators.
    workdir: folder of the run.
    path: another workdir or checkpoint to evaluate; 'best': that of this one.
    stop_here: see `EvalContext`.

  Returns:
    '<name>/<metric>' -> figure.

  Raises:
    FileNotFoundError: there is no checkpoint.
    ValueError: no evaluators, or the checkpoint is of another model, layout
      or vocabulary, or damaged.
  """
  console = writers.Console(silent=not distributed.is_first())
  config = settings.complete(config)
  distributed.check_platform(config.device)
  retries.use(
    retries.Policy(config.input.read_retries, config.input.retry_wait_s)
  )
  if not config.evals:
    raise ValueError('config.evals is empty: nothing to evaluate')
  flag = '--checkpoint' if path else '--workdir'
  if path == folders.BEST:
    path = f'{workdir}/{path}'
  with hold(path or workdir, flag, console, later=True) as held:
    return _run_on(held, flag, config, workdir, console, stop_here)


def hold(
  path: str, where: str, console: writers.Console, **options: Any
) -> folders.Held:
  """`folders.hold` for all processes: one that the first has looked into."""
  if distributed.is_first():
    held = folders.hold(path, where, console.say, **options)
    distributed.decide(str(held.path))
    return held
  found = folders.as_path(distributed.decide(None))
  lease = leases.take(found) or leases.Lease(found, None)
  return folders.Held(lease, None)


def _run_on(
  held: folders.Held,
  flag: str,
  config: Config,
  workdir: str,
  console: writers.Console,
  stop_here: Callable[[], None],
) -> dict[str, float]:
  """All evaluators on the checkpoint of a step."""
  found = held.path
  meta = reading.read_meta(found)
  compatibility.check_layout(config, meta, found, flag)
  trained = settings.complete(meta['config'])
  config.optim, config.train = trained.optim, trained.train
  config.on_eval_error = 'raise'
  wanted, stored = config.task.num_classes, meta['num_classes']
  if wanted not in (None, stored):
    raise ValueError(
      f'{flag}: {found} is of the task {trained.task.type!r} with {stored} '
      f"classes; the config's is {config.task.type!r} with "
      f'task.num_classes={wanted}'
    )
  train_source = functools.cache(functools.partial(streams.open_source, config))
  spaces = reading.label_spaces(meta, found)
  exp = experiment.build(
    config,
    spaces[MAIN],
    spaces=spaces,
    num_examples=_num_examples(config, meta, train_source),
  )
  evals = from_config(
    exp, workdir, train_source, meta.get('classes'), stop_here
  )
  ckpt = manager.Checkpointer(workdir, read_only=True, folder=found.parent)
  step = int(found.name)
  with held.proving():
    state = ckpt.restore(exp.abstract_state, step)
  console.say(f'evaluating {found}')
  pathlib.Path(workdir).mkdir(parents=True, exist_ok=True)
  if distributed.is_first():
    logs.open_in(pathlib.Path(workdir))
  writer = writers.MetricWriter(
    workdir,
    writers.EVALUATIONS,
    board=False,
    silent=not distributed.is_first(),
  )
  figures: dict[str, float] = {}
  for name, scheduled in evals.items():
    result = run_one(scheduled, step, state, writer, console)
    figures |= {f'{name}/{k}': v for k, v in result.items()}
  writer.close()
  ckpt.close()
  if again := retries.total():
    console.say(retries.told(again))
  return figures


def _num_examples(
  config: Config, meta: dict[str, Any], source: Callable[[str], Source]
) -> int | None:
  """Size of the training set, if some duration is in epochs.

  As the checkpoint tells it; of an older one as the data do, and where these
  are gone as the length of its run does.
  """
  flat = settings.flat(config.to_dict())
  if not any(k.endswith('_epochs') and v for k, v in flat.items()):
    return None
  if meta.get('num_examples') is not None:
    return meta['num_examples']
  try:
    return len(source(MAIN))
  except (ValueError, OSError):
    trained = settings.complete(meta['config'])
    if not trained.get('total_epochs'):
      raise
    images = meta['total_steps'] * trained.input.batch_size
    return max(1, round(images / trained.total_epochs))


def without_finished(
  evals: dict[str, Scheduled], workdir: str
) -> dict[str, Scheduled]:
  """They, knowing at which steps their figures already stand in the workdir."""
  found = figures.evaluated(list(figures.read(workdir)))
  done = distributed.decide({n: sorted(found.get(n, ())) for n in evals})
  return {
    name: dataclasses.replace(scheduled, done=frozenset(done[name]))
    for name, scheduled in evals.items()
  }


def figures_of(metric: str, workdir: str) -> dict[int, float]:
  """Step -> figure '<name>/<metric>', as far as metrics.jsonl has it."""
  lines = list(figures.read(workdir))
  steps = figures.evaluated(lines).get(metric.partition('/')[0], set())
  found = {
    line['step']: line[metric]
    for line in figures.counting(lines)
    if line.get(metric) is not None and line['step'] in steps
  }
  told = distributed.decide([[s, v] for s, v in sorted(found.items())])
  return {step: value for step, value in told}
