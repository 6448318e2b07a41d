"""Boxes, keypoints and masks of an image: names, types, storage, rescaling.

One flat mapping, the same in records, in examples and, padded, in batches:

    boxes          float32 [N, 4]    y0, x0, y1, x1 in pixels of the image
    box_labels     int32 [N]         label ids
    box_crowd      bool [N]          COCO iscrowd; ignored in training
    box_difficult  bool [N]          VOC difficult; ignored in evaluation
    box_area       float32 [N]       area of the object's own outline, pixels^2
    box_ids        int64 [N]         ids of the annotations
    keypoints      float32 [N, K, 3] y, x in pixels, visibility 0, 1, 2 (COCO)
    box_outlines   list of N         COCO segmentation: polygons or an RLE map
    segmentation   bytes             PNG of class ids, one channel, 255 unknown
    original_size  int32 [2]         height, width before the image was resized
    image_id       int64 [1]         number of the image where it comes from

All but `boxes` are optional; whatever starts with `box_`, and `keypoints`,
needs `boxes`. Types and shapes are those of the table in fields.py. Pixel
(row, column) covers [row, row + 1) x [column, column + 1).
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from input_pipeline.examples import fields

IGNORE = fields.VOID  # class id of pixels that do not count
FIELDS = fields.ANNOTATIONS


def pack(annotations: Mapping[str, Any], where: str = 'annotations') -> dict:
  """Plain lists, numbers and bytes of checked annotations, for storage.

  Raises:
    ValueError: see `unpack`.
  """
  checked = unpack(annotations, where)
  return {
    name: value.tolist() if isinstance(value, np.ndarray) else value
    for name, value in checked.items()
  }


def unpack(packed: Mapping[str, Any], where: str = 'annotations') -> dict:
  """Arrays of the types above from lists or arrays.

  Raises:
    ValueError: an unknown field, a wrong type or shape, numbers that are not
      finite, or boxes upside down; names `where` and the field.
  """
  unknown = packed.keys() - set(FIELDS)
  if unknown:
    raise ValueError(
      f'{where}: unknown field {min(unknown, key=str)!r}; valid: '
      f'{", ".join(FIELDS)}'
    )
  per_box = [n for n in packed if fields.per_box(n)]
  if per_box and 'boxes' not in packed:
    raise ValueError(f'{where}: {per_box[0]!r} without boxes')
  num = len(packed['boxes']) if per_box else 0
  out: dict[str, Any] = {}
  for name in FIELDS:  # in one order, so that equal content packs equally
    if name not in packed:
      continue
    value = packed[name]
    form = fields.FIELDS[name].record
    if form is not None:
      out[name] = _array(name, value, num, form, where)
    elif name == 'segmentation':
      if not isinstance(value, bytes):
        raise ValueError(f'{where}: segmentation must be the bytes of a PNG')
      out[name] = value
    else:
      if not isinstance(value, list) or len(value) != num:
        raise ValueError(f'{where}: box_outlines must be a list, one a box')
      out[name] = value
  boxes = out.get('boxes')
  if boxes is not None and (boxes[:, 2:] < boxes[:, :2]).any():
    raise ValueError(
      f'{where}: boxes are y0, x0, y1, x1 with y0 <= y1 and x0 <= x1, got '
      f'{boxes[(boxes[:, 2:] < boxes[:, :2]).any(axis=1)][0].tolist()}'
    )
  return out


def _array(
  name: str, value: Any, num: int, form: fields.Form, where: str
) -> np.ndarray:
  """The array of a field's form in records, of N=num boxes."""
  if form.shape[0] == 'N' and num == 0 and len(value) == 0:
    return form.zeros({})
  shape = tuple(
    num if n == 'N' else None if isinstance(n, str) else n for n in form.shape
  )
  try:
    array = np.asarray(value)
    fits = array.ndim == len(shape) and all(
      wanted in (None, found) for wanted, found in zip(shape, array.shape)
    )
  except ValueError:  # ragged lists
    fits, array = False, np.zeros(0)
  if fits and array.dtype.kind in 'biuf' and np.isfinite(array).all():
    return array.astype(form.dtype)
  raise ValueError(
    f'{where}: {name} must be finite numbers of shape '
    f'{tuple("K" if n is None else n for n in shape)}, got {value!r:.80}'
  )


def rescale(
  annotations: Mapping[str, Any], height_ratio: float, width_ratio: float
) -> dict:
  """Coordinates of an image resized by the two ratios; areas by their product.

  Pixel edges map to pixel edges. `segmentation` and `original_size` are left
  to the caller: the one is an image, the other does not change.
  """
  out = dict(annotations)
  ratios = np.array([height_ratio, width_ratio])  # float64: edges stay edges
  factors = {
    'boxes': np.tile(ratios, 2),
    'box_area': np.prod(ratios),
    'keypoints': np.append(ratios, 1),
  }
  for name in factors.keys() & out.keys():
    out[name] = (out[name] * factors[name]).astype(np.float32)
  if 'box_outlines' in out:
    out['box_outlines'] = [
      _rescale_outline(outline, height_ratio, width_ratio)
      for outline in out['box_outlines']
    ]
  return out


def _rescale_outline(outline: Any, height_ratio: float, width_ratio: float):
  """Polygons [x0, y0, x1, y1, ...] scaled; an RLE has a size of its own."""
  if isinstance(outline, Mapping):
    return outline
  ratios = (width_ratio, height_ratio)
  return [[n * ratios[i % 2] for i, n in enumerate(p)] for p in outline]
