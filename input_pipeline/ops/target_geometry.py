"""What the geometry ops do to boxes, keypoints, outlines and segmentation.

Each function takes the example as it was before the op and returns the fields
to replace; images are left to the ops. Coordinates are pixel edges: pixel
(row, column) covers [row, row + 1) x [column, column + 1), so an image of
width W spans [0, W] and mirrors x to W - x. Names and types of the fields are
those of input_pipeline/examples/fields.py.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from input_pipeline.examples import annotations, fields, outlines
from input_pipeline.ops.bilinear import Window

Pairs = Sequence[tuple[int, int]]
Size = tuple[int, int]
_MOVED = frozenset({'boxes', 'segmentation', 'crop_to_image'})


def present(example: dict) -> bool:
  """Whether there is anything to move; if not, the ops take the short way."""
  return not example.keys().isdisjoint(_MOVED)


def _open(example: dict) -> dict:
  """The example's targets, where they can still be moved.

  An encoded segmentation is dropped: it no longer fits the image, and
  `decode_segmentation` says so.

  Raises:
    ValueError: boxes padded already by the op `boxes`, or a crop of a person.
  """
  if 'crop_to_image' in example:
    raise ValueError(
      "the op 'crop_person' gives the keypoints their final form: nothing that "
      'resizes, crops or flips may come after it'
    )
  if 'box_mask' in example:
    raise ValueError(
      "the op 'boxes' pads boxes to their final form: it must come after all "
      'ops that resize, crop or flip'
    )
  targets = {n: example[n] for n in fields.ANNOTATIONS if n in example}
  if isinstance(targets.get('segmentation'), bytes):
    del targets['segmentation']
  return targets


def _replaced(example: dict, targets: dict) -> dict:
  """The example with its targets replaced, those gone left out."""
  rest = {n: v for n, v in example.items() if n not in fields.ANNOTATIONS}
  return rest | targets


def decoded(example: dict, image: np.ndarray, stored: Size) -> dict:
  """The example with its decoded image; targets shrink where that was reduced.

  Args:
    example: targets in pixels of the stored image.
    image: uint8 [H, W, 3], as large as the stored one or smaller.
    stored: (height, width) of the stored image, which an encoded segmentation
      must have. It becomes `original_size` where the record has none.
  """
  height, width = image.shape[:2]
  moved = example
  if (height, width) != stored:
    moved = annotations.rescale(example, height / stored[0], width / stored[1])
  size = example.get('original_size', np.array(stored, np.int32))
  return moved | {
    'image': image, 'stored_size': stored, 'original_size': size,
  }  # fmt: skip


def resize(example: dict, height: int, width: int) -> dict:
  """Targets of the example's image resized to height x width."""
  before = example['image'].shape
  targets = annotations.rescale(
    _open(example), height / before[0], width / before[1]
  )
  if 'segmentation' in targets:
    targets['segmentation'] = outlines.nearest(
      targets['segmentation'], height, width
    )
  return _replaced(example, targets)


def crop(example: dict, window: Window, min_box_overlap: float) -> dict:
  """Targets of a window of the example's image.

  Boxes are clipped. One of which less than `min_box_overlap` of the area, or
  nothing, lies in the window goes with all that belongs to it. `box_area`
  shrinks as the outline does, or as the box where there is none. Keypoints
  outside become (0, 0, 0).
  """
  targets = _open(example)
  if 'segmentation' in targets:
    targets['segmentation'] = targets['segmentation'][
      window.top : window.top + window.height,
      window.left : window.left + window.width,
    ]
  if 'boxes' in targets:
    whole = example['image'].shape[:2]
    targets |= _crop_boxes(targets, window, whole, min_box_overlap)
  return _replaced(example, targets)


