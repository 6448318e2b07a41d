"""Boxes that no object can have: what becomes of them, and the report.

One rule for all published forms (docs/targets.md, "Bad boxes"): a box that is
upside down or not finite is a mistake of its file, which readers refuse by
file, image and object. One without an area stays, marked by its own
coordinates, and one that lies outside its image is left out; both are counted
here and named. One that reaches beyond the image stays as it is.
"""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

_NUM_SHOWN = 3


@dataclasses.dataclass(frozen=True, eq=False)
class Checked:
  """What is said of A boxes: bool [A] each.

  Attributes:
    outside: no part of it lies in its image.
    beyond: a part of it does not.
    empty: it has no area, and is not outside.
  """

  outside: np.ndarray
  beyond: np.ndarray
  empty: np.ndarray


def check(boxes: np.ndarray, sizes: np.ndarray) -> Checked:
  """Looks at boxes.

  Args:
    boxes: float [A, 4] y0, x0, y1, x1 with y0 <= y1 and x0 <= x1.
    sizes: [A, 2] height and width of their images; 0 where not known.
  """
  low, high = boxes[:, :2], boxes[:, 2:]
  limit = np.where(sizes > 0, sizes, np.inf)
  outside: np.ndarray = np.any((high <= 0) | (low >= limit), axis=1)
  beyond: np.ndarray = np.any((low < 0) | (high > limit), axis=1)
  empty: np.ndarray = np.any(high <= low, axis=1)
  beyond, empty = beyond & ~outside, empty & ~outside
  return Checked(outside, beyond, empty)


def line(
  checked: Checked,
  name: Callable[[int], str],
  num_imageless: int,
  *,
  crowd: np.ndarray | None = None,
  difficult: np.ndarray | None = None,
) -> str:
  """The line of the report.

  Args:
    checked: of all boxes, those outside among them.
    name: number of a box -> image and box, for people.
    num_imageless: images without a box.
    crowd, difficult: bool [A], marks of the boxes, where the form has them.
  """
  kept = ~checked.outside
  parts = [f'{kept.sum():,} boxes']
  if crowd is not None:
    parts.append(f'{crowd[kept].sum():,} of crowds')
  if difficult is not None:
    parts.append(f'{difficult[kept].sum():,} difficult (kept, marked)')
  for mask, text in (
    (checked.empty, 'without an area (kept)'),
    (checked.outside, 'outside their images (left out)'),
  ):
    named = _named(np.flatnonzero(mask).tolist(), name)
    parts.append(f'{mask.sum():,} {text}{named}')
  parts.append(f'{checked.beyond.sum():,} reach beyond the image (kept)')
  parts.append(f'{num_imageless:,} images without a box (kept)')
  return ', '.join(parts)


def _named(rows: Sequence[int], name: Callable[[int], str]) -> str:
  """': first; second; ...', of some rows."""
  if not rows:
    return ''
  more = '; ...' if len(rows) > _NUM_SHOWN else ''
  return f': {"; ".join(map(name, rows[:_NUM_SHOWN]))}{more}'
