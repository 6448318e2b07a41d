"""Boxes, keypoints and segmentation -> the fixed-size fields of a batch.

A chain for detection, after Huang et al. 2017 as Sun et al. 2017 use it
(section 4): decode, resize_small(size=600, max_size=1024), random_flip,
image_size, pad(size=1024), boxes(max_boxes=100); for segmentation decode,
decode_segmentation, then the geometry. `boxes` comes after all geometry,
`decode_segmentation` before it. docs/data.md lists the fields.
"""

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar

import numpy as np

from big_vision_like.config.option_types import AtLeast, Between, Count, OneOf
from input_pipeline.examples import annotations, fields, mask_files, outlines
from input_pipeline.examples.errors import BadExample
from input_pipeline.ops import geometry
from input_pipeline.ops.context import OpContext
from input_pipeline.ops.declared import Declared

Level = Annotated[int, Between(0, 255)]
Fill = Level | tuple[Level, Level, Level]
GREY = 128  # 0 on the device, where images are scaled to [-1, 1]

# What every box has; the rest of a box's fields are made where asked for.
_BOXES = frozenset({'boxes', 'box_labels'})
_EXTRAS = tuple(
  n for n in fields.PER_BOX if n not in _BOXES and n != 'keypoints'
)


class Boxes(Declared):
  """Pads boxes to a fixed number, `max_boxes`.

  Makes `boxes` float32 [N, 4], `box_labels` int32 [N] (-1 where padded) and
  `box_mask` bool [N] (True: a box), and what the options ask for. Other fields
  of the boxes are dropped.

  Args (options):
    max_boxes: N. An example with more is a bad one, never cut short silently.
    extras: more fields, of box_crowd, box_difficult (False where the record
      says nothing), box_area (of the box where the record has none) and
      box_ids (-1 where the record has none): int32 [N, 2], see `whole_ids`,
      since devices have no int64 and COCO's crowds have larger ids.
    num_keypoints: K > 0 makes `keypoints` float32 [N, K, 3], all 0 where the
      record has none.
  """

  reads = frozenset(fields.PER_BOX)
  makes = reads | {'box_mask'}
  does_without = reads - _BOXES
  options_for: ClassVar[dict[str, str]] = {
    **{name: f'extras=[{name!r}]' for name in _EXTRAS},
    'keypoints': 'num_keypoints',
  }

  def __init__(
    self,
    context: OpContext,
    *,
    max_boxes: Count,
    extras: Sequence[Annotated[str, OneOf(_EXTRAS)]] = (),
    num_keypoints: Annotated[int, AtLeast(0)] = 0,
  ):
    self.context = context
    self.max_boxes = int(max_boxes)
    self.extras = tuple(extras)
    self.num_keypoints = int(num_keypoints)
    self.reads = _BOXES.union(extras, ['keypoints'] if num_keypoints else [])
    self.makes = self.reads | {'box_mask'}

  def __call__(self, example: dict, rng: np.random.Generator) -> dict:
    if 'box_mask' in example:
      raise ValueError(f'{self.context.where}: the boxes are padded already')
    boxes = np.asarray(
      example.get('boxes', np.zeros((0, 4), np.float32)), np.float32
    )
    num = len(boxes)
    if num > self.max_boxes:
      raise BadExample(
        f'{num} boxes do not fit into max_boxes={self.max_boxes} of '
        f'{self.context.where}'
      )
    found = {'boxes': boxes, 'box_labels': self._labels(example, num)}
    for name in self.extras:
      form = fields.FIELDS[name].record
      assert form is not None
      unknown = np.full(num, fields.fill(name), form.dtype)
      found[name] = example.get(name, unknown)
      if name == 'box_area' and name not in example:
        found[name] = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    if self.num_keypoints:
      found['keypoints'] = self._keypoints(example, num)
    if 'box_ids' in found:
      found['box_ids'] = _halves(found['box_ids'])
    found['box_mask'] = np.ones(num, np.bool_)
    padded = {name: self._pad(name, value) for name, value in found.items()}
    rest = {n: v for n, v in example.items() if not fields.per_box(n)}
    return rest | padded

  def _pad(self, name: str, value: np.ndarray) -> np.ndarray:
    shape = self.max_boxes, *value.shape[1:]
    out = np.full(shape, fields.fill(name), value.dtype)
    out[: len(value)] = value
    return out

  def _labels(self, example: dict, num: int) -> np.ndarray:
    """int32 [num]; an id outside the vocabulary is the data set's mistake."""
    where = self.context.where
    if num and 'box_labels' not in example:
      raise ValueError(f'{where}: the record has boxes and no box_labels')
    ids = np.asarray(example.get('box_labels', ()), np.int32)
    vocabulary = self.context.vocabulary
    if vocabulary is not None and ids.size:
      outside = ids[(ids < 0) | (ids >= len(vocabulary.names))]
      if outside.size:
        raise ValueError(
          f'{where}: box label {outside[0]} is outside the vocabulary of '
          f'{len(vocabulary.names)} names'
        )
    return ids

  def _keypoints(self, example: dict, num: int) -> np.ndarray:
    blank = np.zeros((num, self.num_keypoints, 3), np.float32)
    keypoints = example.get('keypoints', blank)
    if num and keypoints.shape != blank.shape:
      raise ValueError(
        f'{self.context.where}: num_keypoints={self.num_keypoints}, but the '
        f'record has {keypoints.shape[1]}'
      )
    return keypoints if num else blank


