"""Durations in a config: steps, epochs, examples or percent -> steps.

A config says `warmup_epochs=5` or `every_percent=10`, whichever reads best;
the name's suffix is the unit. One of the four is given, never two.
"""

import math
from collections.abc import Mapping
from types import EllipsisType
from typing import Any

UNITS = ('steps', 'epochs', 'examples', 'percent')


def keys(name: str) -> tuple[str, ...]:
  """The keys that can hold the duration `name`: name_steps, name_epochs, ..."""
  return tuple(f'{name}_{unit}' for unit in UNITS)


def find(config: Mapping[str, Any], name: str) -> str | None:
  """The one key of `config` that holds the duration `name`; None if none does.

  Keys whose value is None count as absent.

  Raises:
    ValueError: more than one of them is given.
  """
  given = [k for k in keys(name) if k in config and config[k] is not None]
  if len(given) > 1:
    # Only of the length of a run is 0 never meant (see settings.complete).
    drop = '; 0 takes one away: ' if name == 'total' else ''
    if drop:
      drop += ' or '.join(f'--config.{k}=0' for k in given)
    raise ValueError(
      f'{" and ".join(given)} are given for the same duration: keep one{drop}'
    )
  return given[0] if given else None


def steps(
  config: Mapping[str, Any],
  name: str,
  *,
  batch_size: int,
  num_examples: int | None = None,
  total_steps: int | None = None,
  default: int | EllipsisType | None = ...,
) -> Any:
  """Reads name_steps, name_epochs, name_examples or name_percent as steps.

  Args:
    config: mapping that holds exactly one of the four keys.
    name: name of the duration, such as 'warmup' or 'every'.
    batch_size: examples a step.
    num_examples: examples an epoch; needed for epochs.
    total_steps: steps of the whole run; needed for percent.
    default: returned when none of the keys is given; `...`: one is required.

  Returns:
    int >= 0, rounded to the nearest step; a duration above zero is at least
    one step. `default` as it is when nothing is given.

  Raises:
    ValueError: none, several, or an impossible value; the key is named.
  """
  key = find(config, name)
  if key is None:
    if default is ...:
      raise ValueError(f'missing duration {name!r}: give {_one_of(name)}')
    return default
  return to_steps(
    config[key],
    key,
    batch_size=batch_size,
    num_examples=num_examples,
    total_steps=total_steps,
  )


def to_steps(
  value: float,
  key: str,
  *,
  batch_size: int,
  num_examples: int | None = None,
  total_steps: int | None = None,
) -> int:
  """Converts one value whose unit is the last word of `key`.

  Raises:
    ValueError: not a number, negative, not finite, a fraction of a step, more
      than 100 percent, or a unit that cannot be converted here.
  """
  unit = key.rpartition('_')[2]
  number = isinstance(value, int | float) and not isinstance(value, bool)
  if not number or not math.isfinite(value) or value < 0:
    raise ValueError(f'{key} must be a number of at least 0, got {value!r}')
  if unit == 'steps':
    if value != int(value):
      raise ValueError(f'{key} must be a whole number, got {value!r}')
    return int(value)
  if unit == 'percent' and value > 100:
    raise ValueError(f'{key} must be at most 100, got {value!r}')
  if unit == 'epochs':
    count = value * _known(num_examples, key, 'number of examples')
    exact = count / batch_size
  elif unit == 'examples':
    exact = value / batch_size
  elif unit == 'percent':
    exact = value * _known(total_steps, key, 'total number of steps') / 100
  else:
    raise ValueError(f'{key} must end in one of {", ".join(UNITS)}')
  return max(round(exact), 1) if value > 0 else 0


def _known(number: int | None, key: str, what: str) -> int:
  if number is None:
    raise ValueError(f'{key} cannot be used here: the {what} is not known')
  return number


def _one_of(name: str) -> str:
  return f'one of {", ".join(keys(name))}'
