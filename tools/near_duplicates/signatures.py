"""Signatures of every image: made once a chunk, kept in the state folder.

Per image: two 64-bit hashes (of it and of its mirror image) and, where cosines
are asked for, one vector of float16, of length 1. The vectors are thumbnails
(no model), rows of a file, or features of a model, by a function handed in.
For the windows of images (windows.py) a sketch of each is kept too.
"""

import dataclasses
import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from big_vision_like.protocols import Source
from input_pipeline.examples.errors import BadExample
from input_pipeline.files import numpy_files

from . import hashes, thumbnails, windows, workers
from .chunks import Chunk, digest
from .state import State

_BLOCK = 256  # images a task
_DECODED_SIDE = 64  # pixels that the shorter side keeps at least
_VERSION = 1  # of hashes, thumbnails, sketches: another one makes them anew

# (set, rows of it int64 [n], mirrored) -> (rows that could be read, vectors)
Embed = Callable[
  [int, np.ndarray, bool], Iterator[tuple[np.ndarray, np.ndarray]]
]


@dataclasses.dataclass(frozen=True)
class Vectors:
  """Where the vectors come from.

  Attributes:
    kind: 'none', 'thumbnail', 'files' or 'model'.
    dim: length of one.
    name: of a model: what distinguishes it from others.
    files: one memory-mapped array [len(set), dim] a set, for 'files'.
    embed: for 'model'.
  """

  kind: str
  dim: int
  name: str = ''
  files: Sequence[tuple[str, np.ndarray]] = ()
  embed: Embed | None = None

  def digest(self, chunk: Chunk) -> str:
    """Names the vectors of a chunk."""
    name = self.files[chunk.set_index][0] if self.files else self.name
    return digest(_VERSION, self.kind, self.dim, name, chunk.content)

  @property
  def can_mirror(self) -> bool:
    """Whether there are vectors of mirror images."""
    return self.kind in ('thumbnail', 'model')


