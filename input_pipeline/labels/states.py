"""What is known of each label of an image: present, absent or unknown.

An image that shows an apple shows a fruit (Sun et al. 2017, section 3.1); an
image without fruit shows no apple. So positives are completed upwards through
the hierarchy and verified negatives downwards. Where the two contradict each
other - a verified negative that is an ancestor of a positive - the positive
wins. docs/label-states.md tells the whole story.
"""

import functools

import numpy as np

from input_pipeline.labels.hierarchy import Hierarchy
from input_pipeline.labels.ragged import Ragged


def close_confidences(
  hierarchy: Hierarchy | None, ids: np.ndarray, confidences: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """Labels with all their ancestors, and how sure each of them is.

  An ancestor is as sure as the surest label below it, a label given twice as
  sure as the surer one. Plain Python, which on some ten labels is several times
  faster than numpy's calls.

  Args:
    hierarchy: of C labels; None adds no ancestors.
    ids: int [n] label ids in 0..C-1.
    confidences: float32 [n].

  Returns:
    int32 [m] ascending unique ids, float32 [m] confidences.
  """
  surest: dict[int, float] = {}
  for label, sure in zip(ids.tolist(), confidences.tolist()):
    members = [label]
    if hierarchy is not None:
      members += hierarchy.ancestors[label].tolist()
    for member in members:
      if surest.get(member, -1.0) < sure:
        surest[member] = sure
  closed = sorted(surest)
  highest = [surest[label] for label in closed]
  return np.array(closed, np.int32), np.array(highest, np.float32)


class Negatives:
  """Resolves verified negatives against the positives of an image.

  Args:
    hierarchy: of the labels; None where there is none.
    fill_in: add all descendants of each negative; needs a hierarchy.
  """

  def __init__(self, hierarchy: Hierarchy | None, *, fill_in: bool):
    assert hierarchy is not None or not fill_in
    self._hierarchy = hierarchy
    self.fills_in = fill_in

  @functools.cached_property
  def _descendants(self) -> Ragged:
    """Each label's proper descendants, int32."""
    assert self._hierarchy is not None
    above = self._hierarchy.ancestors
    below = above.owners.astype(np.int32)
    return Ragged.of_pairs(above.values, below, self._hierarchy.num_labels)

  def resolve(
    self, negatives: np.ndarray, positives: np.ndarray
  ) -> tuple[np.ndarray, int]:
    """The labels known to be absent, and how many were contradicted.

    A negative that is a positive, or with a hierarchy an ancestor of one, is
    dropped before its descendants are filled in: they become unknown.

    Args:
      negatives: int [k] label ids as recorded, any order.
      positives: int [n] label ids, closed through the hierarchy or not.

    Returns:
      int32 [m] ascending unique ids, disjoint from the positives and their
      ancestors; the number of negatives dropped.
    """
    true = positives
    if self._hierarchy is not None:
      true = self._hierarchy.close(positives)
    given = set(negatives.tolist())
    kept = given.difference(true.tolist())
    absent = np.array(sorted(kept), np.int32)
    if self.fills_in and kept:
      parts = [self._descendants[i] for i in kept]
      # No descendant is true: the negative above it would have been dropped.
      absent = np.sort(np.concatenate([absent, *parts]))
      absent = absent[np.diff(absent, prepend=-1) != 0]
    return absent, len(given) - len(kept)
