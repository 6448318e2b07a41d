"""Whether stored maps are those that a run's frozen part would give.

They are if its weights and statistics, its options and what the ops make of an
image are those that the maps were computed with.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from big_vision_like.config import plugins
from big_vision_like.protocols import ComputedBy, Op, Source
from input_pipeline import pipeline
from input_pipeline.ops.without_chance import deterministic_ops

OP = 'feature_map'
# Options of a model that change nothing where it is frozen.
_OF_TRAINING = ('freeze', 'remat', 'conv', 'bn', 'bn_group', 'bn_decay')


def digests(arrays: Mapping[str, Any]) -> dict[str, str]:
  """Name -> digest of each array, as a manifest holds them."""
  return {name: _digest(value) for name, value in sorted(arrays.items())}


def net(config: Any) -> dict[str, Any]:
  """The options of a run that its maps follow from, defaults filled in."""
  model = plugins.get('model', config.model.type)
  of_model = {
    name: plugins.option(model, config.model, name)
    for name in sorted(plugins.option_names(model)[0])
    if name not in _OF_TRAINING
  }
  task = plugins.get('task', config.task.type)
  pixels = plugins.option(task, config.task, 'pixels')
  found = {'model.type': config.model.type, 'task.pixels': pixels}
  found |= {f'model.{name}': value for name, value in of_model.items()}
  return _plain(found)


def preprocessing(specs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
  """What op configs make of an image, without chance."""
  return _plain(deterministic_ops([dict(op) for op in specs]))


def check_ops(
  settings: Mapping[str, Any], specs: Sequence[Mapping[str, Any]], where: str
) -> None:
  """Refuses ops that see images otherwise than those of the maps did.

  Args:
    settings: of the manifest.
    specs: op configs.
    where: their config key.

  Raises:
    ValueError: naming the first op that differs.
  """
  if all(op['op'] != OP for op in specs):
    raise ValueError(
      f'{where}: the data are feature maps, whose images are blanks; the op '
      f'{OP!r} must come last, and the task read block3_map'
    )
  here, there = preprocessing(specs), settings['ops']
  for number in range(max(len(here), len(there))):
    pair = [ops[number] if number < len(ops) else None for ops in (here, there)]
    if pair[0] != pair[1]:
      raise ValueError(
        f'{where}: the maps were computed with other ops: {pair[1]} there, '
        f'{pair[0]} here (op {number} of those without chance that make the '
        'image)'
      )


def build_ops(
  specs: Sequence[Mapping[str, Any]], source: Source, where: str
) -> list[Op]:
  """`pipeline.build_ops` for training and evaluation.

  Raises:
    ValueError: see there; or a source of feature maps and other ops than those
      that they were computed with.
  """
  if isinstance(source, ComputedBy):
    source.check_ops(specs, where)
  return pipeline.build_ops(specs, source, where)


def check_net(source: Any, config: Any, where: str) -> None:
  """Refuses maps of a net with other options than a run's.

  Args:
    source: any; only maps are compared.
    config: of the run, complete.
    where: config key of the source.

  Raises:
    ValueError: listing the options that differ.
  """
  there = source.computed_by if isinstance(source, ComputedBy) else {}
  if not there:
    return
  here = net(config)
  differ = [
    f'  {name}: {there["net"].get(name)!r} there, {here.get(name)!r} here'
    for name in sorted({*here, *there['net']})
    if here.get(name) != there['net'].get(name)
  ]
  if differ:
    raise ValueError(
      f'{where}: the maps were computed by another net:\n' + '\n'.join(differ)
    )


def check_weights(source: Any, params: Any, extra: Any, where: str) -> None:
  """Refuses maps that other weights have made.

  Args:
    source: any; only maps are compared.
    params, extra: of a state, nested dicts.
    where: config key of the source.

  Raises:
    ValueError: naming the first array that differs.
  """
  there = source.computed_by if isinstance(source, ComputedBy) else {}
  for name, digest in there.get('weights', {}).items():
    value: Any = {'params': params, 'extra': extra}
    for part in name.split('/'):
      value = value.get(part) if isinstance(value, Mapping) else None
    if value is None or _digest(value) != digest:
      raise ValueError(
        f'{where}: the maps were computed by another checkpoint, '
        f'{there["checkpoint"]!r}: {name} '
        f'{"is not in this net" if value is None else "differs"}'
      )


def _digest(value: Any) -> str:
  array = np.ascontiguousarray(value)
  head = f'{array.dtype}{array.shape}'.encode()
  return hashlib.sha256(head + array.tobytes()).hexdigest()[:16]


def _plain(value: Any) -> Any:
  """As JSON has it: what is compared with what was read."""
  return json.loads(json.dumps(value))
