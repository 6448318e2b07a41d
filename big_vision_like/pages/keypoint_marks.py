"""Keypoints over a picture, and what a crop of a person has of them.

Left is green and right orange. In a crop the person's own keypoints have the
discs in which the net is to say that one is near (Papandreou et al. 2017); what
is another person's is a magenta cross, so that nobody takes it for a target.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import ImageDraw

_LEFT, _RIGHT, _MIDDLE = (0, 220, 0), (255, 140, 0), (255, 255, 255)
_OTHERS = (255, 0, 200)
_CROSS = 4  # pixels to either side

# Limbs of COCO's 17 keypoints: legs, trunk, arms, head.
_COCO_KEYPOINTS = 17
_COCO_LIMBS = (
  (15, 13), (13, 11), (16, 14), (14, 12), (11, 12), (5, 11), (6, 12), (5, 6),
  (5, 7), (6, 8), (7, 9), (8, 10), (1, 2), (0, 1), (0, 2), (1, 3), (2, 4),
  (3, 5), (4, 6),
)  # fmt: skip

Pairs = Sequence[tuple[int, int]]


def tones(num: int, pairs: Pairs | None) -> list[tuple[int, int, int]]:
  """Colours of `num` keypoints: of left, of right, white of others.

  Args:
    num: how many.
    pairs: (left, right) numbers; None: not known, so those of COCO where there
      are 17.
  """
  if pairs is None and num == _COCO_KEYPOINTS:
    pairs = [(k, k + 1) for k in range(1, num, 2)]
  found = [_MIDDLE] * num
  for left, right in pairs or ():
    if max(left, right) < num:
      found[left], found[right] = _LEFT, _RIGHT
  return found


def draw(
  pen: ImageDraw.ImageDraw,
  points: np.ndarray,
  scale: float,
  pairs: Pairs | None = None,
) -> None:
  """Points [K, 3], hollow where hidden, with COCO's limbs where they are 17."""
  place = [(float(x) * scale, float(y) * scale) for y, x, _ in points]
  of_points = tones(len(points), pairs)
  for a, b in _COCO_LIMBS if len(points) == _COCO_KEYPOINTS else ():
    if points[a, 2] and points[b, 2]:
      one_side = of_points[a] == of_points[b]
      tone = of_points[a] if one_side else _MIDDLE
      pen.line((place[a], place[b]), fill=tone, width=2)
  for k, (x, y) in enumerate(place):
    if points[k, 2]:
      tone = of_points[k]
      around = x - 3, y - 3, x + 3, y + 3
      fill = tone if points[k, 2] == 2 else None
      pen.ellipse(around, outline=(0, 0, 0) if fill else tone, fill=fill)


def draw_crop(
  pen: ImageDraw.ImageDraw,
  example: Mapping[str, Any],
  scale: float,
  radius: float,
  pairs: Pairs | None = None,
) -> None:
  """The keypoints of a crop of a person.

  Args:
    pen: of the picture.
    example: 'person_keypoints' [K, 3] and, perhaps, 'other_keypoints'
      [P, K, 3], in pixels of the crop.
    scale: pixels of the picture to one of the crop.
    radius: of the discs, in pixels of the crop; 0 for none.
    pairs: see `tones`.
  """
  own = np.asarray(example['person_keypoints'])
  reach = radius * scale
  for (y, x, seen), tone in zip(own.tolist(), tones(len(own), pairs)):
    if seen and radius:
      x, y = x * scale, y * scale
      pen.ellipse((x - reach, y - reach, x + reach, y + reach), outline=tone)
  draw(pen, own, scale, pairs)
  others = np.asarray(example.get('other_keypoints', ()), np.float32)
  for y, x, seen in others.reshape(-1, 3).tolist():
    if seen:
      x, y = x * scale, y * scale
      for slope in (-1, 1):
        ends = x - _CROSS, y - slope * _CROSS, x + _CROSS, y + slope * _CROSS
        pen.line(ends, fill=_OTHERS, width=2)
