"""Where people are in the images of tools.predict: by a detector, or a file."""

import argparse
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from big_vision_like.inference import detector, poses, stored_model

from ..scoring import coco_entries as coco
from . import image_list

PERSON = 'person'
LEAST_SCORE = 0.05  # of a box whose pose is looked for
_MOST = 100  # boxes of an image
_SHOWN = 5
_LARGEST = 1e9


def find(
  args: argparse.Namespace, found: image_list.Found
) -> tuple[poses.Boxes, dict[str, str]]:
  """The boxes of people, from what the command names.

  Returns:
    boxes, and key -> reason of the images that the detector could not use.

  Raises:
    FileNotFoundError, ValueError: neither a detector nor a file, no such one,
      or one that has no people.
  """
  if bool(args.detector) == bool(args.boxes):
    raise ValueError(
      'a model of poses needs to know where people are: give --detector RUN, a '
      'detector that finds them, or --boxes FILE, COCO results'
    )
  if args.detector:
    return _detected(args, found)
  return _of_file(args.boxes, args.people, found), {}


def _detected(
  args: argparse.Namespace, found: image_list.Found
) -> tuple[poses.Boxes, dict[str, str]]:
  model = stored_model.load(args.detector, '--detector', trusted=args.trust)
  finder = detector.Detector(model, workers=args.workers)
  wanted = _labels(model.space.names, args.people)
  rows: list[tuple[int, np.ndarray, float]] = []
  for one in finder.detections(found.source):
    likely = np.isin(one.labels, wanted) & (one.scores >= LEAST_SCORE)
    rows += [
      (one.index, one.boxes[i], float(one.scores[i]))
      for i in np.flatnonzero(likely)[:_MOST]
    ]
  return _boxes(rows), dict(finder.bad)


def _labels(names: tuple[str, ...], people: str | None) -> list[int]:
  """Ids of the classes that are people: 'person', or all where there is none.

  Raises:
    ValueError: no class of that name.
  """
  if people is None:
    return [names.index(PERSON)] if PERSON in names else [*range(len(names))]
  if people not in names:
    few = ', '.join(names[:_SHOWN]) + (', ...' if len(names) > _SHOWN else '')
    raise ValueError(
      f'--people={people!r}: the detector has no such class; it has {few}'
    )
  return [names.index(people)]


def _of_file(
  path: str, people: str | None, found: image_list.Found
) -> poses.Boxes:
  """COCO results; an image is known by `file_name`, or counted from 1."""
  images = _Images(found.source)
  rows = []
  categories = set()
  for entry, where in coco.detections(path, by_name=False):
    category = entry.get('category', entry.get('category_id'))
    if people is not None and str(category) != people:
      continue
    categories.add(str(category))
    where_score = f'{where}: score'
    score = coco.finite(entry.get('score', 1.0), where_score)
    _check_range([score], where_score)
    if score >= LEAST_SCORE:
      rows.append((images.of(entry, where), _box(entry, where), score))
  if len(categories) > 1:
    raise ValueError(
      f'{path}: boxes of the categories {", ".join(sorted(categories))}; '
      '--people says which of them are people'
    )
  if not rows:
    what = f' of category {people}' if people is not None else ''
    raise ValueError(f'{path}: no box{what} with a score from {LEAST_SCORE}')
  return _boxes(rows)


class _Images:
  """The images of the input by their paths, or by names that only one has."""

  def __init__(self, source: Any):
    self._num = len(source)
    self._keys = {source.key(i): i for i in range(self._num)}
    self._names: dict[str, list[int]] = {}
    for key, index in self._keys.items():
      self._names.setdefault(os.path.basename(key), []).append(index)

  def of(self, entry: Mapping[str, Any], where: str) -> int:
    """The image of an entry.

    Raises:
      ValueError: there is none, or several.
    """
    name, number = entry.get('file_name'), entry.get('image_id')
    index = None
    if isinstance(name, str):
      index = self._keys.get(name)
      alike = self._names.get(os.path.basename(name), [])
      if index is None and len(alike) > 1:
        raise ValueError(
          f'{where}: {len(alike)} images of --input are called {name!r:.60}; '
          'give their paths'
        )
      index = alike[0] if index is None and alike else index
    elif type(number) is int and 1 <= number <= self._num:
      index = number - 1
    if index is None:
      raise ValueError(
        f'{where}: file_name {name!r:.60}, image_id {number!r:.60}: no such '
        f'image among the {self._num:,} of --input'
      )
    return index


def _box(entry: Mapping[str, Any], where: str) -> np.ndarray:
  x, y, width, height = values = coco.box(entry, where)
  _check_range(values, f'{where}: bbox')
  if not (width > 0 and height > 0):
    raise ValueError(f'{where}: bbox {entry["bbox"]} has no area')
  return np.array([y, x, y + height, x + width], np.float32)


def _check_range(values: Sequence[float], where: str) -> None:
  """Refuses numbers that no image and no score has."""
  if max(map(abs, values)) >= _LARGEST:
    raise ValueError(f'{where}: expected numbers below {_LARGEST:g}')


def _boxes(rows: list[tuple[int, np.ndarray, float]]) -> poses.Boxes:
  """By image; in one, as they come."""
  rows = sorted(rows, key=lambda row: row[0])
  return poses.Boxes(
    np.array([row[0] for row in rows], np.int64),
    np.array([row[1] for row in rows], np.float32).reshape(-1, 4),
    np.array([row[2] for row in rows], np.float32),
  )
