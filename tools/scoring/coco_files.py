"""Truth and results as COCO's JSON, numbers as they are written.

A record's boxes are float32 corners; here they stay float64 x, y, width and
height, so that figures are those of COCO's own program to the last digit.
"""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from big_vision_like.metrics.box_pairs import Detections, Truth
from input_pipeline.labels import text_lines

_SHOWN = 5
_Entry = tuple[dict[str, Any], str]  # and where it is, for messages


@dataclasses.dataclass(frozen=True, eq=False)
class Annotated:
  """The truth of a set.

  Attributes:
    origin: file or data set, for messages.
    names: of the C classes.
    categories: number of a category in the file -> class.
    images: number or name of an image in results -> its number in the truth,
      which rises as the publisher's does.
    truth: boxes by image and class.
  """

  origin: str
  names: tuple[str, ...]
  categories: Mapping[Any, int]
  images: Mapping[Any, int]
  truth: Truth


def truth(path: str) -> Annotated:
  """An instances_*.json.

  `iscrowd` that is not there is 0, and `area` that is not there that of the
  box.

  Raises:
    FileNotFoundError, ValueError: no such file; names the entry.
  """
  data = _json(path, dict, 'an object with images, annotations, categories')
  images, annotations, categories = (
    _entries(data, name, path)
    for name in ('images', 'annotations', 'categories')
  )
  # By rising number, as COCO's own program orders them: the order decides
  # between detections of equal scores.
  positions = _numbered(_by_id(images), path, 'image')
  order = _by_id(categories)
  classes = _numbered(order, path, 'category')
  names = tuple(_name(entry, where) for entry, where in order)
  repeated = [name for name in names if names.count(name) > 1]
  if repeated:
    raise ValueError(f'{path}: two categories are called {repeated[0]!r}')
  _numbered(_by_id(annotations), path, 'annotation')
  rows, boxes, area, crowd = [], [], [], []
  for entry, where in annotations:
    rows.append(_places(entry, where, positions, classes))
    boxes.append(_box(entry, where))
    area.append(_area(entry, boxes[-1], where))
    crowd.append(_crowd(entry, where))
  places = np.array(rows, np.int64).reshape(-1, 2)
  return Annotated(
    path,
    names,
    classes,
    positions,
    Truth(
      places[:, 0],
      places[:, 1],
      np.array(boxes, np.float64).reshape(-1, 4),
      np.array(area, np.float64),
      np.array(crowd, bool),
    ),
  )


def results(path: str, of: Annotated, *, by_name: bool = False) -> Detections:
  """A list of {image_id, category_id, bbox, score}.

  Args:
    path: of the file.
    of: the truth that it is for.
    by_name: images are known by `file_name` or `image_id` as the stem of a file
      name, categories also by `category`, a name.

  Raises:
    FileNotFoundError, ValueError: no such file, or an entry of an image or a
      category that the truth has not; names the entry.
  """
  rows, boxes, scores = [], [], []
  for number, entry in enumerate(_json(path, list, 'a list of detections')):
    where = f'{path}: entry {number}'
    if not isinstance(entry, dict):
      raise ValueError(f'{where}: expected an object, got {entry!r:.60}')
    if by_name:
      entry = _named(entry)
    rows.append(_places(entry, where, of.images, of.categories, of.origin))
    boxes.append(_box(entry, where))
    scores.append(_finite(_get(entry, 'score', where), f'{where}: score'))
  places = np.array(rows, np.int64).reshape(-1, 2)
  return Detections(
    places[:, 0],
    places[:, 1],
    np.array(boxes, np.float64).reshape(-1, 4),
    np.array(scores, np.float64),
  )


def stem(name: str) -> str:
  """'VOC2007/000005.jpg' -> '000005'."""
  return os.path.splitext(os.path.basename(name))[0]


def _named(entry: Mapping[str, Any]) -> dict[str, Any]:
  """An entry whose image and category are as a set of named images has them."""
  named = dict(entry)
  image = entry.get('file_name', entry.get('image_id'))
  if image is not None:
    named['image_id'] = stem(image) if isinstance(image, str) else image
  if 'category' in entry:
    named['category_id'] = entry['category']
  return named


