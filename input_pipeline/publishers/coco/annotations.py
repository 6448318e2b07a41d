"""COCO's annotation files as flat arrays, with every number checked.

An `instances_*.json` or `person_keypoints_*.json` holds lists of images,
annotations and categories in no promised order. Coordinates become this
project's: y0, x0, y1, x1 with y1 = y + height, and y, x, visibility.
"""

import array
import dataclasses
from collections.abc import Sequence
from typing import Any

import msgpack
import numpy as np

from input_pipeline.labels import matching, ragged, text_lines
from input_pipeline.labels.space import LabelSpace
from input_pipeline.labels.vocabulary import Vocabulary
from input_pipeline.publishers.coco.json_lists import JsonLists

_ROW = 5  # numbers of an annotation: offset, three ids, crowd
_MAX_ID = 1 << 53
_MAX_SUM = 1e12  # of a list's numbers: far above any image, finite in float32


@dataclasses.dataclass(frozen=True, eq=False)
class Annotations:
  """One annotation file: I images, A annotations in the order of the images.

  Attributes:
    origin: the file, for messages.
    category_ids: ascending ids of the C categories.
    categories: their names; label i is category_ids[i].
    image_ids: int64 [I], in the order of the file.
    file_names: of the images.
    sizes: int32 [I, 2] height and width.
    ends: int64 [I + 1]; annotations of image i: ends[i] to ends[i + 1].
    boxes: float32 [A, 4] y0, x0, y1, x1.
    labels: int32 [A].
    crowd: bool [A].
    area: float32 [A], of the outline, in pixels^2; of the box where the file
      has none.
    ids: int64 [A].
    outlines: msgpack of each segmentation, one behind the other.
    outline_ends: int64 [A + 1].
    keypoints: float32 [A, K, 3] y, x, visibility; None where the file has
      none.
    keypoint_names: as the categories have them; None where they have none, ()
      where they contradict each other or the annotations.
    has_truth: whether the file has annotations at all; lists of images for a
      test server (image_info_*.json) have none.
    notes: what was filled in, for people.
  """

  origin: str
  category_ids: tuple[int, ...]
  categories: tuple[str, ...]
  image_ids: np.ndarray
  file_names: tuple[str, ...]
  sizes: np.ndarray
  ends: np.ndarray
  boxes: np.ndarray
  labels: np.ndarray
  crowd: np.ndarray
  area: np.ndarray
  ids: np.ndarray
  outlines: bytes
  outline_ends: np.ndarray
  keypoints: np.ndarray | None
  keypoint_names: tuple[str, ...] | None = None
  has_truth: bool = True
  notes: tuple[str, ...] = ()

  @property
  def num_keypoints(self) -> int:
    """K; 0 where the file has no keypoints."""
    return 0 if self.keypoints is None else self.keypoints.shape[1]

  def outline(self, annotation: int) -> Any:
    """Polygons [[x0, y0, x1, y1, ...], ...] or an RLE map, as published."""
    start, end = self.outline_ends[annotation : annotation + 2]
    return msgpack.unpackb(self.outlines[start:end])


def parse(data: bytes, origin: str) -> Annotations:
  """The annotations of a file.

  Raises:
    ValueError: not such a file; names file, line and column, and the mistake.
  """
  lists = JsonLists(data, origin)
  del data  # the text takes as much again
  reader = _Reader(lists, origin)
  reader.read()
  return reader.finished()


def relabelled(given: Annotations, first: Annotations) -> Annotations:
  """The annotations with the labels that another file gives their names.

  Raises:
    ValueError: other names; has both lists.
  """
  if given.categories == first.categories:
    return given
  new = matching.positions(
    LabelSpace(Vocabulary(given.categories)),
    LabelSpace(Vocabulary(first.categories)),
    given.origin,
    first.origin,
  )
  order = np.argsort(new)
  note = f'{given.origin}: categories in another order, matched by name'
  return dataclasses.replace(
    given,
    category_ids=tuple(given.category_ids[i] for i in order),
    categories=first.categories,
    labels=new[given.labels],
    notes=(*given.notes, note),
  )


