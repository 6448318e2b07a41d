"""The formats of checkpoints: what each holds, and how older ones are read.

The key `format` of the item `meta` has the number; the first had none.

1: optimizer slots under names of ours, `ms` (mean square) and `mom` (momentum).
2: optimizer slots under optax's names; an `extra` of no arrays is stored as
   the one array of `EMPTY`, since Orbax does not store a tree of none.
"""

import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from big_vision_like.training.optim import OptState

NUMBER = 2
KEY = 'format'
EMPTY = {'no_arrays': np.zeros((), np.int32)}

# (stage of the rule, field of optax's state) -> slot of format 1.
_SLOTS_1 = {
  ('rms', 'nu'): 'ms',
  ('momentum', 'trace'): 'mom',
  ('adam', 'mu'): 'mom',
  ('adam', 'nu'): 'ms',
}


def number_of(meta: Mapping[str, Any]) -> int:
  """The format of the checkpoint with this meta item."""
  return meta.get(KEY, 1)


def check(meta: Mapping[str, Any], path: pathlib.Path) -> None:
  """Raises ValueError where this code does not know the checkpoint's format."""
  number = number_of(meta)
  if not isinstance(number, int) or not 1 <= number <= NUMBER:
    raise ValueError(
      f'checkpoint {path} is of format {number!r}, written by a newer version '
      f'of this code, which knows formats 1 to {NUMBER}; update it'
    )


def as_stored(opt_state: Any, number: int) -> Any:
  """An optimizer state (of shapes, say) as a format lays it out."""
  if number >= 2:
    return opt_state
  slots = {
    name: getattr(opt_state.slots[stage], field)
    for (stage, field), name in _SLOTS_1.items()
    if stage in opt_state.slots
  }
  return OptState(opt_state.count, slots)


def from_stored(stored: Any, like: Any, number: int) -> Any:
  """The inverse of `as_stored`: `stored` laid out as the state `like`."""
  if number >= 2:
    return stored
  slots = dict(like.slots)
  for (stage, field), name in _SLOTS_1.items():
    if stage in slots:
      slots[stage] = slots[stage]._replace(**{field: stored.slots[name]})
  if 'adam' in slots:  # which counts for itself, in a buffer of its own
    slots['adam'] = slots['adam']._replace(count=stored.count.copy())
  return OptState(stored.count, slots)


def without_marker(extra: Any) -> Any:
  """A stored `extra`, or the empty tree that `EMPTY` stands for."""
  return {} if isinstance(extra, Mapping) and [*extra] == [*EMPTY] else extra


def with_marker(extra: Any) -> Any:
  """What is stored for `extra`."""
  return extra if jax.tree.leaves(extra) else EMPTY