def _halves(ids: np.ndarray) -> np.ndarray:
  """int32 [N, 2], lower half first, of int64 [N]."""
  return ids.astype('<i8').view('<i4').reshape(-1, 2).astype(np.int32)


def whole_ids(halves: np.ndarray) -> np.ndarray:
  """int64 [...] ids of the field `box_ids`, int32 [..., 2]."""
  low, high = np.asarray(halves, np.int64).T
  return ((high << 32) | (low & 0xFFFFFFFF)).T


class DecodeSegmentation(Declared):
  """'segmentation' PNG -> uint8 [H, W] class ids, 255 where unknown.

  The file has one channel: a palette, of which the indices count and never the
  colours, or 8-bit grey. Other kinds, and another size than the stored image's,
  make a bad example. An array passes through.

  Args (options):
    num_classes: ids from here on, but 255, make a bad example. None: those of
      the vocabulary, and one for the background where the masks have one.
  """

  reads = frozenset({'segmentation', 'image', 'stored_size'})
  does_without = frozenset({'stored_size'})
  makes = frozenset({'segmentation'})

  def __init__(
    self,
    context: OpContext,
    *,
    num_classes: Annotated[int, Between(1, annotations.IGNORE)] | None = None,
  ):
    vocabulary = context.vocabulary
    if num_classes is None and vocabulary is not None:
      num_classes = len(vocabulary.names) + context.background
      num_classes = min(num_classes, annotations.IGNORE)
    self.where = context.where
    self.num_classes = num_classes

  def __call__(self, example: dict, rng: np.random.Generator) -> dict:
    if 'segmentation' not in example:
      raise BadExample(
        f'no segmentation for {self.where}: the record has none, or an op that '
        'resizes, crops or flips comes before'
      )
    ids, image = example['segmentation'], example['image']
    if isinstance(image, bytes):
      raise ValueError(f'{self.where}: the image is encoded; decode it before')
    if isinstance(ids, bytes):
      ids = mask_files.decoded(ids)
    size = example.get('stored_size', image.shape[:2])
    if ids.shape != size:
      raise BadExample(
        f'segmentation of {ids.shape[0]}x{ids.shape[1]} for an image of '
        f'{size[0]}x{size[1]}'
      )
    if self.num_classes is not None:
      wrong = ids[(ids >= self.num_classes) & (ids != annotations.IGNORE)]
      if wrong.size:
        raise BadExample(
          f'class {wrong[0]} in the segmentation, {self.where} allows '
          f'{self.num_classes} and {annotations.IGNORE}'
        )
    ids = outlines.nearest(ids, *image.shape[:2])  # a JPEG decoded smaller
    return example | {'segmentation': ids}


