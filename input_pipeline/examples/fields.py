"""Every field of an example: its type and shape, in a record and in a batch.

The one table that ops, batches, storage and tools read; docs/data.md explains
the fields of a batch, docs/add-an-op.md how ops declare what they read and
make. A new field is a new row here.

A letter in a shape is a length that is the same wherever it stands in one
form: of a batch, in every example of it (H and W of the image, N boxes, K
keypoints, P other people, L labels, M negatives, h and w of masks at their own
size, U, V and D of maps of features); of a record, in that record.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

VOID = 255  # class id of pixels that do not count


@dataclasses.dataclass(frozen=True)
class Form:
  """An array: its dtype, and its shape with letters for what may vary."""

  dtype: str
  shape: tuple[int | str, ...] = ()

  def zeros(self, sizes: Mapping[str, int]) -> np.ndarray:
    """The array with lengths for its letters, 0 where `sizes` has none."""
    shape = [n if isinstance(n, int) else sizes.get(n, 0) for n in self.shape]
    return np.zeros(shape, self.dtype)


@dataclasses.dataclass(frozen=True)
class Field:
  """What a name means.

  Attributes:
    kind: 'pixels' follows the image through resizes, crops and flips; 'labels'
      says what is there; 'bookkeeping' is all else.
    batch: form in a batch, without the batch's own axis; None: never in one.
    record: form in a record; None: none there, or no array (encoded, a list).
    padding: value of the places of a batch that hold nothing.
    beside: where a record may have the field too, in a form that no batch can
      take: the field that ops make beside it when they give it its final form.
    moves_with: other fields of the record that are needed to move it.
  """

  kind: Literal['pixels', 'labels', 'bookkeeping']
  batch: Form | None = None
  record: Form | None = None
  padding: int = 0
  beside: str | None = None
  moves_with: tuple[str, ...] = ()


def _of_boxes(
  dtype: str,
  *tail: int | str,
  in_batch: Form | None = None,
  padding: int = 0,
  moves_with: tuple[str, ...] = ('boxes',),
) -> Field:
  """A field with one entry a box; a crop drops entries with their boxes."""
  return Field(
    'pixels',
    batch=in_batch or Form(dtype, ('N', *tail)),
    record=Form(dtype, ('N', *tail)),
    padding=padding,
    beside='box_mask',
    moves_with=moves_with,
  )


FIELDS: dict[str, Field] = {
  # Encoded bytes in most records, and decoded uint8 arrays in some.
  'image': Field('pixels', Form('uint8', ('H', 'W', 3))),
  'labels': Field('labels', record=Form('int32', ('L',))),
  'negatives': Field('labels', record=Form('int32', ('M',))),
  'label_ids': Field('labels', Form('int32', ('L',)), padding=-1),
  'label_conf': Field(
    'labels',
    Form('float32', ('L',)),
    record=Form('float32', ('L',)),
    beside='label_ids',
  ),
  'negative_ids': Field('labels', Form('int32', ('M',)), padding=-1),
  'label': Field('labels', Form('int32'), padding=-1),
  'boxes': _of_boxes('float32', 4, moves_with=()),  # y0, x0, y1, x1
  'box_labels': _of_boxes('int32', padding=-1),
  'box_crowd': _of_boxes('bool'),
  'box_difficult': _of_boxes('bool'),
  # A crop reads what is left of an area off the outline.
  'box_area': _of_boxes('float32', moves_with=('boxes', 'box_outlines')),
  # Two halves in a batch: devices have no int64.
  'box_ids': _of_boxes('int64', in_batch=Form('int32', ('N', 2)), padding=-1),
  'keypoints': _of_boxes('float32', 'K', 3),  # y, x, visibility
  'box_outlines': Field('pixels', moves_with=('boxes',)),
  'box_mask': Field('pixels', Form('bool', ('N',))),
  # A PNG in a record.
  'segmentation': Field('pixels', Form('uint8', ('H', 'W')), padding=VOID),
  'full_segmentation': Field('labels', Form('uint8', ('h', 'w')), padding=VOID),
  'full_size': Field('bookkeeping', Form('int32', (2,))),
  'image_size': Field('bookkeeping', Form('int32', (2,))),
  'original_size': Field(
    'bookkeeping',
    Form('int32', (2,)),
    record=Form('int32', (2,)),
    beside='image_size',
  ),
  'image_id': Field('bookkeeping', record=Form('int64', (1,))),  # COCO's
  # Stored in place of an image, and read at the end of a chain.
  'block3_map': Field(
    'pixels',
    Form('float32', ('U', 'V', 'D')),
    record=Form('float32', ('U', 'V', 'D')),
  ),
  # One person of an image (sources/people.py): the place of its box among
  # `boxes`, -1 where the box is not of the truth; the box in pixels of the
  # original image, which stays as it is whatever becomes of the image; the
  # score of the box, 1 of the truth.
  'person': Field('labels', Form('int32'), record=Form('int32'), padding=-1),
  'person_box': Field(
    'labels', Form('float32', (4,)), record=Form('float32', (4,))
  ),
  'person_score': Field('labels', Form('float32'), record=Form('float32')),
  # Of the crop of a person, in its pixels: y, x, visibility.
  'person_keypoints': Field('pixels', Form('float32', ('K', 3))),
  'other_keypoints': Field('pixels', Form('float32', ('P', 'K', 3))),
  # (y, x) of the original image = it @ (y', x', 1) of the crop.
  'crop_to_image': Field('bookkeeping', Form('float32', (2, 3))),
  'stored_size': Field('bookkeeping'),  # from one op to the next
  'key': Field('bookkeeping'),  # name of the record
  '_id': Field('bookkeeping', Form('int32'), padding=-1),
  '_mask': Field('bookkeeping', Form('bool')),
}

# What is told of the objects of an image, and stored with it (annotations.py).
PER_BOX = tuple(
  name
  for name, field in FIELDS.items()
  if field.record is not None and field.record.shape[:1] == ('N',)
)
ANNOTATIONS = (
  *PER_BOX, 'box_outlines', 'segmentation', 'original_size', 'image_id',
)  # fmt: skip


def in_batch(name: str) -> bool:
  """Whether a batch may have a field of this name."""
  return name in FIELDS and FIELDS[name].batch is not None


def per_box(name: str) -> bool:
  """Whether a field of a record has one entry a box."""
  return name in PER_BOX or name == 'box_outlines'


def fill(name: str) -> int:
  """The value of a batch's places that hold nothing."""
  return FIELDS[name].padding


def check(example: Mapping[str, Any], where: str) -> None:
  """Compares the fields of one example of a batch with the table.

  Raises:
    ValueError: a field of another type or shape, or two that contradict each
      other; names `where` and the field.
  """
  lengths: dict[str, tuple[str, int]] = {}
  for name, value in example.items():
    form = FIELDS[name].batch
    assert form is not None, name
    if value.dtype != form.dtype or value.ndim != len(form.shape):
      raise ValueError(_mismatch(where, name, value, form))
    for letter, length in zip(form.shape, value.shape):
      if isinstance(letter, int):
        if length != letter:
          raise ValueError(_mismatch(where, name, value, form))
        continue
      other, known = lengths.setdefault(letter, (name, length))
      if known != length:
        raise ValueError(
          f'{where}: {name!r} has {letter}={length}, but {other!r} {known}'
        )


def _mismatch(where: str, name: str, value: Any, form: Form) -> str:
  shape = ', '.join(map(str, form.shape))
  return (
    f'{where}: the field {name!r} is {form.dtype} [{shape}] an example, got '
    f'{value.dtype} {list(value.shape)}'
  )
