"""Experiments of a module of tests, each built once: its runs share programs.

A train step takes a second or two to trace, lower and load, whatever it costs
to run; most runs of tests differ only in what no program knows of: where they
start, when they save, what is evaluated. Tests that change a program from
without (a patched loss) must build their own: see `programs_built_anew`.
"""

import collections
import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

from big_vision_like import experiment
from big_vision_like.config import durations, settings
from big_vision_like.config.stream_names import MAIN
from big_vision_like.experiment import Experiment
from input_pipeline.labels.space import LabelSpace

# What `experiment.build` does not read.
_UNREAD = (
  'ckpt', 'evals', 'expected', 'init_from', 'log_every_steps',
  'on_eval_error', 'profile', 'resume',
)  # fmt: skip
_UNREAD_OF_INPUT = ('workers', 'threads', 'prefetch', 'timeout_s')
_MOST = 8  # that are kept; the oldest goes

build_anew = experiment.build
_kept: collections.OrderedDict[str, Experiment] = collections.OrderedDict()


def build(
  config: Any,
  space: LabelSpace | None = None,
  *,
  spaces: Mapping[str, LabelSpace] | None = None,
  num_examples: int | None = None,
  devices: Sequence[Any] | None = None,
) -> Experiment:
  """As `experiment.build`; the programs are those of an equal one before."""
  config = settings.complete(config)
  given = dict(spaces=spaces, num_examples=num_examples, devices=devices)
  key = _key(config, {**(spaces or {}), MAIN: space}, num_examples, devices)
  if key not in _kept:
    _kept[key] = build_anew(config, space, **given)
  _kept.move_to_end(key)
  if len(_kept) > _MOST:
    _kept.popitem(last=False)
  return dataclasses.replace(
    _kept[key],
    config=config,
    num_examples=num_examples,
    total_steps=durations.steps(
      config,
      'total',
      batch_size=config.input.batch_size,
      num_examples=num_examples,
    ),
  )


def forget() -> None:
  """Lets go of all programs."""
  _kept.clear()


def _key(
  config: Any,
  spaces: Mapping[str, LabelSpace | None],
  num_examples: int | None,
  devices: Sequence[Any] | None,
) -> str:
  """All that programs may depend on, as text."""
  read = json.loads(settings.to_json(config))
  for name in _UNREAD:
    del read[name]
  for name in _UNREAD_OF_INPUT:
    del read['input'][name]
  if read['schedule'].get('type') == 'constant':
    for name in settings.LENGTH:
      del read[name]
    num_examples = None
  known = {name: space and space.digest() for name, space in spaces.items()}
  return json.dumps([read, known, num_examples, str(devices)], sort_keys=True)
