"""The annotated keypoints of all records of a source as flat arrays."""

from typing import Any

import numpy as np

from input_pipeline.examples.errors import record_named
from input_pipeline.truth import objects, true_boxes


def read(source: Any, where: str) -> tuple[np.ndarray, ...]:
  """Columns of A objects: what metrics of poses call a truth.

  An object whose keypoints are all unlabelled is among them. They come by
  record and, within one, in the order of its boxes. Pixels are those of the
  original image, where the record's is smaller too.

  Args:
    source: random-access source of records with 'boxes', 'box_labels' and
      'keypoints'.
    where: of messages.

  Returns:
    images int64 [A] index of the record, labels int64 [A], keypoints float64
    [A, K, 3] x, y, visibility, boxes float64 [A, 4] x, y, width, height, area
    float64 [A] (of the box where the record does not say it) and crowd bool
    [A]. K is 0 where there is no object.

  Raises:
    ValueError: a record without boxes or keypoints, one that cannot be used,
      or one with another number of keypoints than those before.
  """
  found, points, first = [], [], None
  for index in range(len(source)):
    with record_named(source, index, where):
      example = source[index]
      if 'boxes' not in example:
        raise ValueError(true_boxes.boxless(source, index, where))
      if not len(example['boxes']):
        continue
      if 'keypoints' not in example:
        raise ValueError(
          f'{where}: {source.key(index)} has no keypoints; it must be a data '
          'set of poses'
        )
      ratio = objects.ratio(example)
      try:
        found.append(objects.of_record(example, index))
      except ValueError as error:
        raise ValueError(f'{where}: {source.key(index)}: {error}') from None
    own = xyv(np.asarray(example['keypoints']))
    own[..., :2] *= ratio[::-1]
    first = (index, own.shape[1]) if first is None else first
    if own.shape[1] != first[1]:
      raise ValueError(
        f'{where}: {source.key(index)} has {own.shape[1]} keypoints a box, '
        f'{source.key(first[0])} {first[1]}'
      )
    points.append(own)
  every = objects.joined(found)
  return (
    every.image,
    every.labels.astype(np.int64),
    np.concatenate(points) if points else np.zeros((0, 0, 3)),
    true_boxes.xywh(every.boxes),
    every.area.astype(np.float64),
    every.crowd,
  )


def xyv(keypoints: np.ndarray) -> np.ndarray:
  """[..., 3] y, x and a third -> float64 [..., 3] x, y and the third."""
  return keypoints.astype(np.float64)[..., [1, 0, 2]]
