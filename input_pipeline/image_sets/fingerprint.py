"""Fingerprint of a set of images: its parts, label names and hierarchy."""

import hashlib
from collections.abc import Iterable

import numpy as np

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
