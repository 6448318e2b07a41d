"""Fingerprint of a set of images: its parts, label names and hierarchy."""

import concurrent.futures
import contextlib
import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal

import numpy as np

from input_pipeline.files import retries
from input_pipeline.labels.hierarchy import Hierarchy
from input_pipeline.labels.vocabulary import Vocabulary


def digest(
  parts: Iterable[bytes | np.ndarray],
  vocabulary: Vocabulary,
  hierarchy: Hierarchy | None,
) -> str:
  """16 hex digits of a data set's parts, its label names and its hierarchy."""
  state = hashlib.blake2b(digest_size=8)
  above = None if hierarchy is None else hierarchy.ancestors
  closure = () if above is None else (above.ends, above.values)
  for part in (*parts, *closure):
    data = part if isinstance(part, bytes) else part.tobytes()
    state.update(len(data).to_bytes(8, 'little'))
    state.update(data)
  state.update(vocabulary.fingerprint().encode())
  return state.hexdigest()


# What of image files a fingerprint tells: their names; that and their sizes,
# for a look at each file's entry; that and all bytes, for reading them.
Seen = Literal['names', 'sizes', 'contents']

_THREADS = 16
_DIGEST_BYTES = 16
_CHUNK = 1 << 20
_AHEAD = 1 << 14  # files asked for at once


def states(paths: Sequence[bytes], seen: Seen) -> bytes:
  """What is seen of files besides their names; of one that is missing, that.

  Args:
    paths: of the files.
    seen: 'names' is nothing more.

  Raises:
    OSError: storage that goes on refusing (retries.py).
  """
  if seen == 'names':
    return b''
  look = _size if seen == 'sizes' else _content
  with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
    return seen.encode() + b''.join(
      state
      for first in range(0, len(paths), _AHEAD)
      for state in pool.map(look, paths[first : first + _AHEAD])
    )


def _size(path: bytes) -> bytes:
  size = -1
  with _missing():
    size = retries.call(os.stat, path).st_size
  return size.to_bytes(8, 'little', signed=True)


def _content(path: bytes) -> bytes:
  found = bytes(_DIGEST_BYTES)
  with _missing(), retries.open_binary(path) as file:
    state = hashlib.blake2b(digest_size=_DIGEST_BYTES)
    while chunk := file.read(_CHUNK):
      state.update(chunk)
    found = state.digest()
  return found


@contextlib.contextmanager
def _missing() -> Iterator[None]:
  """A file that is not there is a state; storage that is away is none."""
  try:
    yield
  except retries.StorageError:
    raise
  except OSError:
    pass
