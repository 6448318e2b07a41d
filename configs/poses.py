"""What configs of pose share: crops of people, the net and its recipe, `:tiny`.

No config itself; configs/common.py has what all configs share.
"""

from collections.abc import Sequence
from typing import Any

from configs import common

# What a classification checkpoint has and a pose net has not, and the reverse.
HEADS = ('keypoints/.*', 'auxiliary/.*', 'head/.*')

# Depth -> the unit of block3 that the auxiliary head of training looks at: the
# 50th layer of ResNet-101, and as deep a share of block3 in the others.
_AUXILIARY = {50: 3, 101: 10, 152: 16}


def auxiliary(depth: int) -> str | None:
  """Where the auxiliary head is; None: in short nets there is none."""
  return f'block3/unit{_AUXILIARY[depth]}' if depth in _AUXILIARY else None


def ops(
  size: Sequence[int],
  radius: float = 25.0,
  *,
  train: bool = False,
  flip: bool = False,
) -> list[dict]:
  """A person's crop: enlarged by 1.25, in training by 1 to 1.5 (F.2).

  Args:
    size: (height, width) of the crop; stride 8 wants multiples of 8 and 1.
    radius: of the task's discs, in pixels of the crop: others' keypoints that
      near matter.
    train: whether by chance.
    flip: whether to reflect half of them.
  """
  chance = dict(enlarge=(1.0, 1.5), flip=flip) if train else dict(enlarge=1.25)
  return [
    dict(op='decode'),
    dict(op='crop_person', size=tuple(size), margin=radius, **chance),
  ]


def people(of: Any, **options: Any) -> dict[str, Any]:
  """The people of a source of images, each an example (docs/pose.md)."""
  return dict(type='people', of=of, **options)


def scored_people(of: Any, boxes: str, **options: Any) -> dict[str, Any]:
  """Those of an evaluation: every box of a file is looked at."""
  return people(of, boxes=boxes, unmatched='keep', **options)


def shrink(c: Any, num_classes: int = 7) -> None:
  """Makes a config of pose `:tiny`: crops of 33 pixels from images of 40."""
  common.shrink_world(
    c, num_classes, annotations=True, depth=0, num_keypoints=5, max_objects=2
  )
  c.task.num_classes = None
  c.input.source = people(c.input.source)
  c.input.ops = ops((33, 33), 3.0, train=True, flip=True)
  for evaluator in c.evals.values():
    evaluator.data = people(evaluator.data)
    evaluator.ops = ops((33, 33), 3.0)
  c.input.workers = 0
  c.model.output_stride = 8
  c.model.bn = 'batch'  # there is nothing to start from
  c.init_from.path = None
  c.task.radius = 3.0
  c.task.auxiliary = 'block3/unit1'
