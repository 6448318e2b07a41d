"""The boxes or poses of a data set as the truth of a set of named images."""

from typing import Any

import numpy as np

from big_vision_like.metrics import box_pairs, coco_keypoints
from input_pipeline.labels.space import LabelSpace
from input_pipeline.truth import true_boxes, true_keypoints

from ..cli import data_argument
from .annotated import Annotated
from .coco_entries import stem

# Of these a development kit of VOC is read for its masks unless it is said.
_WITH_MASKS_TOO = ('detect', 'voc')
# These have files of keypoints beside others; the task that reads them.
_POSE_TASKS = {'coco': 'keypoints', 'detect': 'pose'}


def boxes(
  place: str, ignored: str, flag: str, *, trusted: bool = False
) -> Annotated[box_pairs.Truth]:
  """Reads the boxes of all records of a data set.

  Args:
    place: KIND:PATH:SPLIT, as tools take data sets.
    ignored: field of the boxes that count neither way.
    flag: for messages.
    trusted: whether a config.json may name modules of others.

  Raises:
    FileNotFoundError, ValueError: no such data set, one without boxes, or two
      images of one name.
  """
  options = data_argument.parse(place, flag, trusted=trusted)
  if options['type'] in _WITH_MASKS_TOO:
    options.setdefault('task', 'detection')
  source = data_argument.open_source(options, flag)
  numbers, images = _images(source, f'{flag} {place}')
  columns = list(true_boxes.read(source, ignored, flag))
  columns[0] = numbers[columns[0]]
  names = source.vocabulary.names
  return Annotated(
    place, names, _categories(names), images, box_pairs.Truth(*columns)
  )


def poses(
  place: str, flag: str, *, trusted: bool = False
) -> Annotated[coco_keypoints.Truth]:
  """Reads the keypoints of all records of a data set.

  Args:
    place, flag, trusted: see `boxes`.

  Raises:
    FileNotFoundError, ValueError: no such data set, one without keypoints, or
      two images of one name.
  """
  options = data_argument.parse(place, flag, trusted=trusted)
  if options['type'] in _POSE_TASKS:
    options.setdefault('task', _POSE_TASKS[options['type']])
  source = data_argument.open_source(options, flag)
  numbers, images = _images(source, f'{flag} {place}')
  columns = list(true_keypoints.read(source, flag))
  if not len(columns[0]):
    raise ValueError(f'{flag} {place}: no image has a box, so no keypoints')
  columns[0] = numbers[columns[0]]
  names = source.vocabulary.names
  return Annotated(
    place,
    names,
    _categories(names),
    images,
    coco_keypoints.Truth(*columns),
    LabelSpace.of_source(source).keypoints,
  )


def _categories(names: tuple[str, ...]) -> dict[Any, int]:
  """Class of a number, counted from 1, and of a name."""
  return {
    **{i + 1: i for i in range(len(names))},
    **{name: i for i, name in enumerate(names)},
  }


def _images(source: Any, where: str) -> tuple[np.ndarray, dict[str, int]]:
  """Numbers of the images int64 [n], and those by the names of their files."""
  images: dict[str, int] = {}
  numbers = true_boxes.image_numbers(source)
  for index in range(len(source)):
    key = stem(source.key(index))
    if key in images:
      raise ValueError(f'{where}: two images are called {key!r}')
    images[key] = int(numbers[index])
  return numbers, images
