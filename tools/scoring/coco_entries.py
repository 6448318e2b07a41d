"""Entries of COCO's JSON: their ids, names, places and numbers, checked.

Every message names the file and the entry.
"""

import dataclasses
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from input_pipeline.labels import text_lines

_SHOWN = 5
Entry = tuple[dict[str, Any], str]  # and where it is, for messages


@dataclasses.dataclass(frozen=True, eq=False)
class Listed:
  """What a file of annotations lists.

  Attributes:
    names: of the classes, by rising number of their category.
    categories: number of a category -> class.
    images: number of an image -> its place among all by rising number.
    annotations: as in the file.
    category_entries: of the classes.
  """

  names: tuple[str, ...]
  categories: Mapping[Any, int]
  images: Mapping[Any, int]
  annotations: list[Entry]
  category_entries: list[Entry]


def listed(path: str) -> Listed:
  """The lists of a JSON of annotations, their ids and names checked.

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
  return Listed(names, classes, positions, annotations, order)


def detections(path: str, *, by_name: bool) -> Iterator[Entry]:
  """The entries of a list of results.

  Args:
    path: of the file.
    by_name: images are known by `file_name` or `image_id` as the stem of a file
      name, categories also by `category`, a name.

  Raises:
    FileNotFoundError, ValueError: no such file; names the entry.
  """
  for number, entry in enumerate(_json(path, list, 'a list of detections')):
    where = f'{path}: entry {number}'
    if not isinstance(entry, dict):
      raise ValueError(f'{where}: expected an object, got {entry!r:.60}')
    yield _with_names(entry) if by_name else entry, where


def stem(name: str) -> str:
  """'VOC2007/000005.jpg' -> '000005'."""
  return os.path.splitext(os.path.basename(name))[0]


def _with_names(entry: Mapping[str, Any]) -> dict[str, Any]:
  """An entry whose image and category are as a set of named images has them."""
  found = dict(entry)
  image = entry.get('file_name', entry.get('image_id'))
  if image is not None:
    found['image_id'] = stem(image) if isinstance(image, str) else image
  if 'category' in entry:
    found['category_id'] = entry['category']
  return found


def _json(path: str, kind: type, what: str) -> Any:
  """The contents of a file."""
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


def _entries(data: Mapping[str, Any], name: str, path: str) -> list[Entry]:
  """Those of a list of the file."""
  found = data.get(name)
  if not isinstance(found, list):
    raise ValueError(f'{path}: no list {name!r}; is it an instances_*.json?')
  for number, entry in enumerate(found):
    if not isinstance(entry, dict):
      raise ValueError(f'{path}: {name}[{number}] is {entry!r:.60}')
  return [(e, f'{path}: {name}[{i}]') for i, e in enumerate(found)]


def _by_id(entries: Sequence[Entry]) -> list[Entry]:
  """Entries by rising id.

  Raises:
    ValueError: an id that is neither a number nor a text, or both occur.
  """
  kinds: dict[type, str] = {}
  for entry, where in entries:
    number = get(entry, 'id', where)
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


def _numbered(entries: Sequence[Entry], path: str, what: str) -> dict[Any, int]:
  """Id -> place among the entries."""
  ids = [entry['id'] for entry, _ in entries]
  found = {number: i for i, number in enumerate(ids)}
  if len(found) < len(ids):
    repeated = next(n for i, n in enumerate(ids) if found[n] != i)
    raise ValueError(f'{path}: {what} id {repeated!r} occurs twice')
  return found


def _name(entry: Mapping[str, Any], where: str) -> str:
  name = get(entry, 'name', where)
  if not isinstance(name, str) or not name:
    raise ValueError(f'{where}: name must be a text, got {name!r:.60}')
  return name


def get(entry: Mapping[str, Any], key: str, where: str) -> Any:
  """The value of a key, which must be there."""
  if key not in entry:
    raise ValueError(f'{where}: has no {key!r}')
  return entry[key]


def places(
  entry: Mapping[str, Any],
  where: str,
  images: Mapping[Any, int],
  categories: Mapping[Any, int],
  origin: str = 'the file',
) -> tuple[int, int]:
  """(image, class) of an entry."""
  found = []
  for key, known in (('image_id', images), ('category_id', categories)):
    number = get(entry, key, where)
    if isinstance(number, list | dict) or number not in known:
      few = ', '.join(repr(n) for n in list(known)[:_SHOWN])
      raise ValueError(
        f'{where}: {key} {number!r:.60} is not in {origin}; there are '
        f'{len(known):,}: {few}{", ..." if len(known) > _SHOWN else ""}'
      )
    found.append(known[number])
  return found[0], found[1]


def box(entry: Mapping[str, Any], where: str) -> list[float]:
  """`bbox`."""
  found = get(entry, 'bbox', where)
  if not isinstance(found, list) or len(found) != 4:
    raise ValueError(
      f'{where}: bbox must be [x, y, width, height], got {found!r:.80}'
    )
  values = [finite(value, f'{where}: bbox') for value in found]
  if min(values[2:]) < 0:
    raise ValueError(f'{where}: bbox {found} has a negative width or height')
  return values


def area(entry: Mapping[str, Any], box: Sequence[float], where: str) -> float:
  """`area`; that of the box where there is none."""
  found = finite(entry.get('area', box[2] * box[3]), f'{where}: area')
  if found < 0:
    raise ValueError(f'{where}: area must be at least 0, got {found:g}')
  return found


def crowd(entry: Mapping[str, Any], where: str) -> bool:
  """`iscrowd`; false where there is none."""
  found = entry.get('iscrowd', 0)
  if found not in (0, 1):  # true and false are
    raise ValueError(f'{where}: iscrowd must be 0 or 1, got {found!r:.40}')
  return bool(found)


def score(entry: Mapping[str, Any], where: str) -> float:
  """`score`."""
  return finite(get(entry, 'score', where), f'{where}: score')


def finite(value: Any, where: str) -> float:
  """A number that is one."""
  if type(value) not in (int, float) or not abs(value) < 1e12:
    raise ValueError(f'{where}: expected a finite number, got {value!r:.40}')
  return float(value)
