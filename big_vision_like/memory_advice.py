"""Does a run fit the memory of a device, and which keys would make it.

Every figure comes from planning again with the change made; what the config
refuses, such as a batch that the devices no longer divide, is not proposed.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from big_vision_like.config import settings, stream_names
from big_vision_like.config.settings import Config

Changes = dict[str, Any]  # dotted key -> value


class Planned(Protocol):
  """The figures of a plan that count here, bytes per device."""

  @property
  def device_bytes(self) -> int: ...

  @property
  def activation_bytes(self) -> int: ...


def lines(
  config: Config,
  planned: Planned,
  mesh_shape: Mapping[str, int],
  plan: Callable[[Config], Planned],
) -> list[str]:
  """The verdict, and for a run that does not fit what each change saves.

  Args:
    config: complete config with plan.device_memory_gib.
    planned: its plan.
    mesh_shape: size of each mesh axis.
    plan: config -> its plan; ValueError for one that cannot be.
  """
  gib = config.plan.device_memory_gib
  limit = gib * 2**30
  free = limit - planned.device_bytes
  if free >= 0:
    return [f'fits {gib:g} GiB a device, {_gib(free)} free for temporaries']
  excess = -free
  found: list[tuple[int, Changes, bool]] = []
  for changes in _candidates(config, planned, mesh_shape, excess):
    needed = _needed(config, changes, plan)
    if needed is not None and needed < planned.device_bytes:
      found.append((needed, changes, needed <= limit))
  found.sort(key=lambda entry: entry[0])
  out = [
    f'does not fit {gib:g} GiB a device: {_gib(excess)} too much',
    'what one change gives, planned again with it',
  ]
  for needed, changes, fits in found:
    saving = planned.device_bytes - needed
    out.append(
      f'  {describe(changes):40s} saves {_gib(saving)}: {_gib(needed)}, '
      f'{_verdict(fits)}'
    )
  if not any(fits for *_, fits in found):
    out += _together(config, [c for _, c, _ in found], plan, limit)
  return out


def _candidates(
  config: Config,
  planned: Planned,
  mesh_shape: Mapping[str, int],
  excess: float,
) -> list[Changes]:
  """One set of changes for each key that bears on memory."""
  data, model = mesh_shape['data'], mesh_shape['model']
  out: list[Changes] = []
  if not config.model.get('remat', False):
    out.append({'model.remat': True})
  if config.model.get('compute_dtype') != 'bfloat16':
    out.append({'model.compute_dtype': 'bfloat16'})
  accum, batch = config.train.accum_steps, config.input.batch_size
  sizes = [s.batch_size for s in stream_names.sections(config).values()]
  images = math.gcd(*sizes) // accum
  factor = _factor(planned.activation_bytes, excess, images, mesh_shape)
  if factor > 1:
    out.append({'train.accum_steps': accum * factor})
    out.append({'input.batch_size': batch // factor})
  if data % 2 == 0:
    wider: Changes = {'mesh.model': 2 * model}
    if config.mesh.data != -1:
      wider['mesh.data'] = data // 2
    multiple = config.task.get('class_multiple', 1)
    if multiple % (2 * model):
      wider['task.class_multiple'] = math.lcm(multiple, 2 * model)
    out.append(wider)
  if data > 1 and not config.mesh.shard_slots:
    out.append({'mesh.shard_slots': True})
  return out


def _factor(
  activations: int, excess: float, images: int, mesh_shape: Mapping[str, int]
) -> int:
  """Power of 2 by which to cut the images of a part of a step.

  The smallest that should do, or else the largest that the devices divide.
  """
  most = images // math.prod(mesh_shape.values())
  factor = 1
  while most % (2 * factor) == 0 and activations * (1 - 1 / factor) < excess:
    factor *= 2
  return factor


def _together(
  config: Config,
  proposed: list[Changes],
  plan: Callable[[Config], Planned],
  limit: float,
) -> list[str]:
  """Adds changes, the largest saving first, until the run fits.

  A smaller batch is left out: unlike the others it is another training.
  """
  changes: Changes = {}
  needed = None
  for more in proposed:
    if 'input.batch_size' in more:
      continue
    now = _needed(config, {**changes, **more}, plan)
    if now is None or (needed is not None and now >= needed):
      continue
    changes, needed = {**changes, **more}, now
    if needed <= limit:
      break
  if needed is None:
    return []
  return [
    'together',
    f'  {describe(changes)}: {_gib(needed)}, {_verdict(needed <= limit)}',
  ]


def _needed(
  config: Config, changes: Changes, plan: Callable[[Config], Planned]
) -> int | None:
  """Bytes per device with the changes; None where the config refuses them."""
  try:
    return plan(changed(config, changes)).device_bytes
  except ValueError:
    return None


def changed(config: Config, changes: Changes) -> Config:
  """A copy of a complete config with the changes made."""
  copy = settings.complete(config)
  with copy.unlocked():
    copy.update_from_flattened_dict(changes)
  return copy


def describe(changes: Changes) -> str:
  """'a.b=1 c=2', as the keys are given on the command line."""
  return ' '.join(f'{name}={value!r}' for name, value in changes.items())


def _gib(num_bytes: float) -> str:
  return f'{num_bytes / 2**30:.3f} GiB'


def _verdict(fits: bool) -> str:
  return 'fits' if fits else 'does not fit'
