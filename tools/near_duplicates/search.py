"""Candidates: pairs of records with near hashes or near vectors.

A search is a table queries x database of chunks, done in units that fit into a
memory budget: some cells of some query chunks against the same cells of some
database chunks. The candidates of a unit are one file of the state folder, so a
search that was stopped goes on with the next unit. What was searched is noted;
a later call with more chunks searches only pairs with a new one.

Crops are looked for both ways: windows of the queries among the database, and
windows of the database among the queries. Windows only look; the members of
cells are whole images.
"""

import dataclasses
import functools
import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from . import hashes, pairs
from .cells import Cells, OneCell, Sorted
from .chunks import Chunk, digest, first_rows, places
from .pairs import Nearest, Pairs
from .signatures import Signatures
from .state import State
from .windows import WINDOWS, Window

EXACT_BELOW = 10**10  # comparisons; above, cells
CROPS_BELOW = 10**14  # above, windows cost more than decoding all images
_BLOCK = (1 << 10, 1 << 13)  # queries x members of one product
_HASH_BYTES = 64  # of memory a record, with the index
_DONE = 'done.json'
_WINDOWS = 'windows'  # of queries, near to whole images of the database
_BACK = 'windows back'  # of the database, near to queries


@dataclasses.dataclass(frozen=True)
class Options:
  """What counts as near.

  Attributes:
    hash_distance: most bits that hashes may differ in, or None.
    cosine: least cosine of vectors, or None.
    mirrored: whether mirror images count too.
    within: queries and database are one set of records; a record is not
      compared with itself.
    method: 'exact', 'cells', or 'auto': by the number of comparisons.
    probes: cells that a query looks into.
    max_neighbours: candidates kept of a query, of each kind.
    memory_mb: for the vectors of a unit, in units of 10^6 bytes.
    crops: whether windows of images are near to whole images too.
  """

  hash_distance: int | None
  cosine: float | None
  mirrored: bool = False
  within: bool = False
  method: str = 'auto'
  probes: int = 4
  max_neighbours: int = 100
  memory_mb: int = 1024
  crops: bool = False


@dataclasses.dataclass(frozen=True)
class Unit:
  """A piece of a search: cells [low, high) of some chunks, by their number."""

  low: int
  high: int
  queries: range
  members: range


