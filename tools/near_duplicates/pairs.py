"""Lists of pairs: the nearest few of each query, groups of connected ones."""

import dataclasses

import numpy as np

_LIMIT = 1 << 22  # pairs held before the far ones are let go


@dataclasses.dataclass
class Pairs:
  """Columns of equal length.

  Attributes:
    query, found: int64 [m], rows.
    mirrored: bool [m], whether the query was mirrored.
    closeness: float32 [m], higher is closer.
  """

  query: np.ndarray
  found: np.ndarray
  mirrored: np.ndarray
  closeness: np.ndarray

  def __len__(self) -> int:
    return len(self.query)

  def take(self, rows: np.ndarray) -> 'Pairs':
    """Some of the pairs."""
    return Pairs(
      *(getattr(self, f.name)[rows] for f in dataclasses.fields(self))
    )

  @classmethod
  def join(cls, parts: 'list[Pairs]') -> 'Pairs':
    """All pairs of a list."""
    return cls(
      *(
        np.concatenate(
          [np.empty(0, kind), *(getattr(part, name) for part in parts)]
        )
        for name, kind in COLUMNS.items()
      )
    )


COLUMNS = {
  'query': np.int64,
  'found': np.int64,
  'mirrored': np.bool_,
  'closeness': np.float32,
}


class Nearest:
  """Keeps the `cap` closest of each query; what was let go is counted.

  A pair that comes again (several windows of a query look for the same one) is
  kept once, as close as it was at best.

  Of equally close ones those with the lowest row stay, so that identical
  images stay connected through the first of them. Thousands of blank images
  would else make millions of pairs.
  """

  def __init__(self, cap: int):
    self._cap = cap
    self._parts: list[Pairs] = []
    self._num = 0
    self.num_dropped = 0

  def add(self, pairs: Pairs) -> None:
    self._parts.append(pairs)
    self._num += len(pairs)
    if self._num > _LIMIT:
      kept = self._compress()
      # If hardly any could go, look again only after as many have come.
      self._parts, self._num = [kept], min(len(kept), _LIMIT // 2)

  def result(self) -> Pairs:
    """By query, the closest first."""
    self._parts = [self._compress()]
    return self._parts[0]

  def _compress(self) -> Pairs:
    pairs = _once(Pairs.join(self._parts))
    order = np.lexsort((pairs.found, -pairs.closeness, pairs.query))
    pairs = pairs.take(order)
    rank = np.arange(len(pairs)) - first_rows(pairs.query)
    keep = rank < self._cap
    self.num_dropped += int((~keep).sum())
    return pairs.take(np.flatnonzero(keep))


def _once(pairs: Pairs) -> Pairs:
  """Each (query, found, mirrored) once, as close as it was at best."""
  order = np.lexsort(
    (-pairs.closeness, pairs.mirrored, pairs.found, pairs.query)
  )
  pairs = pairs.take(order)
  fresh = np.ones(len(pairs), bool)
  fresh[1:] = (
    (np.diff(pairs.query) != 0)
    | (np.diff(pairs.found) != 0)
    | (pairs.mirrored[1:] != pairs.mirrored[:-1])
  )
  return pairs if fresh.all() else pairs.take(np.flatnonzero(fresh))


def first_rows(values: np.ndarray) -> np.ndarray:
  """int64 [n]: for sorted values, where the run of each begins."""
  starts = np.flatnonzero(np.diff(values, prepend=values[:1] - 1))
  return np.repeat(starts, np.diff(starts, append=len(values)))


def first_of_groups(a: np.ndarray, b: np.ndarray) -> dict[int, int]:
  """Row -> the lowest row that it is connected to, for all rows of pairs.

  Args:
    a, b: int [m], connected rows.
  """
  parent: dict[int, int] = {}

  def root(row: int) -> int:
    parent.setdefault(row, row)
    while parent[row] != row:
      parent[row] = parent[parent[row]]
      row = parent[row]
    return row

  for left, right in zip(a.tolist(), b.tolist()):
    low, high = sorted((root(left), root(right)))
    parent[high] = low
  return {row: root(row) for row in parent}
