"""The keypoints of a COCO file: COCO's own 17, or those of its categories.

A category may name them, `keypoints: ["nose", "left_eye", ...]`; which are each
other's left and right then follows from names that differ in nothing else.
"""

import re
from collections.abc import Sequence

from input_pipeline.labels.space import Skeleton

# Of persons; the sigmas are those of pycocotools.
PERSON = Skeleton(
  names=(
    'nose', 'left_eye', 'right_eye', 'left_ear', 'right_ear', 'left_shoulder',
    'right_shoulder', 'left_elbow', 'right_elbow', 'left_wrist', 'right_wrist',
    'left_hip', 'right_hip', 'left_knee', 'right_knee', 'left_ankle',
    'right_ankle',
  ),
  pairs=(
    (1, 2), (3, 4), (5, 6), (7, 8), (9, 10), (11, 12), (13, 14), (15, 16),
  ),
  sigmas=(
    0.026, 0.025, 0.025, 0.035, 0.035, 0.079, 0.079, 0.072, 0.072, 0.062,
    0.062, 0.107, 0.107, 0.087, 0.087, 0.089, 0.089,
  ),
)  # fmt: skip
# left_eye, leftEye, l_eye, eye.L; not the l of ankle.
_SIDE = re.compile(
  r'left|right|(?<![^\W_])[lr](?![^\W_])', re.IGNORECASE | re.ASCII
)


def of(names: Sequence[str] | None, num: int) -> Skeleton | None:
  """The skeleton of `num` keypoints.

  Args:
    names: as the file's categories have them; None: they have none; (): they
      contradict each other.
    num: keypoints of an annotation.

  Returns:
    COCO's person where they are its 17, named or not; None where nothing is
    known of them.
  """
  if names is None:
    return PERSON if num == len(PERSON.names) else None
  if not names:
    return None
  if tuple(names) == PERSON.names:
    return PERSON
  return Skeleton(tuple(names), pairs_of(names))


def pairs_of(names: Sequence[str]) -> tuple[tuple[int, int], ...]:
  """(left, right) numbers of the names that differ in their side only.

  'left' or 'right' in them, or an l or r that stands alone: 'l_eye', 'eye.R'.
  """
  places: dict[str, dict[str, list[int]]] = {}
  for number, name in enumerate(names):
    found = _SIDE.search(name)
    if found is not None:
      rest = f'{name[: found.start()]}\0{name[found.end() :]}'.lower()
      sides = places.setdefault(rest, {'l': [], 'r': []})
      sides[found.group()[0].lower()].append(number)
  return tuple(
    sorted(
      (sides['l'][0], sides['r'][0])
      for sides in places.values()
      if len(sides['l']) == len(sides['r']) == 1
    )
  )