class Signatures:
  """Hashes and vectors of chunks, from the state or made now.

  Args:
    state: where they are kept.
    vectors: what the vectors are.
    hashed: whether hashes are wanted.
    mirrored: whether vectors of mirror images are.
    sketched: whether vectors of windows are.
  """

  def __init__(
    self,
    state: State,
    vectors: Vectors,
    *,
    hashed: bool,
    mirrored: bool,
    sketched: bool = False,
  ):
    self.vectors = vectors
    self._state = state
    self.hashed = hashed
    self._mirrored = mirrored and vectors.kind != 'none'
    self._sketched = sketched
    self._reads = hashed or vectors.kind == 'thumbnail' or sketched

  def missing(self, chunks: Sequence[Chunk]) -> list[Chunk]:
    """Those of the chunks that are to be made."""
    return [chunk for chunk in chunks if not self._done(chunk)]

  def _done(self, chunk: Chunk) -> bool:
    wanted = self._read_files(chunk)
    if self.vectors.kind != 'none':
      wanted.append(self._vector_file(chunk))
    if self._mirrored and self.vectors.kind == 'model':
      wanted.append(self._vector_file(chunk, mirrored=True))
    return self._all_there(wanted)

  def _read_files(self, chunk: Chunk) -> list[tuple[str, str]]:
    """What comes from reading the images."""
    wanted = [self._image_file(chunk)] if self._reads else []
    if self.vectors.kind == 'thumbnail':
      wanted.append(self._vector_file(chunk))
    if self._sketched:
      wanted.append(self._sketch_file(chunk))
    return wanted

  def _all_there(self, files: Sequence[tuple[str, str]]) -> bool:
    return all(self._state.has(*names) for names in files)

  def make(
    self,
    chunks: Sequence[Chunk],
    pool: workers.Workers,
    advance: Callable[[int], object],
  ) -> None:
    """Makes what is missing, chunk by chunk.

    Args:
      chunks: all chunks of the call.
      pool: reads the images.
      advance: called with the number of images finished since the last call.
    """
    for chunk in self.missing(chunks):
      if not self._all_there(self._read_files(chunk)):
        self._read_images(chunk, pool, advance)
      else:
        advance(len(chunk))
      if self.vectors.kind == 'files':
        rows = self.vectors.files[chunk.set_index][1][chunk.start : chunk.stop]
        self._save_vectors(chunk, np.asarray(rows, np.float32))
      elif self.vectors.kind == 'model':
        for mirrored in (False, True) if self._mirrored else (False,):
          self._embed(chunk, mirrored)

  def _read_images(
    self,
    chunk: Chunk,
    pool: workers.Workers,
    advance: Callable[[int], object],
  ) -> None:
    wanted = self.vectors.kind == 'thumbnail'
    both = (wanted, self._sketched)
    tasks = [
      (chunk.set_index, low, min(low + _BLOCK, chunk.stop), *both)
      for low in range(chunk.start, chunk.stop, _BLOCK)
    ]
    parts = []
    for part in pool.map(read_block, tasks):
      parts.append(part)
      advance(len(part['hash']))
    bad = [tuple(pair) for part in parts for pair in part['bad']]
    if wanted:
      self._save_vectors(chunk, np.concatenate([p['vector'] for p in parts]))
    if self._sketched:
      sketches = np.concatenate([part['sketch'] for part in parts])
      self._state.save_array(sketches, *self._sketch_file(chunk))
    arrays = {
      name: np.concatenate([part[name] for part in parts])
      for name in ('hash', 'mirrored')
    }
    arrays['bad'] = np.array([row - chunk.start for row, _ in bad], np.int64)
    arrays['reason'] = np.array([reason for _, reason in bad], np.str_)
    self._state.save_arrays(arrays, *self._image_file(chunk))

  def _embed(self, chunk: Chunk, mirrored: bool) -> None:
    assert self.vectors.embed is not None
    if self._state.has(*self._vector_file(chunk, mirrored)):
      return
    found = np.zeros((len(chunk), self.vectors.dim), np.float32)
    rows = np.arange(chunk.start, chunk.stop)
    for indices, vectors in self.vectors.embed(chunk.set_index, rows, mirrored):
      found[indices - chunk.start] = vectors
    self._save_vectors(chunk, found, mirrored)

  def _save_vectors(
    self, chunk: Chunk, vectors: np.ndarray, mirrored: bool = False
  ) -> None:
    """Of length 1; a row of zeros (no image) stays one and matches nothing."""
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit = vectors / np.where(length > 0, length, 1)
    self._state.save_array(
      unit.astype(np.float16), *self._vector_file(chunk, mirrored)
    )

  def _image_file(self, chunk: Chunk) -> tuple[str, str]:
    return 'signatures', f'{digest(_VERSION, chunk.content)}.npz'

  def _vector_file(
    self, chunk: Chunk, mirrored: bool = False
  ) -> tuple[str, str]:
    ending = '.mirrored.npy' if mirrored else '.npy'
    return 'vectors', f'{self.vectors.digest(chunk)}{ending}'

  def _sketch_file(self, chunk: Chunk) -> tuple[str, str]:
    return 'sketches', f'{digest(_VERSION, chunk.content)}.npy'

  def hashes(self, chunk: Chunk, mirrored: bool = False) -> np.ndarray:
    """uint64 [n]."""
    arrays = self._state.load_arrays(*self._image_file(chunk))
    return arrays['mirrored' if mirrored else 'hash']

  def unreadable(self, chunk: Chunk) -> dict[int, str]:
    """Row of the chunk -> why the image cannot be used."""
    if not self._reads:
      return {}
    arrays = self._state.load_arrays(*self._image_file(chunk))
    rows = arrays['bad'].tolist()
    return dict(zip(rows, arrays['reason'].tolist()))

  def load(self, chunk: Chunk, mirrored: bool = False) -> np.ndarray:
    """float16 [n, D] vectors, mapped from the file where they are stored."""
    if mirrored and self.vectors.kind == 'thumbnail':
      return thumbnails.mirror(self.load(chunk))
    return self._state.load_array(*self._vector_file(chunk, mirrored))

  def load_window(
    self, chunk: Chunk, window: windows.Window, mirrored: bool = False
  ) -> windows.WindowVectors:
    """float16 [n, D] vectors of a window, computed where they are indexed."""
    sketches = self._state.load_array(*self._sketch_file(chunk))
    return windows.WindowVectors(sketches, window, mirrored)


