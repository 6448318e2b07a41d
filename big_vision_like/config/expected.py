"""`config.expected`: the figures that a run should reach.

A pair (low, high) is what runs of other seeds on several machines reached; a
number is a published figure of one run, of which the spread is not known.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any


def check(expected: Mapping[str, Any]) -> None:
  """Raises ValueError naming a figure that is neither number nor range."""
  for name, value in expected.items():
    pair = value if _is_range(value) else (value, value)
    numbers = [isinstance(n, int | float) and math.isfinite(n) for n in pair]
    if len(pair) != 2 or not all(numbers) or pair[0] > pair[1]:
      raise ValueError(
        f"config key 'expected.{name}' must be a range (low, high) or a "
        f'number, got {value!r}'
      )


def shown(value: Any) -> str:
  """'60.8 to 64.2', or 'about 79.2' of one number."""
  if _is_range(value):
    return f'{value[0]:g} to {value[1]:g}'
  return f'about {value:g}'


def verdict(got: float | None, value: Any) -> str:
  """How a figure compares: 'in the range expected, 60.8 to 64.2'."""
  if got is None:
    return f'no figure, {shown(value)} expected'
  if not _is_range(value):
    return f'{got:.4g}, {shown(value)} expected'
  low, high = value
  if low <= got <= high:
    return f'{got:.4g}, in the range expected, {shown(value)}'
  side = 'below' if got < low else 'above'
  return f'{got:.4g}, {side} the range expected, {shown(value)}'


def _is_range(value: Any) -> bool:
  return isinstance(value, Sequence) and not isinstance(value, str)
