"""A part of a set that is held out for validation: a function of the path."""

import hashlib
from typing import Any


def held_out(path: bytes, percent: float) -> bool:
  """Whether an image belongs to the held-out part: a function of its path.

  Adding or removing other images never moves it to the other side.
  """
  number = int.from_bytes(hashlib.blake2b(path, digest_size=8).digest())
  return number < percent / 100 * 2**64


def check_holdout(percent: Any, split: str) -> None:
  """Checks `holdout_percent` and the split it makes.

  Raises:
    ValueError: not a number between 0 and 100, or an unknown split.
  """
  number = isinstance(percent, int | float) and not isinstance(percent, bool)
  if not number or not 0 < percent < 100:
    raise ValueError(
      f'holdout_percent must be above 0 and below 100, got {percent!r}'
    )
  if split not in ('train', 'val', 'all'):
    raise ValueError(
      f'unknown split {split!r}; valid with holdout_percent: train, val, all'
    )
