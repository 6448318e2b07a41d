"""Boxes of a truth and of results as COCO's JSON, numbers as they are written.

A record's boxes are float32 corners; here they stay float64 x, y, width and
height, so that figures are those of COCO's own program to the last digit.
"""

import numpy as np

from big_vision_like.metrics.box_pairs import Detections, Truth

from . import coco_entries as coco
from .annotated import Annotated


def truth(path: str) -> Annotated[Truth]:
  """An instances_*.json.

  `iscrowd` that is not there is 0, and `area` that is not there that of the
  box.

  Raises:
    FileNotFoundError, ValueError: no such file; names the entry.
  """
  listed = coco.listed(path)
  rows, boxes, area, crowd = [], [], [], []
  for entry, where in listed.annotations:
    rows.append(coco.places(entry, where, listed.images, listed.categories))
    boxes.append(coco.box(entry, where))
    area.append(coco.area(entry, boxes[-1], where))
    crowd.append(coco.crowd(entry, where))
  places = np.array(rows, np.int64).reshape(-1, 2)
  return Annotated(
    path,
    listed.names,
    listed.categories,
    listed.images,
    Truth(
      places[:, 0],
      places[:, 1],
      np.array(boxes, np.float64).reshape(-1, 4),
      np.array(area, np.float64),
      np.array(crowd, bool),
    ),
  )


def results(
  path: str, of: Annotated[Truth], *, by_name: bool = False
) -> Detections:
  """A list of {image_id, category_id, bbox, score}.

  Args:
    path: of the file.
    of: the truth that it is for.
    by_name: see `coco_entries.detections`.

  Raises:
    FileNotFoundError, ValueError: no such file, or an entry of an image or a
      category that the truth has not; names the entry.
  """
  rows, boxes, scores = [], [], []
  for entry, where in coco.detections(path, by_name=by_name):
    rows.append(coco.places(entry, where, of.images, of.categories, of.origin))
    boxes.append(coco.box(entry, where))
    scores.append(coco.score(entry, where))
  places = np.array(rows, np.int64).reshape(-1, 2)
  return Detections(
    places[:, 0],
    places[:, 1],
    np.array(boxes, np.float64).reshape(-1, 4),
    np.array(scores, np.float64),
  )
