"""Labelled members of archives: what sources over tars and zips have in common.

As in labelled_files.py: positions of the members and labels as flat arrays, so
that ten million images travel to data workers in seconds.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from input_pipeline.files.archive_index import Files
from input_pipeline.image_sets import fingerprint
from input_pipeline.labels.hierarchy import Hierarchy
from input_pipeline.labels.ragged import Ragged
from input_pipeline.labels.vocabulary import Vocabulary


class LabelledMembers:
  """A source over members of `Files`; see docs/data.md for the protocol.

  Attributes:
    vocabulary: the labels.
    hierarchy: ancestors of each label, or None.
    notes: what was left out, for the report of a preparation.
  """

  vocabulary: Vocabulary
  hierarchy: Hierarchy | None
  notes: Sequence[str]

  def __init__(
    self,
    files: Files,
    members: np.ndarray,
    labels: Ragged | np.ndarray,
    vocabulary: Vocabulary,
    hierarchy: Hierarchy | None,
    notes: Sequence[str] = (),
  ):
    """Takes the images in the order given.

    Args:
      files: the archive or archives.
      members: integer [n] positions in `files.names`.
      labels: the label ids of each image, ascending; or integer [n], where
        each has one.
      vocabulary: the labels.
      hierarchy: ancestors of each label, or None.
      notes: what was left out.
    """
    self.vocabulary, self.hierarchy = vocabulary, hierarchy
    self.notes = tuple(notes)
    self._files = files
    self._members = np.asarray(members, np.uint32)
    several = isinstance(labels, Ragged)
    ids = np.array(labels.values if several else labels, np.int32)
    ids.setflags(write=False)
    self._labels = Ragged(labels.ends, ids) if several else ids

  def __len__(self) -> int:
    return len(self._members)

  def __getitem__(self, index: int) -> dict[str, Any]:
    """{'image': encoded bytes, 'labels': int32 [n] ascending, 'key': name}.

    Raises:
      BadExample: the member is damaged or absurdly large.
    """
    member = self._member(index)
    return {
      'image': self._files.read_at(member),
      'labels': self.labels(index),
      'key': self.key(index),
    }

  def _member(self, index: int) -> int:
    if not 0 <= index < len(self):
      raise IndexError(f'index {index} is not in 0..{len(self) - 1}')
    return int(self._members[index])

  def labels(self, index: int) -> np.ndarray:
    """int32 [n] raw label ids of an image, without reading it."""
    self._member(index)
    if isinstance(self._labels, Ragged):
      return self._labels[index]
    return self._labels[index : index + 1]

  def key(self, index: int) -> str:
    """Name of the member."""
    raw = self._files.names.raw(self._member(index))
    return raw.decode('utf-8', 'backslashreplace')

  def fingerprint(self) -> str:
    """16 hex digits of names, sizes, choice, labels and hierarchy."""
    labels, ends = self._labels, b''
    if isinstance(labels, Ragged):
      labels, ends = labels.values, labels.ends
    return fingerprint.digest(
      (self._files.fingerprint().encode(), self._members, labels, ends),
      self.vocabulary,
      self.hierarchy,
    )

  def report_lines(self) -> list[str]:
    return list(self.notes)
