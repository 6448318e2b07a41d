"""Nested random subsets of a source, without copies or index lists.

The paper trains on random subsets of 10M, 30M and 100M images (section 5.2).
Here the subset of m records is the first m positions of one fixed random
permutation of all of them: 10M lies within 30M, in O(1) memory and time.
"""

from collections.abc import Mapping
from typing import Any

import grain
import numpy as np

_SEED = 1707  # of the one permutation that all subsets are prefixes of


class Subset:
  """The records of a source that a fraction keeps; itself a source."""

  def __init__(self, source: Any, fraction: float):
    self._source = source
    self._fraction = fraction
    self._num = max(round(len(source) * fraction), 1)
    self._order = grain.MapDataset.range(len(source)).seed(_SEED).shuffle()
    self.vocabulary = source.vocabulary
    self.hierarchy = source.hierarchy

  def __len__(self) -> int:
    return self._num

  def __getitem__(self, index: int) -> dict[str, Any]:
    return self._source[self._original(index)]

  def key(self, index: int) -> str:
    """Name of the record in the whole source."""
    return self._source.key(self._original(index))

  def labels(self, index: int) -> np.ndarray:
    """Raw label ids, without decoding where the source can."""
    original = self._original(index)
    if hasattr(self._source, 'labels'):
      return self._source.labels(original)
    return np.asarray(self._source[original]['labels'], np.int32)

  def fingerprint(self) -> str:
    """That of the whole source and the fraction."""
    return f'{self._source.fingerprint()}*{self._fraction!r}'

  def _original(self, index: int) -> int:
    if not 0 <= index < self._num:
      raise IndexError(f'record {index} of {self._num}')
    original = self._order[index]
    assert original is not None
    return int(original)


def take(source: Any, fraction: float, where: str = 'input.fraction') -> Any:
  """The source, or the subset of it that a fraction in (0, 1] keeps.

  Raises:
    ValueError: a fraction outside (0, 1].
  """
  if not 0 < fraction <= 1:
    raise ValueError(f'{where}={fraction} must be in (0, 1]')
  return source if fraction == 1 else Subset(source, fraction)


def select(source: Any, options: Mapping[str, Any], where: str) -> Any:
  """The records and labels of a source that `options` choose; see Options.

  Raises:
    ValueError: unknown option or invalid value; names `where`.
  """
  if options:
    raise ValueError(f'{where}: unknown option {next(iter(options))!r}')
  return source
