"""Boxes of a record of tensorflow-datasets: a sequence of objects.

Its builders of COCO and VOC have a sequence `objects` with `bbox`, in shares of
the image's sides, `label`, and what else is known of an object, under the
names below. Their VOC divides the numbers of the XML as they stand: its boxes
begin one pixel further right and down than those of the source `voc`.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from input_pipeline.examples.errors import BadExample
from input_pipeline.files import image_files

BOX, LABEL = 'bbox', 'label'
# Feature of an object -> (field of an example, its type).
_MORE = {
  'is_crowd': ('box_crowd', np.bool_),
  'is_difficult': ('box_difficult', np.bool_),
  'area': ('box_area', np.float32),
  'id': ('box_ids', np.int64),
}
_IMAGE_ID = 'image/id'


def check(features: Any, name: str, where: str) -> None:
  """ValueError where a feature is no sequence of objects with boxes."""
  inside: Any = {}
  if name in features:
    inside = getattr(features[name], 'feature', features[name])
  if not hasattr(inside, 'keys') or not {BOX, LABEL} <= {*inside.keys()}:
    raise ValueError(
      f'{where}: objects_feature={name!r} must be a sequence with {BOX} and '
      f'{LABEL}; features: {", ".join(features)}'
    )


def fields(
  record: Mapping[str, Any], name: str, image: bytes, ids: np.ndarray
) -> dict[str, Any]:
  """The fields of examples/annotations.py.

  Args:
    record: of the data set.
    name: its sequence of objects.
    image: encoded.
    ids: int32, the label of each class of the feature.

  Raises:
    BadExample: the image has no size, or a box is not finite, upside down or
      of a class that there is not.
  """
  objects = record[name]
  size = image_files.header_size(image)
  if size is None:
    raise BadExample('the image has no size that can be read')
  shares = np.asarray(objects[BOX], np.float64).reshape(-1, 4)
  labels = np.asarray(objects[LABEL], np.int64).reshape(-1)
  for number, (box, label) in enumerate(zip(shares, labels.tolist())):
    if not np.isfinite(box).all() or (box[2:] < box[:2]).any():
      raise BadExample(
        f'{name}[{number}]: bbox {box.tolist()} is not finite or upside down'
      )
    if not 0 <= label < len(ids):
      raise BadExample(
        f'{name}[{number}]: label {label} is not in 0..{len(ids) - 1}'
      )
  found = {
    'boxes': (shares * np.tile(np.array(size), 2)).astype(np.float32),
    'box_labels': ids[labels],
  }
  for feature, (field, dtype) in _MORE.items():
    if feature in objects:
      found[field] = np.asarray(objects[feature]).reshape(-1).astype(dtype)
  if _IMAGE_ID in record:
    found['image_id'] = np.asarray(record[_IMAGE_ID], np.int64).reshape(1)
  return found
