"""YOLO's text form of boxes: `class cx cy width height` a line, in shares of
the image's sides; names of the classes, and where splits lie, in data.yaml.
"""

import os
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from input_pipeline.files import retries
from input_pipeline.labels import plain_yaml, text_lines
from input_pipeline.labels import vocabulary as vocabularies
from input_pipeline.labels.vocabulary import Vocabulary

YAML_FILES = ('data.yaml', 'data.yml', 'dataset.yaml', 'dataset.yml')
NAME_FILES = ('classes.txt', 'obj.names', 'names.txt', '_darknet.labels')
SPLITS = ('train', 'val', 'valid', 'test')
_COLUMNS = 5
_ROUNDING = 1e-3  # of a side, by which sums of rounded numbers pass the border


class Description(NamedTuple):
  """What describes a data set beside its labels.

  Attributes:
    vocabulary: the classes, numbered from 0.
    splits: split -> what data.yaml says of its images: folders or lists,
      relative to `root`.
    root: folder that these are relative to.
    origin: the data.yaml, '' where there is none.
  """

  vocabulary: Vocabulary
  splits: Mapping[str, tuple[str, ...]]
  root: str
  origin: str


def describe(path: str, vocabulary: str | None) -> Description:
  """Classes and splits of a data set in a folder.

  Args:
    path: the folder.
    vocabulary: file of the classes, instead of the folder's own.

  Raises:
    FileNotFoundError: nothing names the classes.
    ValueError: a file that is not as it should be, or two lists of classes of
      different lengths.
  """
  found = [n for n in YAML_FILES if os.path.isfile(os.path.join(path, n))]
  content: Mapping[str, Any] = {}
  where = os.path.join(path, found[0]) if found else ''
  if found:
    content = _read_yaml(where)
  root = path
  given = content.get('path')
  if isinstance(given, str) and os.path.isdir(os.path.join(path, given)):
    root = os.path.join(path, given)
  names = _names(content, where)
  lists = [n for n in NAME_FILES if os.path.isfile(os.path.join(path, n))]
  if vocabulary is not None:
    classes = vocabularies.load(vocabulary)
  elif names is not None:
    classes = Vocabulary(names, origin=where)
  elif lists:
    classes = _read_names(os.path.join(path, lists[0]))
  else:
    raise FileNotFoundError(
      f'{path}: nothing names the classes: no {YAML_FILES[0]} with names, and '
      f'none of {", ".join(NAME_FILES[:2])}; or give the option vocabulary'
    )
  _compare_lengths(path, where, content, lists, names, classes, vocabulary)
  return Description(classes, _splits(content, where), root, where)


def _read_yaml(where: str) -> Mapping[str, Any]:
  with retries.open_binary(where) as file:
    data = file.read(plain_yaml.MAX_BYTES + 1)
  content = plain_yaml.parse(data, where)
  if not isinstance(content, Mapping):
    raise ValueError(f'{where}: expected keys and values, got {content!r:.60}')
  return content


def _names(content: Mapping[str, Any], where: str) -> tuple[str, ...] | None:
  """Names of the classes; a list, or a map from their numbers."""
  names = content.get('names')
  if names is None:
    return None
  if isinstance(names, Mapping):
    if sorted(map(str, names)) != sorted(map(str, range(len(names)))):
      raise ValueError(
        f'{where}: names must have the numbers 0 to {len(names) - 1}, got '
        f'{", ".join(map(str, names)):.80}'
      )
    by_number = {str(number): name for number, name in names.items()}
    names = [by_number[str(i)] for i in range(len(by_number))]
  if not isinstance(names, list) or not names:
    raise ValueError(f'{where}: names must be a list, got {names!r:.60}')
  return tuple(
    text_lines.check_name(str(name), f'{where}: names[{i}]')
    for i, name in enumerate(names)
  )