def _crop_boxes(
  targets: dict, window: Window, whole: Any, min_box_overlap: float
) -> dict:
  limit = np.array([window.height, window.width], np.float32)
  corner = np.array([window.top, window.left], np.float32)
  shifted = targets['boxes'].reshape(-1, 2, 2) - corner  # [N, end, axis]
  clipped = shifted.clip(0, limit)
  share = _visible(shifted, clipped)
  kept = np.flatnonzero((share > 0) & (share >= min_box_overlap))
  out = {}
  for name, value in targets.items():
    if name == 'box_outlines':
      out[name] = [value[i] for i in kept]
    elif fields.per_box(name):
      out[name] = value[kept]
  out['boxes'], share = clipped[kept].reshape(-1, 4), share[kept]
  if 'keypoints' in out:
    out['keypoints'] = _crop_keypoints(out['keypoints'], corner, limit)
  if 'box_outlines' in out:
    size = window.height, window.width
    cut = [
      outlines.crop(o, window.top, window.left, size, whole)
      for o in out['box_outlines']
    ]
    if 'box_area' in out:
      share = [  # that of a box inside is 1
        1 if of_box == 1 else _outline_share(before, after, whole, of_box)
        for before, after, of_box in zip(out['box_outlines'], cut, share)
      ]
    out['box_outlines'] = cut
  if 'box_area' in out:
    out['box_area'] = out['box_area'] * np.asarray(share, np.float32)
  return out


def _visible(boxes: np.ndarray, clipped: np.ndarray) -> np.ndarray:
  """Share of each box's area that is left, [N].

  A side of no length counts as seen where it lies in the window, so that a
  degenerate box goes only when its place does.
  """
  length = boxes[:, 1] - boxes[:, 0]
  left = clipped[:, 1] - clipped[:, 0]
  inside = (boxes == clipped).all(axis=1)
  ratio = left / np.where(length > 0, length, 1)
  return np.where(length > 0, ratio, inside).prod(axis=1)


def _outline_share(before: Any, after: Any, whole: Any, of_box: float) -> float:
  """Area of the outline after a crop over that before."""
  if isinstance(before, Mapping):
    stored = outlines.area(before)  # in pixels of the map's own size
    stored *= whole[0] * whole[1] / np.prod(before['size'])
  else:
    stored = outlines.area(before)
  return min(outlines.area(after) / stored, 1.0) if stored else float(of_box)


def _crop_keypoints(
  keypoints: np.ndarray, corner: np.ndarray, limit: np.ndarray
) -> np.ndarray:
  place = keypoints[..., :2] - corner
  seen = (place >= 0).all(-1) & (place <= limit).all(-1)
  seen &= keypoints[..., 2] > 0
  moved = np.concatenate([place, keypoints[..., 2:]], axis=-1)
  return np.where(seen[..., None], moved, np.float32(0))


def flip(example: dict, pairs: Pairs | None) -> dict:
  """Targets of the example's image mirrored left to right.

  Keypoints swap within each of `pairs`, so that a left eye stays a left eye.
  Absent keypoints (visibility 0) stay at (0, 0).

  Raises:
    ValueError: keypoints whose pairs are not known (None), or others.
  """
  height, width = example['image'].shape[:2]
  targets = _open(example)
  if 'segmentation' in targets:
    targets['segmentation'] = np.ascontiguousarray(
      targets['segmentation'][:, ::-1]
    )
  if 'boxes' in targets:
    boxes = targets['boxes'].copy()
    boxes[:, 1], boxes[:, 3] = width - boxes[:, 3], width - boxes[:, 1]
    targets['boxes'] = boxes
  if 'keypoints' in targets:
    keypoints = targets['keypoints']
    moved = keypoints[:, _order(keypoints.shape[1], pairs)]
    moved[..., 1] = np.where(moved[..., 2] > 0, width - moved[..., 1], 0)
    targets['keypoints'] = moved
  if 'box_outlines' in targets:
    targets['box_outlines'] = [
      outlines.flip(o, height, width) for o in targets['box_outlines']
    ]
  return _replaced(example, targets)


def keep(example: dict, pairs: Pairs | None) -> dict:
  """Targets of an example that `flip` might have changed and did not.

  Raises the errors that `flip` would: chance must not hide a mistake.
  """
  targets = _open(example)
  if 'keypoints' in targets:
    _order(targets['keypoints'].shape[1], pairs)
  return _replaced(example, targets)


def _order(num: int, pairs: Pairs | None) -> np.ndarray:
  """intp [num]: which keypoint comes to each place."""
  if pairs is None:
    if num:
      raise ValueError(
        f'which of the {num} keypoints are left and right of each other is '
        "not known: the data do not say it; give the op 'random_flip' "
        'keypoint_pairs=[[1, 2], ...], or [] to swap none'
      )
    pairs = ()
  order = np.arange(num)
  for a, b in pairs:
    if max(a, b) >= num:
      if num == 0:
        continue
      raise ValueError(
        f'keypoint_pairs has ({a}, {b}), the example {num} keypoints'
      )
    order[a], order[b] = b, a
  return order