def with_keypoints(instances: Annotations, persons: Annotations) -> Annotations:
  """The instances with the keypoints of annotations of equal id.

  Other boxes have keypoints of zeros (visibility 0: not labelled).

  Raises:
    ValueError: an annotation that is not among the instances, or no keypoints.
  """
  found = positions(instances.ids, persons.ids)
  missing = persons.ids[found < 0]
  if len(missing):
    raise ValueError(
      f'{persons.origin}: {len(missing):,} of {len(found):,} annotations are '
      f'not in {instances.origin}, for example id {missing[0]}; the two files '
      f'must be of one release'
    )
  if persons.keypoints is None:
    raise ValueError(f'{persons.origin}: no annotation has keypoints')
  shape = (len(instances.ids), *persons.keypoints.shape[1:])
  keypoints = np.zeros(shape, np.float32)
  keypoints[found] = persons.keypoints
  return dataclasses.replace(
    instances, keypoints=keypoints, keypoint_names=persons.keypoint_names
  )


def positions(known: np.ndarray, wanted: np.ndarray) -> np.ndarray:
  """int64 positions in `known` (unique numbers) of `wanted`; -1: not there."""
  if not len(known):
    return np.full(len(wanted), -1)
  order = np.argsort(known)
  place = np.searchsorted(known, wanted, sorter=order)
  place = order[np.minimum(place, len(known) - 1)]
  return np.where(known[place] == wanted, place, -1)


