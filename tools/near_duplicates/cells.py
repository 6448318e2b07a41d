"""Coarse k-means cells: which vectors can be near to which.

A vector is a member of the cell of its nearest centre. As a query it also looks
into the next nearest cells. Each chunk keeps its members sorted by cell, so the
members of any range of cells are one contiguous read.
"""

import dataclasses
from collections.abc import Sequence

import faiss
import numpy as np

from .chunks import Chunk, digest
from .signatures import Signatures
from .state import State
from .windows import Window, WindowVectors

_MEMBERS = 1000  # a cell
_MAX_CELLS = 1 << 15
_SAMPLE = 64  # vectors a cell, to find the centres
_ITERATIONS = 8
_ROWS = 1 << 14  # assigned at a time
_SEED = 1707


@dataclasses.dataclass(frozen=True)
class Sorted:
  """Rows of a chunk in the order of their cells.

  Attributes:
    rows: int32 [m] rows of the chunk; a query occurs once a cell it looks into.
    ends: integer [K + 1], the rows of cell k are rows[ends[k]:ends[k + 1]].
    vectors: float16 [n, D], indexed by rows: [m, D] in the order of `rows` if
      `in_order`, else in the order of the chunk.
    in_order: whether `vectors` are sorted too.
  """

  rows: np.ndarray
  ends: np.ndarray
  vectors: np.ndarray | WindowVectors
  in_order: bool

  def read(self, low: int, high: int) -> tuple[np.ndarray, np.ndarray]:
    """(rows [m], vectors float16 [m, D]) of the cells [low, high)."""
    part = slice(self.ends[low], self.ends[high])
    rows = self.rows[part]
    place = part if self.in_order else rows
    return rows, np.asarray(self.vectors[place])


class OneCell:
  """Everything in one cell: every query meets every member."""

  num = 1
  name = 'exact'

  def __init__(self, signatures: Signatures):
    self._signatures = signatures

  def members(self, chunk: Chunk) -> Sorted:
    return self.queries(chunk)

  def queries(
    self, chunk: Chunk, mirrored: bool = False, window: Window | None = None
  ) -> Sorted:
    vectors = _vectors(self._signatures, chunk, mirrored, window)
    rows = np.arange(len(chunk), dtype=np.int32)
    return Sorted(rows, np.array([0, len(chunk)]), vectors, True)


def _vectors(
  signatures: Signatures, chunk: Chunk, mirrored: bool, window: Window | None
) -> np.ndarray | WindowVectors:
  if window is None:
    return signatures.load(chunk, mirrored)
  return signatures.load_window(chunk, window, mirrored)


class Cells:
  """K cells, trained at first use and kept in the state folder.

  Args:
    state: where centres and sorted chunks are kept.
    signatures: the vectors.
    members: chunks of the database, of which a sample gives the centres.
    probes: cells that a query looks into.
    memory_mb: for the sample, in units of 10^6 bytes.
    purpose: those of another purpose have other centres.
  """

  def __init__(
    self,
    state: State,
    signatures: Signatures,
    members: Sequence[Chunk],
    probes: int,
    memory_mb: int,
    purpose: str = '',
  ):
    self._state = state
    self._signatures = signatures
    vectors = signatures.vectors
    about = (vectors.kind, vectors.dim, vectors.name)
    self._about = digest('cells', *about, *purpose.split())
    if not state.has('cells', f'{self._about}.npy'):
      state.save_array(
        self._train(members, memory_mb), 'cells', f'{self._about}.npy'
      )
    self._centres = np.asarray(state.load_array('cells', f'{self._about}.npy'))
    self.num = len(self._centres)
    self._probes = min(probes, self.num)
    self.name = f'{self._about} {self._probes}'
    self._index = faiss.IndexFlatIP(vectors.dim)
    self._index.add(self._centres)

  def _train(self, members: Sequence[Chunk], memory_mb: int) -> np.ndarray:
    """float32 [K, D] centres of length 1."""
    total = sum(map(len, members))
    num = 1 << max(0, round(np.log2(max(total / _MEMBERS, 1))))
    num = min(num, _MAX_CELLS)
    room = memory_mb * 10**6 // (8 * self._signatures.vectors.dim)
    step = max(1, total // max(1, min(num * _SAMPLE, room)))
    sample = np.concatenate(
      [
        np.asarray(self._signatures.load(c)[::step], np.float32)
        for c in members
      ]
    )
    sample = np.ascontiguousarray(sample[sample.any(axis=1)])
    kmeans = faiss.Kmeans(
      sample.shape[1],
      min(num, max(1, len(sample))),
      niter=_ITERATIONS,
      spherical=True,
      seed=_SEED,
      min_points_per_centroid=1,
      max_points_per_centroid=2 * _SAMPLE,
    )
    kmeans.train(sample)
    assert kmeans.centroids is not None
    return kmeans.centroids

  def _nearest(
    self, vectors: np.ndarray | WindowVectors, num: int
  ) -> np.ndarray:
    """int32 [n, num] cells, the nearest first."""
    found = np.empty((len(vectors), num), np.int32)
    for low in range(0, len(vectors), _ROWS):
      block = np.asarray(vectors[low : low + _ROWS], np.float32)
      found[low : low + _ROWS] = self._index.search(block, num)[1]
    return found

  def _sort(self, cells: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(rows, ends) of `Sorted` from the cells [n, num] of each row."""
    flat = cells.ravel()
    order = np.argsort(flat, kind='stable')
    ends = np.searchsorted(flat[order], np.arange(self.num + 1))
    rows = order // cells.shape[1]
    return rows.astype(np.int32), ends.astype(np.int32)

  def members(self, chunk: Chunk) -> Sorted:
    """The chunk's vectors, each in its own cell."""
    folder = ('cells', self._about)
    name = self._signatures.vectors.digest(chunk)
    if not self._state.has(*folder, f'{name}.npz'):
      vectors = self._signatures.load(chunk)
      rows, ends = self._sort(self._nearest(vectors, 1))
      self._state.save_array(np.asarray(vectors)[rows], *folder, f'{name}.npy')
      self._state.save_arrays(
        {'rows': rows, 'ends': ends}, *folder, f'{name}.npz'
      )
    found = self._state.load_arrays(*folder, f'{name}.npz')
    vectors = self._state.load_array(*folder, f'{name}.npy')
    return Sorted(found['rows'], found['ends'], vectors, True)

  def queries(
    self, chunk: Chunk, mirrored: bool = False, window: Window | None = None
  ) -> Sorted:
    """The chunk's vectors, each in the nearest `probes` cells.

    With a window, those of that window of each image.
    """
    folder = ('cells', self._about)
    name = f'{self._signatures.vectors.digest(chunk)}.{self._probes}'
    if window is not None:
      name = f'{name}.{digest(window)}'
    name = f'{name}.mirrored.npz' if mirrored else f'{name}.npz'
    vectors = _vectors(self._signatures, chunk, mirrored, window)
    if not self._state.has(*folder, name):
      rows, ends = self._sort(self._nearest(vectors, self._probes))
      self._state.save_arrays({'rows': rows, 'ends': ends}, *folder, name)
    found = self._state.load_arrays(*folder, name)
    return Sorted(found['rows'], found['ends'], vectors, False)
