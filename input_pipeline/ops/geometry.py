"""Resize, crop and flip of the image (Sun et al. 2017, section 3.2 training
details: 340x340 without keeping the aspect ratio, random 299x299 crop, random
reflection).

A resize, a crop and a flip in a row are fused into one resampling of the
window that survives (fused.py). Boxes, keypoints, outlines and a
decoded segmentation move with the image (target_geometry.py); an example that
has none of them costs nothing more.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import numpy as np
from PIL import Image

from big_vision_like.config.option_types import (
  Above,
  AtLeast,
  Between,
  Fraction,
)
from input_pipeline.examples.errors import BadExample
from input_pipeline.examples.stored_map import StoredMap
from input_pipeline.ops import bilinear, target_geometry
from input_pipeline.ops.bilinear import Window
from input_pipeline.ops.context import OpContext
from input_pipeline.ops.declared import Declared

Pixels = Annotated[int, AtLeast(1)]
Size = Pixels | tuple[Pixels, Pixels]  # of both sides, or (height, width)
Positive = Annotated[float, Above(0)]
Share = Annotated[float, Between(0, 1, open='low')]
Keypoint = Annotated[int, AtLeast(0)]  # its number


def sides(size: Size) -> tuple[int, int]:
  """(height, width) from one number or a pair."""
  height, width = size if isinstance(size, Sequence) else (size, size)
  return int(height), int(width)


def _antialiased(image: np.ndarray, height: int, width: int) -> np.ndarray:
  picture = Image.fromarray(image)
  resized = picture.resize((width, height), Image.Resampling.BILINEAR)
  return np.asarray(resized)


def _resized(example: dict, height: int, width: int, antialias: bool) -> dict:
  """The example with its image and targets resized."""
  image = example['image']
  if target_geometry.present(example):
    example = target_geometry.resize(example, height, width)
  if image.shape[:2] != (height, width) and not any(image.strides):
    image = np.broadcast_to(image[:1, :1], (height, width, 3))  # a blank
  elif image.shape[:2] != (height, width):
    resize = _antialiased if antialias else bilinear.resize
    image = resize(image, height, width)
  return example | {'image': image}


def _scaled(height: int, width: int, ratio: float) -> tuple[int, int]:
  """The size times a ratio, in whole pixels."""
  return max(1, round(height * ratio)), max(1, round(width * ratio))


class _OfPixels(Declared):
  """An op of the image; targets are moved along."""

  reads = makes = frozenset({'image'})
  moves_targets = True


class _Sized(_OfPixels):
  """An op with the options size, (height, width) or a side, and antialias."""

  shows_whole = True

  def __init__(
    self,
    context: OpContext,
    *,
    size: Size,
    antialias: bool = False,
  ):
    self.height, self.width = sides(size)
    self.antialias = antialias


class Resize(_Sized):
  """Bilinear resize to a fixed size; the aspect ratio is not kept.

  Without `antialias` each pixel is the mix of its four neighbours at half-pixel
  centres; with it the filter widens with the reduction (triangle, Pillow).
  """

  def size_after(self, height: int, width: int) -> tuple[int, int]:
    return self.height, self.width

  def __call__(self, example: dict, rng: np.random.Generator) -> dict:
    return _resized(example, self.height, self.width, self.antialias)


class _ResizeSide(_OfPixels):
  """Bilinear resize that keeps the aspect ratio; subclasses choose it."""

  shows_whole = True

  def __init__(
    self, context: OpContext, *, size: Pixels, antialias: bool = False
  ):
    self.size = int(size)
    self.antialias = antialias

  def ratio(self, height: int, width: int) -> float:
    raise NotImplementedError

  def size_after(self, height: int, width: int) -> tuple[int, int]:
    return _scaled(height, width, self.ratio(height, width))

  def __call__(self, example: dict, rng: np.random.Generator) -> dict:
    height, width = self.size_after(*example['image'].shape[:2])
    return _resized(example, height, width, self.antialias)


class ResizeSmall(_ResizeSide):
  """Bilinear resize of the shorter side to `size`, keeping the aspect ratio.

  With `max_size`, an image whose longer side would become longer than that is
  resized to `max_size` on its longer side instead: detection's 600 and 1024.
  """

  def __init__(
    self,
    context: OpContext,
    *,
    size: Pixels,
    antialias: bool = False,
    max_size: Pixels | None = None,
  ):
    super().__init__(context, size=size, antialias=antialias)
    self.max_size = max_size
    if max_size is not None and max_size < size:
      raise ValueError(
        f'{context.where}: max_size={max_size} (the longer side) must be at '
        f'least size={size} (the shorter side)'
      )

  def ratio(self, height: int, width: int) -> float:
    ratio, longer = self.size / min(height, width), max(height, width)
    if self.max_size and round(longer * ratio) > self.max_size:
      return self.max_size / longer
    return ratio


class ResizeLong(_ResizeSide):
  """Bilinear resize of the longer side to `size`, keeping the aspect ratio."""

  def ratio(self, height: int, width: int) -> float:
    return self.size / max(height, width)


class ShrinkToFit(_Sized):
  """Resizes an image that is larger than `size`, to fit into it.

  The aspect ratio is kept; an image that fits stays as it is.

  Args (options):
    size: pixels of a side, or (height, width).
    antialias: see `Resize`.
  """

  def size_after(self, height: int, width: int) -> tuple[int, int]:
    ratio = min(self.height / height, self.width / width)
    return (height, width) if ratio >= 1 else _scaled(height, width, ratio)

  def __call__(self, example: dict, rng: np.random.Generator) -> dict:
    shape = example['image'].shape[:2]
    if max(shape[0] / self.height, shape[1] / self.width) <= 1:
      return example
    return _resized(example, *self.size_after(*shape), self.antialias)


def _cut(example: dict, window: Window, min_box_overlap: float) -> dict:
  """The example with its image and targets cut to the window."""
  image = example['image'][
    window.top : window.top + window.height,
    window.left : window.left + window.width,
  ]
  if target_geometry.present(example):
    example = target_geometry.crop(example, window, min_box_overlap)
  return example | {'image': image}


class Crop(_OfPixels):
  """A crop of fixed size; subclasses choose its place.

  Args (options):
    size: pixels of a side, or (height, width).
    min_box_overlap: boxes of which a smaller share of the area lies in the
      crop are dropped; those that miss it always are.
  """

  reframes = True

  def __init__(
    self,
    context: OpContext,
    *,
    size: Size,
    min_box_overlap: Fraction = 0.0,
  ):
    self.where = context.where
    self.height, self.width = sides(size)
    self.min_box_overlap = float(min_box_overlap)

  def size_after(self, height: int, width: int) -> tuple[int, int]:
    return self.height, self.width

  def corner(
    self, height: int, width: int, rng: np.random.Generator
  ) -> tuple[int, int]:
    raise NotImplementedError

  def window(self, height: int, width: int, rng: np.random.Generator) -> Window:
    """The crop of an image of this size; BadExample where it does not fit."""
    if height < self.height or width < self.width:
      raise BadExample(
        f'image of {height}x{width} is smaller than the crop '
        f'{self.height}x{self.width} of {self.where}'
      )
    top, left = self.corner(height, width, rng)
    return Window(top, left, self.height, self.width)

  def __call__(self, example: dict, rng: np.random.Generator) -> dict:
    height, width = example['image'].shape[:2]
    window = self.window(height, width, rng)
    return _cut(example, window, self.min_box_overlap)


class RandomCrop(Crop):
  """Crop of `size` at a uniformly random place."""

  @classmethod
  def without_chance(cls, options: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The central crop of its size."""
    return [{**options, 'op': 'center_crop'}]

  def deterministic(self) -> bool:
    return False

  def corner(
    self, height: int, width: int, rng: np.random.Generator
  ) -> tuple[int, int]:
    top = int(rng.integers(height - self.height + 1))
    return top, int(rng.integers(width - self.width + 1))