class _Reader:
  """Fills flat arrays entry by entry; ids are resolved at the end."""

  def __init__(self, lists: JsonLists, origin: str):
    self._lists, self._origin = lists, origin
    self._images: list[tuple[int, str, int, int]] = []
    self._image_offsets: list[int] = []
    self._categories: dict[int, str] = {}
    self._namers: dict[tuple[str, ...], str] = {}  # keypoints -> a category
    self._rows = array.array('q')  # offset, id, image, category, crowd of each
    self._measures = array.array('d')  # x, y, width, height, area of each
    self._outlines = bytearray()
    self._outline_ends = array.array('q', [0])
    self._keypoints = array.array('f')
    self._keypoint_numbers = 0  # 3 K
    self._with_keypoints = array.array('q')  # annotations that have some
    self._filled_in = {'iscrowd': 0, 'area': 0}
    self._has_truth = False

  def read(self) -> None:
    readers = {
      'images': self._image,
      'annotations': self._annotation,
      'categories': self._category,
    }
    for key, offset, entry in self._lists.entries():
      if key not in readers:
        continue
      try:
        if not isinstance(entry, dict):
          raise ValueError(f'expected an object, got {entry!r:.60}')
        readers[key](entry, offset)
      except KeyError as error:
        reason = f'has no {error.args[0]!r}'
      except (ValueError, OverflowError) as error:
        reason = str(error)
      else:
        continue
      which = _which(entry) if key == 'annotations' else ''
      raise ValueError(f'{self._lists.where(offset)}: {key}: {reason}{which}')
    for key in ('images', 'categories'):
      if not self._lists.has(key):
        raise ValueError(
          f'{self._origin}: no {key!r} in it; expected a COCO file '
          f'instances_*.json or person_keypoints_*.json'
        )
    self._has_truth = self._lists.has('annotations')

  def _image(self, entry: dict[str, Any], offset: int) -> None:
    name = text_lines.check_name(entry['file_name'], 'file_name')
    number, height, width = (
      _whole(entry[k], k) for k in ('id', 'height', 'width')
    )
    self._images.append((number, name, height, width))
    self._image_offsets.append(offset)

  def _category(self, entry: dict[str, Any], _: int) -> None:
    name = text_lines.check_name(entry['name'], 'name')
    number = _whole(entry['id'], 'id')
    if number in self._categories or name in self._categories.values():
      raise ValueError(f'category {number} ({name!r}) occurs twice')
    self._categories[number] = name
    if entry.get('keypoints'):
      self._name_keypoints(name, entry['keypoints'])

  def _name_keypoints(self, category: str, given: Any) -> None:
    if not isinstance(given, list):
      raise ValueError(f'keypoints must be a list of names, got {given!r:.60}')
    names = tuple(text_lines.check_name(n, 'keypoints') for n in given)
    if len(set(names)) < len(names):
      raise ValueError(f'keypoints of {category!r}: a name twice in {given!r}')
    self._namers.setdefault(names, category)

  def _annotation(self, entry: dict[str, Any], offset: int) -> None:
    for name in self._filled_in:
      self._filled_in[name] += name not in entry
    crowd = entry.get('iscrowd', 0)
    if crowd not in (0, 1):  # true and false are
      raise ValueError(f'iscrowd must be 0 or 1, got {crowd!r:.40}')
    ids = [_whole(entry[k], k) for k in ('id', 'image_id', 'category_id')]
    box = _numbers(entry['bbox'], 4, 'bbox [x, y, width, height]')
    if box[2] < 0 or box[3] < 0:
      raise ValueError(f'bbox {box} has a negative width or height')
    area = entry.get('area', box[2] * box[3])
    if _numbers([area], 1, 'area')[0] < 0:
      raise ValueError(f'area must be at least 0, got {area}')
    if 'keypoints' in entry:
      self._add_keypoints(entry['keypoints'])
      self._with_keypoints.append(len(self._outline_ends) - 1)
    self._outlines += _packed_outline(entry.get('segmentation', []))
    self._outline_ends.append(len(self._outlines))
    self._rows.extend((offset, *ids, int(crowd)))
    self._measures.extend((*box, area))

  def _add_keypoints(self, values: Any) -> None:
    num = len(values) if isinstance(values, list) else 0
    self._keypoint_numbers = self._keypoint_numbers or num
    if not num or num % 3 or num != self._keypoint_numbers:
      raise ValueError(
        f'keypoints must be {self._keypoint_numbers or "3 K"} numbers x, y, '
        f'visibility, got {num}'
      )
    values = _numbers(values, num, 'keypoints')
    if not {0, 1, 2} >= set(values[2::3]):
      raise ValueError(f'visibilities must be 0, 1 or 2, got {values[2::3]}')
    self._keypoints.extend(values)

  def finished(self) -> Annotations:
    """The arrays, ordered by image."""
    rows = np.array(self._rows, np.int64).reshape(-1, _ROW)
    image_ids = np.array([image[0] for image in self._images], np.int64)
    names = tuple(image[1] for image in self._images)
    self._refuse_repeated(image_ids, self._image_offsets, 'image id')
    if len(set(names)) < len(names):
      repeated = min(name for name in set(names) if names.count(name) > 1)
      raise ValueError(f'{self._origin}: two images of the name {repeated!r}')
    self._refuse_repeated(rows[:, 1], rows[:, 0], 'annotation id')
    category_ids = tuple(sorted(self._categories))
    image = self._resolve(rows, 2, image_ids, 'image_id')
    label = self._resolve(rows, 3, np.array(category_ids), 'category_id')

    order = np.argsort(image, kind='stable')
    counts = np.bincount(image, minlength=len(image_ids))
    x, y, width, height, area = (
      np.array(self._measures, np.float64).reshape(-1, 5)[order].T
    )
    boxes = np.stack([y, x, y + height, x + width], axis=-1)
    keypoints = None
    if self._keypoint_numbers:  # zeros where an annotation has none
      shape = len(rows), self._keypoint_numbers // 3, 3
      keypoints = np.zeros(shape, np.float32)
      given = np.array(self._keypoints, np.float32).reshape(-1, *shape[1:])
      keypoints[np.array(self._with_keypoints)] = given
      keypoints = keypoints[order][..., [1, 0, 2]]
    outlines, outline_ends = self._ordered_outlines(order)
    return Annotations(
      origin=self._origin,
      category_ids=category_ids,
      categories=tuple(self._categories[i] for i in category_ids),
      image_ids=image_ids,
      file_names=names,
      sizes=np.array([i[2:] for i in self._images], np.int32).reshape(-1, 2),
      ends=ragged.ends_of(counts),
      boxes=boxes.astype(np.float32),
      labels=label[order].astype(np.int32),
      crowd=rows[order, 4].astype(bool),
      area=area.astype(np.float32),
      ids=rows[order, 1],
      outlines=outlines,
      outline_ends=outline_ends,
      keypoints=keypoints,
      keypoint_names=self._names_of(keypoints),
      has_truth=self._has_truth,
      notes=self._notes(),
    )

  def _names_of(self, keypoints: np.ndarray | None) -> tuple[str, ...] | None:
    """The names, see Annotations."""
    if keypoints is None or not self._namers:
      return None
    return () if self._contradiction() else next(iter(self._namers))

  def _contradiction(self) -> str:
    """Why the names of keypoints cannot be taken; '' where they can."""
    num = self._keypoint_numbers // 3
    for names, category in self._namers.items():
      if num and len(names) != num:
        return (
          f'category {category!r} names {len(names)} keypoints, the '
          f'annotations have {num}'
        )
    if num and len(self._namers) > 1:
      one, other = [*self._namers.values()][:2]
      return f'categories {one!r} and {other!r} have different keypoints'
    return ''

  def _notes(self) -> tuple[str, ...]:
    filled = {'iscrowd': 'taken as 0', 'area': 'that of the box is taken'}
    lines = [
      f'{self._origin}: {self._filled_in[name]:,} annotations have no {name}: '
      f'{how}'
      for name, how in filled.items()
      if self._filled_in[name]
    ]
    without = len(self._rows) // _ROW - len(self._with_keypoints)
    if self._keypoint_numbers and without:
      lines.append(
        f'{self._origin}: {without:,} annotations have no keypoints: none is '
        'labelled'
      )
    if reason := self._contradiction():
      lines.append(f'{self._origin}: {reason}: their names are not taken')
    return tuple(lines)

  def _resolve(
    self, rows: np.ndarray, column: int, known: np.ndarray, name: str
  ) -> np.ndarray:
    """Positions in `known` of the ids in a column of the rows."""
    wanted = rows[:, column]
    place = positions(known, wanted)
    bad = np.flatnonzero(place < 0)
    if len(bad):
      where = self._lists.where(int(rows[bad[0], 0]))
      raise ValueError(
        f'{where}: annotations: {name} {wanted[bad[0]]} is not in the file '
        f'({len(bad):,} such annotations)'
      )
    return place

  def _refuse_repeated(
    self, ids: np.ndarray, offsets: Sequence[int] | np.ndarray, name: str
  ) -> None:
    _, first = np.unique(ids, return_index=True)
    if len(first) < len(ids):
      second = np.setdiff1d(np.arange(len(ids)), first)[0]
      where = self._lists.where(int(offsets[second]))
      raise ValueError(f'{where}: {name} {ids[second]} occurs twice')

  def _ordered_outlines(self, order: np.ndarray) -> tuple[bytes, np.ndarray]:
    ends = np.array(self._outline_ends, np.int64)
    places = zip(ends[:-1][order].tolist(), ends[1:][order].tolist())
    joined = b''.join(self._outlines[a:b] for a, b in places)
    return joined, ragged.ends_of(np.diff(ends)[order])


