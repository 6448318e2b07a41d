"""Whether the runs of a study could start: all that needs no data.

A run that fails at night because of a key of its evaluator costs a day. So the
model, task, optimizer, schedule and ops of every config are built, as shapes
alone, on one device of the CPU whatever the machine has: the tool must not take
memory of the accelerators that its runs need. Sources and evaluators open data
when they are built, so their options are checked by name and type, and files
are looked for. docs/studies.md says what that leaves to the runs.
"""

import glob
import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from big_vision_like import evaluate, experiment
from big_vision_like.config import settings, stream_names
from evaluators.harness import building
from input_pipeline import ops as example_ops
from input_pipeline import pipeline
from input_pipeline.labels.space import LabelSpace
from input_pipeline.ops.context import OpContext

from .jobs import Job, within

# Stand-ins where the data would tell; large, so that no epoch is too short.
_NUM_CLASSES = 1000
_NUM_EXAMPLES = 1_000_000
# What `experiment.build` reads, but for the devices and their number.
_BUILT_FROM = (
  *settings.LENGTH, 'input.ops', 'input.batch_size', 'model', 'task', 'optim',
  'schedule', 'train', 'input.num_classes',
)  # fmt: skip
# Options that name a file or a folder, of sources and of evaluators.
_PATHS = (
  'path', 'directory', 'data_dir', 'root', 'vocabulary', 'hierarchy',
  'exclude_ids', 'annotated', 'train_counts',
)  # fmt: skip


def check(jobs: Sequence[Job]) -> None:
  """Refuses configs that could not start, a run after the other.

  Args:
    jobs: those that are to run; of several seeds of a run one is looked at.

  Raises:
    ValueError, FileNotFoundError: naming the run and the key of its config.
  """
  jax.config.update('jax_platforms', 'cpu')  # of this process, not of the runs
  built: dict[str, experiment.Experiment] = {}
  for job in {job.run.name: job for job in jobs}.values():
    for either in job.variants.values() or (job,):
      try:
        _check(either, built)
      except (ValueError, FileNotFoundError) as error:
        raise type(error)(f'runs, {job.run.name!r}: {error}') from None


def _check(job: Job, built: dict[str, experiment.Experiment]) -> None:
  config = settings.complete(dict(job.config))
  for name, section in stream_names.sections(config).items():
    _check_source(f'{stream_names.config_key(name)}.source', section.source)
  if job.parent is None:
    start = config.init_from.path
    _check_path('init_from', 'path', start and os.path.expanduser(start))
  key = _key(job.config)
  if key not in built:
    config.mesh.data, config.mesh.model = -1, 1
    built[key] = experiment.build(
      config,
      LabelSpace.of_count(config.task.num_classes or _NUM_CLASSES),
      spaces={
        name: LabelSpace.of_count(section.num_classes or _NUM_CLASSES)
        for name, section in stream_names.also(config).items()
      },
      num_examples=_NUM_EXAMPLES,
      devices=jax.devices()[:1],
    )
  exp = built[key]
  for name in config.evals:
    _, options = building.checked(config.evals, name)
    stream = evaluate.stream_of(exp, name)
    predict = building.of_stream(exp.predict, stream)
    _check_evaluator(f'evals.{name}', options, exp.spaces[stream], predict)
    try:
      exp.steps(config.evals[name], 'every', default=exp.total_steps)
    except ValueError as error:
      raise ValueError(f'evals.{name}: {error}') from None


def _key(config: Mapping[str, Any]) -> str:
  """Equal for configs of which one build tells all."""
  flat = settings.flat(config)
  kept = {k: v for k, v in flat.items() if within(k, _BUILT_FROM)}
  return json.dumps(kept, sort_keys=True)


def _check_evaluator(
  where: str,
  options: Mapping[str, Any],
  space: LabelSpace,
  predict: Mapping[str, Any],
) -> None:
  for key, value in options.items():
    if isinstance(value, Mapping) and 'type' in value:
      _check_source(f'{where}.{key}', value)
    elif key == 'ops':
      context = OpContext.of_space(space, f'{where}.ops')
      example_ops.build(value, context)
    elif key == 'predict_fn' and value not in predict:
      raise ValueError(
        f'{where}: the task has no prediction {value!r}; valid: '
        f'{", ".join(predict)}'
      )
    elif key in _PATHS:
      _check_path(where, key, value)


def _check_source(where: str, options: Mapping[str, Any]) -> None:
  _, given, _ = pipeline.checked_source(options, where)
  if given.get('build'):
    return  # makes its folder
  for name in _PATHS:
    _check_path(where, name, given.get(name))


def _check_path(where: str, name: str, value: Any) -> None:
  """A plain path leads somewhere; patterns are left to their source."""
  if not isinstance(value, str) or glob.has_magic(value) or '{' in value:
    return
  if not os.path.exists(value):
    raise FileNotFoundError(f'{where}.{name}={value!r}: no such file or folder')
