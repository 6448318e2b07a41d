"""Poses of a truth and of results as COCO's JSON, numbers as they are written.

Keypoints are float64 x, y and visibility, K of them one after the other.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from big_vision_like.metrics.coco_keypoints import Poses, Truth
from input_pipeline.publishers.coco import skeletons

from . import coco_entries as coco
from .annotated import Annotated

_OWN = 'is it a person_keypoints_*.json?'


def truth(path: str) -> Annotated[Truth]:
  """A person_keypoints_*.json.

  `iscrowd` that is not there is 0, and `area` that is not there that of the
  box. Its skeleton has sigmas where the keypoints are COCO's 17 of persons, by
  their names or, where the file has none, by their number.

  Raises:
    FileNotFoundError, ValueError: no such file, or one without keypoints; names
      the entry.
  """
  listed = coco.listed(path)
  names = _keypoint_names(listed.category_entries)
  num = 3 * len(names)
  rows, points, boxes, area, crowd = [], [], [], [], []
  for entry, where in listed.annotations:
    rows.append(coco.places(entry, where, listed.images, listed.categories))
    points.append(_annotated(entry, where, num))
    num = len(points[0])
    boxes.append(coco.box(entry, where))
    area.append(coco.area(entry, boxes[-1], where))
    crowd.append(coco.crowd(entry, where))
  if not points:
    raise ValueError(f'{path}: no annotation, so no keypoints; {_OWN}')
  places = np.array(rows, np.int64)
  return Annotated(
    path,
    listed.names,
    listed.categories,
    listed.images,
    Truth(
      places[:, 0],
      places[:, 1],
      np.array(points, np.float64).reshape(len(points), -1, 3),
      np.array(boxes, np.float64),
      np.array(area, np.float64),
      np.array(crowd, bool),
    ),
    skeletons.of(names or None, num // 3),
  )


def results(path: str, of: Annotated[Truth], *, by_name: bool = False) -> Poses:
  """A list of {image_id, category_id, keypoints, score}.

  The third number of a keypoint plays no part.

  Args:
    path: of the file.
    of: the truth that it is for.
    by_name: see `coco_entries.detections`.

  Raises:
    FileNotFoundError, ValueError: no such file, an entry of an image or a
      category that the truth has not, or of another number of keypoints; names
      the entry.
  """
  num_keypoints = of.truth.keypoints.shape[1]
  rows, points, scores = [], [], []
  for entry, where in coco.detections(path, by_name=by_name):
    rows.append(coco.places(entry, where, of.images, of.categories, of.origin))
    points.append(_numbers(entry, where, 3 * num_keypoints))
    scores.append(coco.score(entry, where))
  places = np.array(rows, np.int64).reshape(-1, 2)
  return Poses(
    places[:, 0],
    places[:, 1],
    np.array(points, np.float64).reshape(-1, num_keypoints, 3),
    np.array(scores, np.float64),
  )


def _keypoint_names(categories: Sequence[coco.Entry]) -> tuple[str, ...]:
  """Those of the categories that have some, () if none has.

  Raises:
    ValueError: no list of names, one that occurs twice, or two categories with
      different ones.
  """
  first: tuple[tuple[str, ...], str] | None = None
  for entry, where in categories:
    names = entry.get('keypoints', [])
    whole = isinstance(names, list) and all(isinstance(n, str) for n in names)
    if not whole or len(set(names)) < len(names):
      raise ValueError(
        f'{where}: keypoints must be a list of names that differ, got '
        f'{names!r:.80}'
      )
    if names and first is not None and tuple(names) != first[0]:
      raise ValueError(f'{where} and {first[1]} have different keypoints')
    if names and first is None:
      first = tuple(names), where
  return () if first is None else first[0]


def _annotated(entry: Mapping[str, Any], where: str, num: int) -> list[float]:
  """The keypoints of an annotation."""
  if 'keypoints' not in entry:
    raise ValueError(f"{where}: has no 'keypoints'; {_OWN}")
  values = _numbers(entry, where, num)
  seen = values[2::3]
  wrong = [value for value in seen if value not in (0, 1, 2)]
  if wrong:
    raise ValueError(f'{where}: visibility must be 0, 1 or 2, got {wrong[0]:g}')
  num_labelled = sum(value > 0 for value in seen)
  told = entry.get('num_keypoints', num_labelled)
  if (told == 0) != (num_labelled == 0):
    raise ValueError(
      f'{where}: num_keypoints is {told!r:.40}, but {num_labelled} of its '
      'keypoints have a visibility above 0'
    )
  return values


def _numbers(entry: Mapping[str, Any], where: str, num: int) -> list[float]:
  """`keypoints`: `num` numbers; 0: any number of threes but none."""
  values = coco.get(entry, 'keypoints', where)
  if not isinstance(values, list):
    raise ValueError(
      f'{where}: keypoints must be a list of numbers, got {values!r:.60}'
    )
  if not values or len(values) % 3 or num not in (0, len(values)):
    wanted = f'{num} numbers x, y, v of {num // 3}' if num else 'x, y, v of all'
    raise ValueError(
      f'{where}: keypoints must be {wanted} keypoints, got {len(values)} '
      'numbers'
    )
  place = f'{where}: keypoints'
  return [coco.finite(value, place) for value in values]