class Search:
  """Finds candidates and keeps them.

  Args:
    state: where the candidates are kept.
    signatures: of all chunks.
    options: what counts as near.

  Attributes:
    num_dropped: candidates let go beyond `max_neighbours`.
    num_compared: (query, member) pairs of records covered by this call.
    methods: how vectors were searched in this call.
  """

  def __init__(self, state: State, signatures: Signatures, options: Options):
    self._state = state
    self._signatures = signatures
    self._options = options
    self.num_dropped = 0
    self.num_compared = 0
    self.methods: set[str] = set()

  def _settings(self, kind: str) -> str:
    """Names the searches that may stand for one of this kind."""
    o, vectors = self._options, self._signatures.vectors
    shared = (kind, o.mirrored, o.within, o.max_neighbours)
    if kind == 'hash':
      return digest(*shared, o.hash_distance)
    about = (vectors.kind, vectors.dim, vectors.name)
    if kind != 'cosine':
      about = (*about, WINDOWS)
    return digest(*shared, *about, o.cosine, o.method, o.probes)

  def kinds(self) -> list[str]:
    """What is near in which way, as asked for."""
    o = self._options
    given = {
      'hash': o.hash_distance is not None,
      'cosine': o.cosine is not None,
      _WINDOWS: o.crops,
      _BACK: o.crops and not o.within,  # within, both sides are queries
    }
    return [kind for kind, asked in given.items() if asked]

  def run(
    self,
    queries: Sequence[Chunk],
    database: Sequence[Chunk],
    tick: Callable[[int, int], object] = lambda done, total: None,
  ) -> None:
    """Searches what no earlier call has searched.

    Args:
      queries: chunks whose records look for near ones.
      database: chunks in which they look.
      tick: called with (units done, units known so far).
    """
    for kind in self.kinds():
      sides = (database, queries) if kind == _BACK else (queries, database)
      for part in self._missing(kind, *sides):
        self._search(kind, *part, tick)

  def _name(self, kind: str, chunk: Chunk) -> str:
    if kind == 'hash':
      return chunk.content
    return self._signatures.vectors.digest(chunk)

  def _finished(self, kind: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """(folder, note) of the searches of these settings that are done."""
    settings = self._settings(kind)
    for task in self._state.folders('searches', settings):
      place = ('searches', settings, task)
      if self._state.has(*place, _DONE):
        yield task, self._state.load_note(*place, _DONE)

  def _missing(
    self, kind: str, queries: Sequence[Chunk], database: Sequence[Chunk]
  ) -> list[tuple[list[Chunk], list[Chunk]]]:
    """Tables (queries, database) that together cover what is not done."""
    done: dict[str, set[str]] = {}
    for _, note in self._finished(kind):
      for member in note['database']:
        done.setdefault(member, set()).update(note['queries'])
    groups: dict[tuple[int, ...], list[Chunk]] = {}
    names = [self._name(kind, query) for query in queries]
    for member in database:
      seen = done.get(self._name(kind, member), set())
      left = tuple(i for i, name in enumerate(names) if name not in seen)
      if left:
        groups.setdefault(left, []).append(member)
    return [([queries[i] for i in q], d) for q, d in groups.items()]

  def _search(
    self,
    kind: str,
    queries: list[Chunk],
    database: list[Chunk],
    tick: Callable[[int, int], object],
  ) -> None:
    num = sum(map(len, queries)) * sum(map(len, database))
    self.num_compared += num
    if kind == 'hash':
      units, run = self._hash_units(queries, database), self._near_hashes
    else:
      cells = self._cells(num, database, 'back' if kind == _BACK else '')
      self.methods.add('exact' if isinstance(cells, OneCell) else 'cells')
      units, run = self._vector_units(kind, cells, queries, database)
    note = {
      'queries': [self._name(kind, c) for c in queries],
      'database': [self._name(kind, c) for c in database],
      'query_rows': [len(c) for c in queries],
      'database_rows': [len(c) for c in database],
    }
    plan = [dataclasses.astuple(unit) for unit in units]
    task = digest(json.dumps(note), plan)
    place = ('searches', self._settings(kind), task)
    dropped = []
    for number, unit in enumerate(units):
      tick(number, len(units))
      file = f'{number:06d}.npz'
      if not self._state.has(*place, file):
        nearest = run(unit, queries, database)
        found = nearest.result()
        columns = {name: getattr(found, name) for name in pairs.COLUMNS}
        columns['dropped'] = np.array(nearest.num_dropped)
        self._state.save_arrays(columns, *place, file)
      dropped.append(int(self._state.load_arrays(*place, file)['dropped']))
    tick(len(units), len(units))
    note |= {'units': len(units), 'dropped': sum(dropped)}
    self._state.save_note(note, *place, _DONE)

  def _cells(
    self, num: int, database: Sequence[Chunk], purpose: str
  ) -> OneCell | Cells:
    method = self._options.method
    if method == 'exact' or (method == 'auto' and num <= EXACT_BELOW):
      return OneCell(self._signatures)
    return Cells(
      self._state,
      self._signatures,
      database,
      self._options.probes,
      self._options.memory_mb,
      purpose,
    )

  # Hashes: no cells, some chunks against some chunks.

  def _hash_units(
    self, queries: Sequence[Chunk], database: Sequence[Chunk]
  ) -> list[Unit]:
    limit = self._options.memory_mb * 10**6 // 2
    sides = [
      _runs([len(chunk) * _HASH_BYTES for chunk in side], limit)
      for side in (queries, database)
    ]
    return [Unit(0, 1, q, d) for d in sides[1] for q in sides[0]]

  def _near_hashes(
    self, unit: Unit, queries: Sequence[Chunk], database: Sequence[Chunk]
  ) -> Nearest:
    assert self._options.hash_distance is not None
    nearest = Nearest(self._options.max_neighbours)
    members, rows_d = self._hashes(database, unit.members, False)
    index = hashes.Index(members)
    for mirrored in (False, True) if self._options.mirrored else (False,):
      wanted, rows_q = self._hashes(queries, unit.queries, mirrored)
      for q, d, bits in index.near(wanted, self._options.hash_distance):
        self._add(
          nearest, queries, database, rows_q[q], rows_d[d],
          -bits.astype(np.float32), mirrored,
        )  # fmt: skip
    return nearest

  def _hashes(
    self, chunks: Sequence[Chunk], numbers: range, mirrored: bool
  ) -> tuple[np.ndarray, np.ndarray]:
    """(hashes, rows in the table) of the records that could be read."""
    first = first_rows(chunks)
    values, rows = [np.empty(0, np.uint64)], [np.empty(0, np.int64)]
    for number in numbers:
      chunk = chunks[number]
      good = np.ones(len(chunk), bool)
      good[list(self._signatures.unreadable(chunk))] = False
      values.append(self._signatures.hashes(chunk, mirrored)[good])
      rows.append(first[number] + np.flatnonzero(good))
    return np.concatenate(values), np.concatenate(rows)

  # Vectors: the same cells of both sides.

  def _vector_units(
    self,
    kind: str,
    cells: OneCell | Cells,
    queries: Sequence[Chunk],
    database: Sequence[Chunk],
  ) -> tuple[list[Unit], Callable[..., Nearest]]:
    views = self._views(kind)

    def query_sizes(chunk: Chunk) -> np.ndarray:
      parts = [np.diff(cells.queries(chunk, *view).ends) for view in views]
      return np.max(parts, axis=0).astype(np.int64)  # one view at a time

    def member_sizes(chunk: Chunk) -> np.ndarray:
      return np.diff(cells.members(chunk).ends).astype(np.int64)

    sides = ((queries, query_sizes), (database, member_sizes))
    held = np.zeros((2, cells.num), np.int64)  # vectors of a side in each cell
    for number, (chunks, sizes) in enumerate(sides):
      for chunk in chunks:
        held[number] += sizes(chunk)
    both = held.sum(0)
    row_bytes = 2 * self._signatures.vectors.dim + 16
    limit = self._options.memory_mb * 10**6 // row_bytes
    units = []
    parts = _runs(both.tolist(), limit)
    if held[1].sum() <= limit // 2:  # few members: queries chunk by chunk
      parts = [range(cells.num)]
    for part in parts:
      low, high = part.start, part.stop
      q, d = [range(len(queries))], [range(len(database))]
      if both[low:high].sum() > limit:
        q, d = (
          _runs([int(sizes(c)[low:high].sum()) for c in chunks], limit // 2)
          for chunks, sizes in sides
        )
      units += [Unit(low, high, i, j) for j in d for i in q]

    def run(unit: Unit, queries: list[Chunk], database: list[Chunk]) -> Nearest:
      return self._near_vectors(unit, views, cells, queries, database)

    return units, run

  def _views(self, kind: str) -> list[tuple[bool, Window | None]]:
    """(mirrored, window) of all that looks for members."""
    can_mirror = self._signatures.vectors.can_mirror
    mirrors = (
      (False, True) if self._options.mirrored and can_mirror else (False,)
    )
    return list(
      itertools.product(mirrors, (None,) if kind == 'cosine' else WINDOWS)
    )

  def _near_vectors(
    self,
    unit: Unit,
    views: Sequence[tuple[bool, Window | None]],
    cells: OneCell | Cells,
    queries: Sequence[Chunk],
    database: Sequence[Chunk],
  ) -> Nearest:
    nearest = Nearest(self._options.max_neighbours)
    members = _gather(unit, cells.members, database, unit.members)
    for mirrored, window in views:
      look = functools.partial(cells.queries, mirrored=mirrored, window=window)
      wanted = _gather(unit, look, queries, unit.queries)
      for cell in range(unit.high - unit.low):
        q, d = wanted.of(cell), members.of(cell)
        for row_q, row_d, cosines in self._products(q, d):
          self._add(nearest, queries, database, row_q, row_d, cosines, mirrored)
      del wanted
    return nearest

  def _products(
    self,
    q: tuple[np.ndarray, np.ndarray],
    d: tuple[np.ndarray, np.ndarray],
  ) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """(rows, rows, cosines) of the near ones of two (rows, vectors)."""
    assert self._options.cosine is not None
    for high in range(0, len(d[0]), _BLOCK[1]):
      block = d[1][high : high + _BLOCK[1]].astype(np.float32).T
      for low in range(0, len(q[0]), _BLOCK[0]):
        cosines = q[1][low : low + _BLOCK[0]].astype(np.float32) @ block
        flat = np.flatnonzero(cosines >= self._options.cosine)
        if len(flat):
          i, j = np.divmod(flat, cosines.shape[1])
          yield q[0][low + i], d[0][high + j], cosines.ravel()[flat]

  def _add(
    self,
    nearest: Nearest,
    queries: Sequence[Chunk],
    database: Sequence[Chunk],
    row_q: np.ndarray,
    row_d: np.ndarray,
    closeness: np.ndarray,
    mirrored: bool,
  ) -> None:
    found = Pairs(row_q, row_d, np.full(len(row_q), mirrored), closeness)
    if self._options.within:
      same = places(queries, row_q) == places(database, row_d)
      found = found.take(np.flatnonzero(~same))
    nearest.add(found)

  # What was found.

  def candidates(
    self, queries: Sequence[Chunk], database: Sequence[Chunk]
  ) -> dict[str, Pairs]:
    """Kind -> pairs found in this and earlier calls.

    `query` and `found` are rows counted over `queries` and `database`.
    """
    out = {}
    for kind in self.kinds():
      if kind == _BACK:
        back = self._found(kind, database, queries)
        out[kind] = Pairs(back.found, back.query, back.mirrored, back.closeness)
      else:
        out[kind] = self._found(kind, queries, database)
    return out

  def _found(
    self, kind: str, queries: Sequence[Chunk], database: Sequence[Chunk]
  ) -> Pairs:
    nearest = Nearest(self._options.max_neighbours)
    firsts = [
      dict(zip((self._name(kind, c) for c in side), first_rows(side)))
      for side in (queries, database)
    ]
    for task, note in self._finished(kind):
      maps = [
        _row_map(note['queries'], note['query_rows'], firsts[0]),
        _row_map(note['database'], note['database_rows'], firsts[1]),
      ]
      self.num_dropped += note['dropped']
      for number in range(note['units']):
        place = ('searches', self._settings(kind), task)
        columns = self._state.load_arrays(*place, f'{number:06d}.npz')
        found = Pairs(**{name: columns[name] for name in pairs.COLUMNS})
        found.query = maps[0](found.query)
        found.found = maps[1](found.found)
        here = (found.query >= 0) & (found.found >= 0)
        nearest.add(found.take(np.flatnonzero(here)))
    result = nearest.result()
    self.num_dropped += nearest.num_dropped
    return result


@dataclasses.dataclass(frozen=True)
class _Gathered:
  """Rows and vectors of some cells, by cell."""

  rows: np.ndarray  # int64 [m] in the table
  vectors: np.ndarray  # float16 [m, D]
  ends: np.ndarray

  def of(self, cell: int) -> tuple[np.ndarray, np.ndarray]:
    part = slice(self.ends[cell], self.ends[cell + 1])
    return self.rows[part], self.vectors[part]


def _gather(
  unit: Unit,
  sorted_of: Callable[[Chunk], Sorted],
  chunks: Sequence[Chunk],
  numbers: range,
) -> _Gathered:
  """What the chunks have in the unit's cells."""
  first = first_rows(chunks)
  rows, vectors, cells = [], [], []
  for number in numbers:
    found = sorted_of(chunks[number])
    some, values = found.read(unit.low, unit.high)
    sizes = np.diff(found.ends[unit.low : unit.high + 1])
    rows.append(first[number] + some.astype(np.int64))
    vectors.append(values)
    cells.append(np.repeat(np.arange(len(sizes), dtype=np.int32), sizes))
  cell = np.concatenate(cells)
  ends = np.concatenate(
    [[0], np.cumsum(np.bincount(cell, minlength=unit.high - unit.low))]
  )
  if len(rows) == 1:  # sorted already
    return _Gathered(rows[0], vectors[0], ends)
  order = np.argsort(cell, kind='stable')
  joined = np.empty((len(cell), vectors[0].shape[1]), np.float16)
  place = np.empty(len(order), np.int64)
  place[order] = np.arange(len(order))
  start = 0
  for number, values in enumerate(vectors):
    joined[place[start : start + len(values)]] = values
    start += len(values)
    vectors[number] = values[:0]  # lets it go
  return _Gathered(np.concatenate(rows)[order], joined, ends)


def _runs(sizes: Sequence[int], limit: int) -> list[range]:
  """Consecutive items in runs of at most `limit` together, or one item."""
  runs, start, total = [], 0, 0
  for item, size in enumerate(sizes):
    if item > start and total + size > limit:
      runs.append(range(start, item))
      start, total = item, 0
    total += size
  return [*runs, range(start, len(sizes))]


def _row_map(
  names: Sequence[str], sizes: Sequence[int], firsts: dict[str, int]
) -> Callable[[np.ndarray], np.ndarray]:
  """Rows of a table -> rows of another one, -1 where it lacks the chunk."""
  old = np.cumsum([0, *sizes])[:-1]
  new = np.array([firsts.get(name, -1) for name in names])

  def convert(rows: np.ndarray) -> np.ndarray:
    chunk = np.searchsorted(old, rows, side='right') - 1
    return np.where(new[chunk] < 0, -1, new[chunk] + rows - old[chunk])

  return convert