class CenterCrop(Crop):
  """Crop of `size` in the middle; an odd rest goes to the bottom and right."""

  def corner(
    self, height: int, width: int, rng: np.random.Generator
  ) -> tuple[int, int]:
    return (height - self.height) // 2, (width - self.width) // 2


class RandomResizedCrop(_OfPixels):
  """A crop of random area and aspect ratio, resized (Szegedy et al. 2015).

  Ten draws of an area and an aspect ratio (log-uniform); the first crop that
  fits counts, else the largest central one of an allowed ratio, as torchvision
  does it.

  Args (options):
    size: pixels of a side of the result, or (height, width).
    area: least and largest share of the image's area.
    aspect: least and largest width / height of the crop.
    antialias: see `Resize`.
    min_box_overlap: see `Crop`.
  """

  reframes = True
  _TRIES = 10
  _CENTRAL = 0.875  # of a side: what evaluation takes after random areas

  @classmethod
  def without_chance(cls, options: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The central 87.5 % of either side (Szegedy et al. 2015)."""
    size = options['size']
    whole = (
      round(size / cls._CENTRAL)
      if isinstance(size, int)
      else [round(side / cls._CENTRAL) for side in size]
    )
    kept = {k: v for k, v in options.items() if k == 'antialias'}
    return [
      dict(op='resize', size=whole, **kept),
      dict(op='center_crop', size=size),
    ]

  def deterministic(self) -> bool:
    return False

  def __init__(
    self,
    context: OpContext,
    *,
    size: Size,
    area: tuple[Share, Share] = (0.08, 1.0),
    aspect: tuple[Positive, Positive] = (3 / 4, 4 / 3),
    antialias: bool = False,
    min_box_overlap: Fraction = 0.0,
  ):
    self.height, self.width = sides(size)
    self.area = rising(context.where, 'area', area)
    self.aspect = rising(context.where, 'aspect', aspect)
    self.antialias = antialias
    self.min_box_overlap = float(min_box_overlap)

  def size_after(self, height: int, width: int) -> tuple[int, int]:
    return self.height, self.width

  def window(self, height: int, width: int, rng: np.random.Generator) -> Window:
    """The crop of an image of this size."""
    for _ in range(self._TRIES):
      area = height * width * rng.uniform(*self.area)
      ratio = np.exp(rng.uniform(*np.log(self.aspect)))
      w, h = round(np.sqrt(area * ratio)), round(np.sqrt(area / ratio))
      if 0 < w <= width and 0 < h <= height:
        top = int(rng.integers(height - h + 1))
        return Window(top, int(rng.integers(width - w + 1)), h, w)
    low, high = self.aspect
    w = width if width / height <= high else max(1, round(height * high))
    h = height if width / height >= low else max(1, round(width / low))
    return Window((height - h) // 2, (width - w) // 2, h, w)

  def __call__(self, example: dict, rng: np.random.Generator) -> dict:
    height, width = example['image'].shape[:2]
    window = self.window(height, width, rng)
    example = _cut(example, window, self.min_box_overlap)
    return _resized(example, self.height, self.width, self.antialias)


def rising(
  where: str, name: str, pair: tuple[float, float]
) -> tuple[float, float]:
  """(low, high); ValueError unless low <= high."""
  low, high = pair
  if low > high:
    raise ValueError(f'{where}: {name}={pair!r} must be (low, high)')
  return float(low), float(high)


class CentralCrop(_OfPixels):
  """The central `fraction` of each side, as `tf.image.central_crop` cuts it."""

  reframes = True

  def __init__(
    self,
    context: OpContext,
    *,
    fraction: Share,
    min_box_overlap: Fraction = 0.0,
  ):
    self.fraction = float(fraction)
    self.min_box_overlap = float(min_box_overlap)

  def __call__(self, example: dict, rng: np.random.Generator) -> dict:
    height, width = example['image'].shape[:2]
    top = int((height - height * self.fraction) / 2)
    left = int((width - width * self.fraction) / 2)
    window = Window(top, left, height - 2 * top, width - 2 * left)
    return _cut(example, window, self.min_box_overlap)


class RandomFlip(_OfPixels):
  """Mirror image, left to right, with probability `probability`.

  Args (options):
    probability: of the flip.
    keypoint_pairs: numbers of the keypoints that change places, [[1, 2], ...],
      so that a left eye is a left eye in the mirror too; () for none. Default:
      those that the data say; keypoints of data that say none are refused.
  """

  reframes = True

  def __init__(
    self,
    context: OpContext,
    *,
    probability: Fraction = 0.5,
    keypoint_pairs: Sequence[tuple[Keypoint, Keypoint]] | None = None,
  ):
    self.probability = float(probability)
    if keypoint_pairs is None:
      keypoint_pairs = context.keypoint_pairs
    self.pairs = _pairs(context.where, keypoint_pairs)

  @classmethod
  def without_chance(cls, options: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Nothing: the image as it is."""
    del options
    return []

  def deterministic(self) -> bool:
    return False

  def size_after(self, height: int, width: int) -> tuple[int, int]:
    return height, width

  def draw(self, rng: np.random.Generator) -> bool:
    return bool(rng.random() < self.probability)

  def targets(self, example: dict, flip: bool) -> dict:
    """The example with its targets mirrored, or checked if they stay."""
    stored = example.get('block3_map')
    if flip and isinstance(stored, StoredMap):
      example = example | {'block3_map': stored.mirrored()}
    if not target_geometry.present(example):
      return example
    move = target_geometry.flip if flip else target_geometry.keep
    return move(example, self.pairs)

  def __call__(self, example: dict, rng: np.random.Generator) -> dict:
    flip = self.draw(rng)
    example = self.targets(example, flip)
    if not flip:
      return example
    return example | {'image': np.ascontiguousarray(example['image'][:, ::-1])}


def _pairs(
  where: str, given: Sequence[Sequence[int]] | None
) -> target_geometry.Pairs | None:
  """`keypoint_pairs` as the geometry takes them; each number at most once."""
  if given is None:
    return None
  numbers = [n for pair in given for n in pair]
  if len(set(numbers)) < len(numbers):
    raise ValueError(
      f'{where}: keypoint_pairs={given!r} must name each keypoint once, such '
      'as [[1, 2], [3, 4]]'
    )
  return [(int(left), int(right)) for left, right in given]
