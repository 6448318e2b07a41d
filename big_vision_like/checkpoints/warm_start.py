"""A fresh state that starts from the parameters of a stored checkpoint."""

import dataclasses
import pathlib
import re
from collections.abc import Sequence

import jax

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
) -> tuple[TrainState, WarmStart]:
  """Parameters and batch statistics of a checkpoint into a fresh state.

  Args:
    state: freshly initialised, placed on the mesh; step and slots stay fresh.
    path: checkpoint folder of one step, from `find`.
    reinit: patterns of parameter names ('head/.*') that keep their fresh
      values; checkpoint arrays of such names are left.
    ema: take the averages (EMA) of the parameters and of the batch statistics
      where the run kept them, as evaluations do; else both as trained.

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
    here, there = reading.shapes(target), reading.stored_shapes(path, item)
    for name in sorted(here.keys() | there.keys()):
      if allowed(name):
        (fresh if name in here else left).append(name)
      elif here.get(name) == there.get(name):
        loaded.append(name)
      else:
        problems.append(
          f'  {name}: {there.get(name, "absent")} in the checkpoint, '
          f'{here.get(name, "absent")} in the model'
        )
    average = {'params': 'ema', 'extra': 'ema_extra'}[item]
    if problems:
      values[item] = target
    elif ema and reading.stored_averages(path, average) is not None:
      names = [f'{average}/{name}' for name in loaded]
      values[item] = reading.load_into({average: target}, path, 'train', names)[
        average
      ]
    else:
      values[item] = reading.load_into(target, path, item, loaded)
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