def _which(entry: Any) -> str:
  """' (annotation 7 of image 3)', as far as an entry says it."""
  if not isinstance(entry, dict) or not {'id', 'image_id'} <= entry.keys():
    return ''
  return f' (annotation {entry["id"]!r:.20} of image {entry["image_id"]!r:.20})'


def _whole(value: Any, name: str) -> int:
  if type(value) is not int or not 0 <= value < _MAX_ID:
    raise ValueError(f'{name} must be a whole number >= 0, got {value!r:.40}')
  return value


def _numbers(values: Any, num: int, name: str) -> list[float]:
  """The list, if it is `num` finite numbers."""
  good = (
    isinstance(values, list)
    and len(values) == num
    and {int, float} >= set(map(type, values))
    and sum(map(abs, values)) < _MAX_SUM
  )
  if not good:
    raise ValueError(f'{name} must be {num} finite numbers, got {values!r:.80}')
  return values


def _packed_outline(outline: Any) -> bytes:
  """msgpack of polygons or of an RLE map, after a check."""
  if isinstance(outline, dict):
    size, counts = outline.get('size'), outline.get('counts')
    if not isinstance(counts, str | list):
      raise ValueError('segmentation: an RLE needs "counts", text or a list')
    _numbers(size, 2, 'segmentation: size [height, width]')
    if isinstance(counts, list):
      _numbers(counts, len(counts), 'segmentation: counts')
  elif isinstance(outline, list):
    for polygon in outline:
      if not isinstance(polygon, list) or len(polygon) % 2:
        raise ValueError('segmentation must be lists of x0, y0, x1, y1, ...')
      _numbers(polygon, len(polygon), 'segmentation: a polygon')
  else:
    raise ValueError(f'segmentation is {outline!r:.40}, no polygons and no RLE')
  packed = msgpack.packb(outline, use_single_float=True)
  assert packed is not None  # only None with a stream
  return packed