def read_block(
  sources: Sequence[Source], task: tuple[int, int, int, bool, bool]
) -> dict[str, Any]:
  """Signatures of records [low, high) of a set: one image read each.

  Args:
    sources: the sets.
    task: (set, low, high, whether thumbnails are wanted, whether sketches).

  Returns:
    'hash' and 'mirrored' uint64 [n], 'vector' float32 [n, DIM] or [n, 0],
    'sketch' uint8 [n, SKETCH_BYTES] or [n, 0],
    'bad' (row, reason) of those that cannot be used; their rows hold zeros.
    Rows of 'bad' count from the start of the set.
  """
  set_index, low, high, wanted, sketched = task
  out = {
    'hash': np.zeros(high - low, np.uint64),
    'mirrored': np.zeros(high - low, np.uint64),
    'vector': np.zeros((high - low, wanted * thumbnails.DIM), np.float32),
    'sketch': np.zeros((high - low, sketched * windows.SKETCH_BYTES), 'u1'),
    'bad': [],
  }
  for row in range(high - low):
    try:
      image = workers.read_image(sources[set_index], low + row, _DECODED_SIDE)
    except BadExample as error:
      out['bad'].append((low + row, error.reason))
      continue
    out['hash'][row], out['mirrored'][row] = hashes.phash(image)
    if wanted:
      out['vector'][row] = thumbnails.describe(image)
    if sketched:
      out['sketch'][row] = windows.sketch(image)
  return out


def open_vectors(path: str, num_rows: int) -> tuple[str, np.ndarray]:
  """(what distinguishes the file, its array [n, D] mapped from disk).

  Args:
    path: .npy with one array, or .safetensors with one tensor [n, D].
    num_rows: records of the set.

  Raises:
    FileNotFoundError: no such file.
    ValueError: not such a file, or another number of rows.
  """
  if not os.path.isfile(path):
    raise FileNotFoundError(f'embeddings={path!r}: no such file')
  if path.endswith('.npy'):
    try:
      array = numpy_files.mapped(path)
    except (ValueError, OSError, EOFError) as error:
      raise ValueError(f'embeddings={path!r}: {error}') from None
  elif path.endswith('.safetensors'):
    array = _safetensors(path)
  else:
    raise ValueError(f'embeddings={path!r} must be .npy or .safetensors')
  if array.ndim != 2 or array.dtype not in (np.float16, np.float32, np.float64):
    raise ValueError(
      f'embeddings={path!r}: needs floats [n, D], got {array.dtype} '
      f'{list(array.shape)}'
    )
  if len(array) != num_rows or not array.shape[1]:
    raise ValueError(
      f'embeddings={path!r}: {list(array.shape)} for {num_rows} records'
    )
  for low in range(0, num_rows, 1 << 16):
    block = array[low : low + (1 << 16)]
    if not np.isfinite(block).all():
      row = low + int(np.argmin(np.isfinite(block).all(axis=1)))
      raise ValueError(f'embeddings={path!r}: row {row} is not finite')
  status = os.stat(path)
  return digest(status.st_size, status.st_mtime_ns, _head(path)), array


def _head(path: str) -> str:
  with open(path, 'rb') as file:
    return hashlib.blake2b(file.read(1 << 20), digest_size=8).hexdigest()


def _safetensors(path: str) -> np.ndarray:
  """The one tensor of the file, mapped: the format is a header and raw data."""
  from big_vision_like.checkpoints import safetensors_files

  kinds = {'F16': np.float16, 'F32': np.float32, 'F64': np.float64}
  try:
    table, start = safetensors_files.header(path)
    table.pop('__metadata__', None)
    if len(table) != 1:
      raise ValueError(f'one tensor is needed, it has {len(table)}')
    (tensor,) = table.values()
    if tensor['dtype'] not in kinds:
      raise ValueError(f'{tensor["dtype"]} is none of {", ".join(kinds)}')
  except ValueError as error:
    raise ValueError(f'embeddings={path!r}: {error}') from None
  kind, shape = np.dtype(kinds[tensor['dtype']]), tuple(tensor['shape'])
  begin, end = tensor['data_offsets']
  if begin == end:
    return np.empty(shape, kind)
  return np.memmap(path, kind, 'r', start + begin, shape)