def _json(path: str, kind: type, what: str) -> Any:
  with open(path, 'rb') as file:
    data = file.read()
  try:
    text = data.decode()
  except UnicodeDecodeError:
    raise ValueError(f'{path}: not JSON: not UTF-8') from None
  found = text_lines.parse_json(text, path, constants=True)
  if not isinstance(found, kind):
    raise ValueError(f'{path}: expected {what}, got {found!r:.60}')
  return found


def _entries(data: Mapping[str, Any], name: str, path: str) -> list[_Entry]:
  """Those of a list of the file."""
  entries = data.get(name)
  if not isinstance(entries, list):
    raise ValueError(f'{path}: no list {name!r}; is it an instances_*.json?')
  for number, entry in enumerate(entries):
    if not isinstance(entry, dict):
      raise ValueError(f'{path}: {name}[{number}] is {entry!r:.60}')
  return [(e, f'{path}: {name}[{i}]') for i, e in enumerate(entries)]


def _by_id(entries: Sequence[_Entry]) -> list[_Entry]:
  """Entries by rising id.

  Raises:
    ValueError: an id that is neither a number nor a text, or both occur.
  """
  kinds: dict[type, str] = {}
  for entry, where in entries:
    number = _get(entry, 'id', where)
    if type(number) not in (int, str):
      raise ValueError(
        f'{where}: id must be a whole number or a text, got {number!r:.60}'
      )
    kinds.setdefault(type(number), where)
  if len(kinds) > 1:
    raise ValueError(
      f'{kinds[str]}: its id is a text, and that of {kinds[int]} a number'
    )
  return sorted(entries, key=lambda entry: entry[0]['id'])


def _numbered(
  entries: Sequence[_Entry], path: str, what: str
) -> dict[Any, int]:
  """Id -> place among the entries."""
  ids = [entry['id'] for entry, _ in entries]
  found = {number: i for i, number in enumerate(ids)}
  if len(found) < len(ids):
    repeated = next(n for i, n in enumerate(ids) if found[n] != i)
    raise ValueError(f'{path}: {what} id {repeated!r} occurs twice')
  return found


def _name(entry: Mapping[str, Any], where: str) -> str:
  name = _get(entry, 'name', where)
  if not isinstance(name, str) or not name:
    raise ValueError(f'{where}: name must be a text, got {name!r:.60}')
  return name


def _get(entry: Mapping[str, Any], key: str, where: str) -> Any:
  if key not in entry:
    raise ValueError(f'{where}: has no {key!r}')
  return entry[key]


def _places(
  entry: Mapping[str, Any],
  where: str,
  images: Mapping[Any, int],
  categories: Mapping[Any, int],
  origin: str = 'the file',
) -> tuple[int, int]:
  """(image, class) of an entry."""
  found = []
  for key, known in (('image_id', images), ('category_id', categories)):
    number = _get(entry, key, where)
    if isinstance(number, list | dict) or number not in known:
      few = ', '.join(repr(n) for n in list(known)[:_SHOWN])
      raise ValueError(
        f'{where}: {key} {number!r:.60} is not in {origin}; there are '
        f'{len(known):,}: {few}{", ..." if len(known) > _SHOWN else ""}'
      )
    found.append(known[number])
  return found[0], found[1]


def _box(entry: Mapping[str, Any], where: str) -> list[float]:
  box = _get(entry, 'bbox', where)
  if not isinstance(box, list) or len(box) != 4:
    raise ValueError(
      f'{where}: bbox must be [x, y, width, height], got {box!r:.80}'
    )
  values = [_finite(value, f'{where}: bbox') for value in box]
  if min(values[2:]) < 0:
    raise ValueError(f'{where}: bbox {box} has a negative width or height')
  return values


def _area(entry: Mapping[str, Any], box: Sequence[float], where: str) -> float:
  area = _finite(entry.get('area', box[2] * box[3]), f'{where}: area')
  if area < 0:
    raise ValueError(f'{where}: area must be at least 0, got {area:g}')
  return area


def _crowd(entry: Mapping[str, Any], where: str) -> bool:
  crowd = entry.get('iscrowd', 0)
  if crowd not in (0, 1):  # true and false are
    raise ValueError(f'{where}: iscrowd must be 0 or 1, got {crowd!r:.40}')
  return bool(crowd)


def _finite(value: Any, where: str) -> float:
  if type(value) not in (int, float) or not abs(value) < 1e12:
    raise ValueError(f'{where}: expected a finite number, got {value!r:.40}')
  return float(value)
