"""What the header of exported weights says of the net, written and read.

No array shows where a net has its strides or how it wants its pixels. An
exported safetensors file says so in its header, key by key of the config; a
file of torchvision or timm does not, and is of their layout. The header is a
stranger's text like the rest of a file: keys outside the tables here are passed
over, and every value is checked as that of a config is.
"""

import json
from collections.abc import Mapping
from typing import Any

from big_vision_like.config import json_text
from configs import common

# Options of the net that no array shows, besides torch_weights.LAYOUT.
_NUMBERS = {'model.output_stride': int, 'model.bn_epsilon': float}
_WORDS = ('model.compute_dtype', 'model.conv')
_PREPROCESSING = 'preprocessing'
_TASKS = {  # scores -> task that learns them, and the op of its labels
  'softmax': ('softmax', {'op': 'single_label'}),
  'sigmoid': ('multilabel', common.multilabel()),
}


def notes(
  config: Any, ops: list[dict[str, Any]], scores: str
) -> dict[str, str]:
  """The part of the header that `into_config` reads.

  Args:
    config: of the model, complete.
    ops: its preprocessing, without chance and labels.
    scores: 'softmax' or 'sigmoid'.
  """
  from big_vision_like.checkpoints import torch_weights

  keys = (*torch_weights.LAYOUT, *_NUMBERS, *_WORDS)
  return {
    **{key: str(option(config, key)) for key in keys},
    _PREPROCESSING: json.dumps(ops),
    'scores': scores,
  }


def into_config(config: Any, notes: Mapping[str, str], source: str) -> None:
  """Makes a config in torch's layout that of the net in a file.

  Args:
    config: unlocked; changed in place.
    notes: the file's header; without a word of ours nothing is changed.
    source: path of the file, for messages.

  Raises:
    ValueError: a value of the header that cannot be, naming its key.
  """
  from big_vision_like.checkpoints import torch_weights

  for key in (*torch_weights.LAYOUT, *_NUMBERS, *_WORDS):
    if key in notes:
      section, _, name = key.partition('.')
      config[section][name] = _value(key, notes[key], source)
  if 'scores' in notes:
    kind = notes['scores']
    if kind not in _TASKS:
      raise _refusal(source, 'scores', kind, f'valid: {", ".join(_TASKS)}')
    task, label = _TASKS[kind]
    if task != config.task.type:
      kept = {k: config.task[k] for k in ('num_classes', 'pixels')}
      config.task = dict(kept, type=task)
      config.evals = {}  # those of single labels
    old = [op for op in config.input.ops if op['op'] != 'single_label']
    ops = _ops(notes, source)
    config.input.ops = [*(old if ops is None else ops), label]
    for evaluator in config.evals.values() if ops else ():
      evaluator.ops = config.input.ops


def option(config: Any, key: str) -> Any:
  """The option `section.name`, or its default where the config is silent."""
  from big_vision_like.config import plugins

  section, _, name = key.partition('.')
  node = config[section]
  return plugins.option(plugins.get(section, node.type), node, name)


def _value(key: str, text: str, source: str) -> Any:
  """Words are checked by the plug-in that they configure."""
  kind = _NUMBERS.get(key, str)
  try:
    return kind(text)
  except ValueError:
    raise _refusal(source, key, text, f'no {kind.__name__}') from None


def _ops(notes: Mapping[str, str], source: str) -> list[dict[str, Any]] | None:
  """The preprocessing: ops of ours only, none with chance; None if not told."""
  from big_vision_like.inference import embedder
  from input_pipeline.ops import OPS

  if _PREPROCESSING not in notes:
    return None
  text = notes[_PREPROCESSING]
  try:
    ops = json_text.parse(text)
    unknown = [op['op'] for op in ops if op['op'] not in OPS]
    if unknown:  # a file from anywhere must not name code to import
      raise ValueError(
        f'what {unknown[0]!r} is without chance is not known: no op of ours'
      )
    if embedder.deterministic_ops(ops) != ops:
      raise ValueError('ops with chance')
  except (ValueError, TypeError, KeyError) as error:
    raise _refusal(source, _PREPROCESSING, text, str(error)) from None
  return ops


def _refusal(source: str, key: str, text: str, reason: str) -> ValueError:
  return ValueError(f'{source}: header, {key}={text!r:.80}: {reason}')
