"""Rows of different lengths as two flat arrays: labels of images, ancestors.

Known as CSR. A million rows take 8 bytes each and what is in them, are sliced
without a copy, and travel to data workers as quickly as two arrays do. Where
the ends alone are on disk, without the zero before them, see arrays.LabelIndex.
"""

import dataclasses
import itertools
from collections.abc import Iterator

import numpy as np


@dataclasses.dataclass(frozen=True, eq=False)
class Ragged:
  """n rows, one behind the other.

  Attributes:
    ends: int64 [n + 1], from 0 on; row i is values[ends[i]:ends[i + 1]].
    values: [m].
  """

  ends: np.ndarray
  values: np.ndarray

  @classmethod
  def of_lengths(cls, lengths: np.ndarray, values: np.ndarray) -> 'Ragged':
    """Cuts the values into rows of these lengths."""
    return cls(ends_of(lengths), values)

  @classmethod
  def of_pairs(
    cls, rows: np.ndarray, values: np.ndarray, num_rows: int
  ) -> 'Ragged':
    """From pairs in any order; each row is ascending and has repeats."""
    lengths = np.bincount(rows, minlength=num_rows)
    return cls.of_lengths(lengths, values[np.lexsort((values, rows))])

  @classmethod
  def of_unique_pairs(
    cls, rows: np.ndarray, values: np.ndarray, num_rows: int, num_values: int
  ) -> 'Ragged':
    """From pairs in any order; each row is ascending, int32, without repeats.

    Args:
      rows: integer [m] in 0..num_rows-1.
      values: integer [m] in 0..num_values-1.
      num_rows, num_values: of which there are.
    """
    pairs = np.asarray(rows, np.int64) * num_values + values
    owners, found = np.divmod(sorted_unique(pairs), num_values)
    lengths = np.bincount(owners, minlength=num_rows)
    return cls.of_lengths(lengths, found.astype(np.int32))

  def __len__(self) -> int:
    return len(self.ends) - 1

  def __getitem__(self, row: int) -> np.ndarray:
    if row < 0:
      raise IndexError(f'row {row} of {len(self)}')
    return self.values[self.ends[row] : self.ends[row + 1]]

  def __iter__(self) -> Iterator[np.ndarray]:
    for start, end in itertools.pairwise(self.ends.tolist()):
      yield self.values[start:end]

  @property
  def lengths(self) -> np.ndarray:
    """int64 [n]."""
    return np.diff(self.ends)

  @property
  def owners(self) -> np.ndarray:
    """int64 [m] row of each value."""
    return np.repeat(np.arange(len(self)), self.lengths)

  def take(self, rows: np.ndarray) -> 'Ragged':
    """Some rows, in the order given."""
    return self.of_lengths(*self.gather(rows))

  def gather(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(lengths int64 [k], values) of some rows, in the order given."""
    starts = self.ends[rows]
    lengths = self.ends[rows + np.int64(1)] - starts
    return lengths, self.values[positions(starts, lengths)]


def ends_of(lengths: np.ndarray) -> np.ndarray:
  """int64 [n + 1]: 0, and where each of n rows ends."""
  ends = np.zeros(len(lengths) + 1, np.int64)
  np.cumsum(lengths, out=ends[1:])
  return ends


def positions(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
  """starts[i] .. starts[i] + lengths[i] - 1 of all i, in order."""
  shift = starts - (np.cumsum(lengths) - lengths)
  return np.repeat(shift, lengths) + np.arange(lengths.sum())


def sorted_unique(values: np.ndarray) -> np.ndarray:
  """np.unique for nearly sorted integers, several times faster."""
  values = np.sort(values, kind='stable')
  return values[np.diff(values, prepend=values[:1] - 1) != 0]
