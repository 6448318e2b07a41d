"""A part of a set that is held out for validation: a function of the path."""

import hashlib
from typing import Annotated

from big_vision_like.config.option_types import Between

# What options call holdout_percent: the part that is held out.
Percent = Annotated[float, Between(0, 100, open='both')]


def held_out(path: bytes, percent: float) -> bool:
  """Whether an image belongs to the held-out part: a function of its path.

  Adding or removing other images never moves it to the other side.
  """
  number = int.from_bytes(hashlib.blake2b(path, digest_size=8).digest())
  return number < percent / 100 * 2**64


def check_split(split: str) -> None:
  """Raises ValueError unless `split` is one that `holdout_percent` makes."""
  if split not in ('train', 'val', 'all'):
    raise ValueError(
      f'unknown split {split!r}; valid with holdout_percent: train, val, all'
    )
