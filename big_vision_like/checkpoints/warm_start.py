"""A fresh state that starts from the parameters of a stored checkpoint."""

import dataclasses
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax
from flax.traverse_util import flatten_dict, unflatten_dict

from big_vision_like.checkpoints import reading
from big_vision_like.training.state import TrainState


@dataclasses.dataclass(frozen=True)
class WarmStart:
  """What a warm start did, as parameter names.

  Attributes:
    loaded: taken from the checkpoint.
    reinitialised: as the patterns asked.
    left: in the checkpoint, not used here.
    averages: whether the parameters are the averages (EMA) of the run; None
      where it kept none.
  """

  loaded: tuple[str, ...]
  reinitialised: tuple[str, ...]
  left: tuple[str, ...]
  averages: bool | None = None

  def summary(self) -> str:
    """Three lines for the log, four where the run kept averages."""
    lines = []
    if self.averages is not None:
      taken = 'averages' if self.averages else 'last weights, not the averages'
      lines.append(f'  parameters: the {taken} (init_from.ema={self.averages})')
    for name in ('loaded', 'reinitialised', 'left'):
      names = getattr(self, name)
      shown = ', '.join(names[:3]) + (', ...' if len(names) > 3 else '')
      lines.append(
        f'  {name}: {len(names)} arrays {f"({shown})" if shown else ""}'
      )
    return '\n'.join(lines)


def warm_start(
  state: TrainState,
  path: pathlib.Path,
  reinit: Sequence[str],
  *,
  ema: bool = True,
  part: str | None = None,
) -> tuple[TrainState, WarmStart]:
  """Parameters and batch statistics of a checkpoint into a fresh state.

  Args:
    state: freshly initialised, placed on the mesh; step and slots stay fresh.
    path: checkpoint folder of one step, from `find`.
    reinit: patterns of parameter names ('head/.*') that keep their fresh
      values; checkpoint arrays of such names are left.
    ema: take the averages (EMA) of the parameters and of the batch statistics
      where the run kept them, as evaluations do; else both as trained.
    part: of the joint task that the checkpoint is of: its heads are taken as
      those of a run of this part alone, and those of other parts are left.

  Raises:
    ValueError: an array is missing, superfluous or of another shape and no
      pattern allows it.
    DamagedError: the checkpoint cannot be read.
  """
  problems: list[str] = []
  loaded: list[str] = []
  fresh: list[str] = []
  left: list[str] = []
  allowed = lambda name: any(re.fullmatch(p, name) for p in reinit)
  has_averages = reading.stored_averages(path) is not None
  values = {}
  for item in ('params', 'extra'):
    target = getattr(state, item)
    here, stored = reading.shapes(target), reading.stored_shapes(path, item)
    names = {name: name for name in stored}
    if part is not None:
      names = _of_part(part, stored, item)
      left += sorted(stored.keys() - {*names.values()})
    there = {name: stored[old] for name, old in names.items()}
    taken: dict[str, str] = {}
    for name in sorted(here.keys() | there.keys()):
      if allowed(name):
        (fresh if name in here else left).append(name)
      elif here.get(name) == there.get(name):
        loaded.append(name)
        taken[name] = names[name]
      else:
        problems.append(
          f'  {name}: {there.get(name, "absent")} in the checkpoint, '
          f'{here.get(name, "absent")} in the model'
        )
    average = {'params': 'ema', 'extra': 'ema_extra'}[item]
    if problems:
      values[item] = target
    elif ema and reading.stored_averages(path, average) is not None:
      taken = {name: f'{average}/{old}' for name, old in taken.items()}
      values[item] = _load(target, path, 'train', taken)
    else:
      values[item] = _load(target, path, item, taken)
  for pattern in reinit:
    if not any(re.fullmatch(pattern, name) for name in (*fresh, *left)):
      problems.append(f'  init_from.reinit: {pattern!r} matches no array')
  if problems:
    raise ValueError(
      f'init_from.path={str(path)!r} does not fit; name what may differ in '
      f'init_from.reinit (now {list(reinit)}):\n' + '\n'.join(problems[:10])
    )
  if state.ema is not None:
    values['ema'] = jax.tree.map(lambda x: x.copy(), values['params'])
  if state.ema_extra is not None:
    values['ema_extra'] = jax.tree.map(lambda x: x.copy(), values['extra'])
  averages = ema if has_averages else None
  report = WarmStart(tuple(loaded), tuple(fresh), tuple(left), averages)
  return state.replace(**values), report


def _of_part(part: str, stored: Mapping[str, Any], item: str) -> dict[str, str]:
  """Name in a run of the part alone -> name in the joint checkpoint.

  Raises:
    ValueError: the checkpoint has no such part.
  """
  prefix = f'{part}/'
  own = {
    name.removeprefix(prefix): name
    for name in stored
    if name.startswith(prefix)
  }
  if item == 'extra':  # the part's own batch statistics, or those of all
    return own or {name: name for name in stored}
  if not own or part == 'backbone':
    others = dict.fromkeys(name.partition('/')[0] for name in stored)
    others.pop('backbone', None)
    raise ValueError(
      f'init_from.part={part!r}: the checkpoint has no part of that name; '
      f'beside the backbone it has {", ".join(others) or "nothing"}'
    )
  shared = {name: name for name in stored if name.startswith('backbone/')}
  return shared | own


def _load(
  target: Any, path: pathlib.Path, item: str, names: Mapping[str, str]
) -> Any:
  """`target` with arrays of a checkpoint: name here -> name there."""
  flat = flatten_dict(target, sep='/', keep_empty_nodes=True)
  asked = unflatten_dict({old: flat[name] for name, old in names.items()}, '/')
  read = reading.load_into(asked, path, item, list(names.values()))
  found = flatten_dict(read, sep='/')
  return unflatten_dict(
    {**flat, **{name: found[old] for name, old in names.items()}}, '/'
  )
