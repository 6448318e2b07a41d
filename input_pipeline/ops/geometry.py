"""Resize, crop and flip of the image (Sun et al. 2017, section 3.2 training
details: 340x340 without keeping the aspect ratio, random 299x299 crop, random
reflection).

A resize, a crop and a flip in a row are fused into one resampling of the
window that survives; `fuse` states the rule.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from input_pipeline.errors import BadExample
from input_pipeline.ops import bilinear
from input_pipeline.ops.bilinear import Window
from input_pipeline.ops.context import OpContext


def _is_int(value: Any) -> bool:
  return isinstance(value, int | np.integer) and not isinstance(value, bool)


def _size(where: str, size: Any) -> tuple[int, int]:
  """(height, width) from one number or a pair; ValueError otherwise."""
  pair = (size, size) if _is_int(size) else size
  if (
    not isinstance(pair, Sequence)
    or len(pair) != 2
    or not all(_is_int(n) and n > 0 for n in pair)
  ):
    raise ValueError(
      f'{where}: size must be a positive number of pixels or (height, width), '
      f'got {size!r}'
    )
  return int(pair[0]), int(pair[1])


def _flag(where: str, name: str, value: Any) -> bool:
  if not isinstance(value, bool):
    raise ValueError(f'{where}: {name} must be True or False, got {value!r}')
  return value


def _antialiased(image: np.ndarray, height: int, width: int) -> np.ndarray:
  picture = Image.fromarray(image)
  resized = picture.resize((width, height), Image.Resampling.BILINEAR)
  return np.asarray(resized)


class Resize:
  """Bilinear resize to a fixed size; the aspect ratio is not kept.

  Without `antialias` each pixel is the mix of its four neighbours at half-pixel
  centres; with it the filter widens with the reduction (triangle, Pillow).
  """

  def __init__(
    self,
    context: OpContext,
    *,
    size: int | Sequence[int],
    antialias: bool = False,
  ):
    self.height, self.width = _size(context.where, size)
    self.antialias = _flag(context.where, 'antialias', antialias)

  def __call__(self, example: dict, rng: np.random.Generator) -> dict:
    return example | {'image': self.resize(example['image'])}

  def resize(self, image: np.ndarray) -> np.ndarray:
    if image.shape[:2] == (self.height, self.width):
      return image
    if self.antialias:
      return _antialiased(image, self.height, self.width)
    return bilinear.resize(image, self.height, self.width)


class ResizeSmall:
  """Bilinear resize of the shorter side to `size`, keeping the aspect ratio."""

  def __init__(self, context: OpContext, *, size: int, antialias: bool = False):
    if not _is_int(size) or size < 1:
      raise ValueError(
        f'{context.where}: size must be a positive number of pixels (the '
        f'shorter side), got {size!r}'
      )
    self.size = int(size)
    self.antialias = _flag(context.where, 'antialias', antialias)

  def __call__(self, example: dict, rng: np.random.Generator) -> dict:
    image = example['image']
    ratio = self.size / min(image.shape[:2])
    height, width = (max(1, round(n * ratio)) for n in image.shape[:2])
    resize = _antialiased if self.antialias else bilinear.resize
    return example | {'image': resize(image, height, width)}


class _Crop:
  """A crop of fixed size; subclasses choose its place."""

  def __init__(self, context: OpContext, *, size: int | Sequence[int]):
    self.where = context.where
    self.height, self.width = _size(context.where, size)

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
    image = example['image']
    w = self.window(image.shape[0], image.shape[1], rng)
    cut = image[w.top : w.top + w.height, w.left : w.left + w.width]
    return example | {'image': cut}


class RandomCrop(_Crop):
  """Crop of `size` at a uniformly random place."""

  def corner(
    self, height: int, width: int, rng: np.random.Generator
  ) -> tuple[int, int]:
    top = int(rng.integers(height - self.height + 1))
    return top, int(rng.integers(width - self.width + 1))


class CenterCrop(_Crop):
  """Crop of `size` in the middle; an odd rest goes to the bottom and right."""

  def corner(
    self, height: int, width: int, rng: np.random.Generator
  ) -> tuple[int, int]:
    return (height - self.height) // 2, (width - self.width) // 2


class CentralCrop:
  """The central `fraction` of each side, as `tf.image.central_crop` cuts it."""

  def __init__(self, context: OpContext, *, fraction: float):
    if not isinstance(fraction, int | float) or not 0 < fraction <= 1:
      raise ValueError(
        f'{context.where}: fraction must be in (0, 1], got {fraction!r}'
      )
    self.fraction = float(fraction)

  def __call__(self, example: dict, rng: np.random.Generator) -> dict:
    height, width = example['image'].shape[:2]
    top = int((height - height * self.fraction) / 2)
    left = int((width - width * self.fraction) / 2)
    cut = example['image'][top : height - top, left : width - left]
    return example | {'image': cut}


class RandomFlip:
  """Mirror image, left to right, with probability `probability`."""

  def __init__(self, context: OpContext, *, probability: float = 0.5):
    if not isinstance(probability, int | float) or not 0 <= probability <= 1:
      raise ValueError(
        f'{context.where}: probability must be in [0, 1], got {probability!r}'
      )
    self.probability = float(probability)

  def draw(self, rng: np.random.Generator) -> bool:
    return bool(rng.random() < self.probability)

  def __call__(self, example: dict, rng: np.random.Generator) -> dict:
    if not self.draw(rng):
      return example
    return example | {'image': np.ascontiguousarray(example['image'][:, ::-1])}


class ResizedWindow:
  """Resize, then an optional crop, then an optional flip, in one sampling.

  Equal to the single ops bit by bit, with the same draws in the same order.
  """

  def __init__(
    self, resize: Resize, crop: _Crop | None, flip: RandomFlip | None
  ):
    self.resize, self.crop, self.flip = resize, crop, flip
    if crop and (crop.height > resize.height or crop.width > resize.width):
      raise ValueError(
        f'{crop.where}: size {crop.height}x{crop.width} does not fit into the '
        f'resized image {resize.height}x{resize.width}'
      )

  def __call__(self, example: dict, rng: np.random.Generator) -> dict:
    height, width = self.resize.height, self.resize.width
    window = Window(0, 0, height, width)
    if self.crop:
      window = self.crop.window(height, width, rng)
    flip = self.flip is not None and self.flip.draw(rng)
    window = Window(window.top, window.left, window.height, window.width, flip)
    image = bilinear.resize(example['image'], height, width, window)
    return example | {'image': image}


def fuse(ops: list) -> list:
  """Replaces each run resize [crop] [flip] by one `ResizedWindow`."""
  fused, rest = [], list(ops)
  while rest:
    op = rest.pop(0)
    if isinstance(op, Resize) and not op.antialias and rest:
      crop = rest.pop(0) if isinstance(rest[0], _Crop) else None
      flip = rest.pop(0) if rest and isinstance(rest[0], RandomFlip) else None
      if crop or flip:
        op = ResizedWindow(op, crop, flip)
    fused.append(op)
  return fused