class FullSegmentation(Declared):
  """Keeps the mask at its size here, whatever later ops do to the image.

  Makes `full_segmentation` uint8 [H, W], the mask at the top left of a canvas
  filled with 255, and `full_size` int32 [2], its height and width: what
  predictions are scored against at the original size. Put it right after
  `decode_segmentation`. A larger mask is a bad example.

  Args (options):
    max_size: pixels of a side of the canvas, or (height, width).
  """

  reads = frozenset({'segmentation'})
  makes = frozenset({'full_segmentation', 'full_size'})

  def __init__(self, context: OpContext, *, max_size: geometry.Size):
    self.where = context.where
    self.shape = geometry.sides(max_size)

  def __call__(self, example: dict, rng: np.random.Generator) -> dict:
    ids = example.get('segmentation')
    if not isinstance(ids, np.ndarray):
      raise ValueError(f'{self.where}: put decode_segmentation before it')
    return example | {
      'full_segmentation': on_canvas(
        ids, self.shape, annotations.IGNORE, self.where
      ),
      'full_size': np.array(ids.shape, np.int32),
    }


class Pad(Declared):
  """Puts the image at the top left of a canvas of fixed size.

  A segmentation is filled with 255; boxes and keypoints stay where they are. A
  larger image is a bad example.

  Args (options):
    size: pixels of a side, or (height, width).
    fill: grey level or [r, g, b], 0 to 255. Default: 128, which is 0 on the
      device.
  """

  reads = makes = frozenset({'image'})
  shows_whole = reframes = True

  def __init__(
    self,
    context: OpContext,
    *,
    size: geometry.Size,
    fill: Fill = GREY,
  ):
    self.where = context.where
    self.height, self.width = geometry.sides(size)
    self.fill = np.array(fill, np.uint8)

  def size_after(self, height: int, width: int) -> tuple[int, int]:
    return self.height, self.width

  def __call__(self, example: dict, rng: np.random.Generator) -> dict:
    shape = self.height, self.width
    out: dict[str, Any] = {
      'image': on_canvas(example['image'], shape, self.fill, self.where)
    }
    segmentation = example.get('segmentation')
    if isinstance(segmentation, np.ndarray):
      out['segmentation'] = on_canvas(
        segmentation, shape, annotations.IGNORE, self.where
      )
    return example | out


def on_canvas(
  image: np.ndarray, shape: tuple[int, int], fill: Any, where: str
) -> np.ndarray:
  """uint8 [H, W, ...] with an image [h, w, ...] at its top left.

  Raises:
    BadExample: the image is larger than the canvas of `where`.
  """
  height, width = image.shape[:2]
  if height > shape[0] or width > shape[1]:
    raise BadExample(
      f'image of {height}x{width} is larger than the canvas '
      f'{shape[0]}x{shape[1]} of {where}'
    )
  canvas = np.empty((*shape, *image.shape[2:]), np.uint8)
  canvas[...] = fill
  canvas[:height, :width] = image
  return canvas


class ImageSize(Declared):
  """Notes the size of the image as it is here: put it before `pad`.

  Makes `image_size` int32 [2], height and width, and `original_size` int32
  [2], those of the image before it was ever resized, to which predictions are
  scaled back: the record's own, else that of the stored image.
  """

  reads = frozenset({'image', 'original_size'})
  makes = frozenset({'image_size', 'original_size'})

  def __init__(self, context: OpContext):
    self.where = context.where

  def __call__(self, example: dict, rng: np.random.Generator) -> dict:
    size = np.array(example['image'].shape[:2], np.int32)
    if 'original_size' not in example:
      raise ValueError(
        f'{self.where}: the original size is not known; put decode before'
      )
    return example | {'image_size': size}