def _read_names(where: str) -> Vocabulary:
  lines = text_lines.read(where)
  while lines and not lines[-1].strip():
    lines.pop()
  return Vocabulary(tuple(line.strip() for line in lines), origin=where)


def _compare_lengths(
  path: str,
  where: str,
  content: Mapping[str, Any],
  lists: list[str],
  names: tuple[str, ...] | None,
  classes: Vocabulary,
  vocabulary: str | None,
) -> None:
  """ValueError where two places tell of different numbers of classes."""
  counts = {}
  if names is not None:
    counts[f'names of {where}'] = len(names)
  if isinstance(content.get('nc'), int):
    counts[f'nc of {where}'] = content['nc']
  for name in lists:
    file = os.path.join(path, name)
    counts[file] = len(_read_names(file))
  if vocabulary is not None:
    counts[vocabulary] = len(classes)
  if len(set(counts.values())) > 1:
    listed = ', '.join(f'{count} in {place}' for place, count in counts.items())
    raise ValueError(f'{path}: different numbers of classes: {listed}')


def _splits(
  content: Mapping[str, Any], where: str
) -> dict[str, tuple[str, ...]]:
  found = {}
  for split in SPLITS:
    value = content.get(split)
    if value is None or value == '':
      continue
    values = value if isinstance(value, list) else [value]
    if not all(isinstance(v, str) for v in values):
      raise ValueError(
        f'{where}: {split} must be a folder or a list of images, got '
        f'{value!r:.60}'
      )
    found[split] = tuple(values)
  return found


def parse(
  data: bytes, where: str, num_classes: int
) -> tuple[np.ndarray, np.ndarray]:
  """(boxes float32 [N, 4] y0, x0, y1, x1 in shares of the sides, labels [N]).

  Raises:
    ValueError: not such a file, a class that there is not, a number outside
      0 to 1; names the line.
  """
  try:
    lines = data.decode('utf-8-sig').splitlines()
  except UnicodeDecodeError as error:
    line = data.count(b'\n', 0, error.start) + 1
    raise ValueError(f'{where}:{line}: not UTF-8: {error.reason}') from None
  labels, boxes = [], []
  for number, line in enumerate(lines, 1):
    fields = line.split()
    if not fields:
      continue
    place = f'{where}:{number}'
    if len(fields) != _COLUMNS:
      more = ' (polygons and keypoints are not boxes)'
      raise ValueError(
        f'{place}: expected class, cx, cy, width, height, got {len(fields)} '
        f'numbers{more if len(fields) > _COLUMNS else ""}'
      )
    labels.append(_class(fields[0], num_classes, place))
    boxes.append(_box(fields[1:], place))
  return (
    np.array(boxes, np.float32).reshape(-1, 4),
    np.array(labels, np.int32),
  )


def _class(text: str, num_classes: int, place: str) -> int:
  if not (text.isascii() and text.isdecimal() and len(text) < 10):
    raise ValueError(f'{place}: a class is a number from 0, got {text!r:.40}')
  if int(text) >= num_classes:
    raise ValueError(
      f'{place}: class {int(text)}, but there are {num_classes} classes: 0 to '
      f'{num_classes - 1}'
    )
  return int(text)


def _box(fields: list[str], place: str) -> tuple[float, float, float, float]:
  values = []
  for name, text in zip(('cx', 'cy', 'width', 'height'), fields):
    value = text_lines.number(text)
    if not 0 <= value <= 1:
      raise ValueError(
        f'{place}: {name} must be a share of the image, 0 to 1, got '
        f'{text!r:.40}'
      )
    values.append(value)
  cx, cy, width, height = values
  sides = cy - height / 2, cx - width / 2, cy + height / 2, cx + width / 2
  y0, x0, y1, x1 = map(_snapped, sides)
  return y0, x0, y1, x1


def _snapped(side: float) -> float:
  """On the border, where it passes that by no more than its rounding."""
  inside = min(max(side, 0.0), 1.0)
  return inside if abs(side - inside) <= _ROUNDING else side
