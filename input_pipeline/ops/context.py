"""What an example op may know besides the example: labels and its own place."""

import dataclasses
from collections.abc import Sequence

from input_pipeline.labels.hierarchy import Hierarchy
from input_pipeline.labels.space import LabelSpace
from input_pipeline.labels.vocabulary import Vocabulary


@dataclasses.dataclass(frozen=True)
class OpContext:
  """Handed to every op when it is built.

  Attributes:
    vocabulary: names of the label ids, None for data without labels.
    hierarchy: ancestors of each label, None where the data has no hierarchy.
    background: whether id 0 of a mask is the background, label i being i + 1.
    keypoint_pairs: numbers of the keypoints that are each other's left and
      right, as the data say; None where they do not.
    num_keypoints: keypoints of an object, as the data say; None where they do
      not.
    where: config key of the op, the start of its error messages.
  """

  vocabulary: Vocabulary | None = None
  hierarchy: Hierarchy | None = None
  background: bool = True
  keypoint_pairs: Sequence[tuple[int, int]] | None = None
  num_keypoints: int | None = None
  where: str = 'input.ops'

  @classmethod
  def of_space(cls, space: LabelSpace, where: str) -> 'OpContext':
    """What ops may know of data with these labels."""
    skeleton = space.keypoints
    return cls(
      space.vocabulary,
      space.hierarchy,
      background=space.background is not False,
      keypoint_pairs=None if skeleton is None else skeleton.pairs,
      num_keypoints=len(skeleton.names) or None if skeleton else None,
      where=where,
    )
