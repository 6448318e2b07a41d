"""A resize, a crop and a flip in a row as one op: one resampling of the window
that survives.
"""

import numpy as np

from input_pipeline.ops import bilinear, target_geometry
from input_pipeline.ops.bilinear import Window
from input_pipeline.ops.declared import Declared
from input_pipeline.ops.geometry import Crop, RandomFlip, Resize


class ResizedWindow(Declared):
  """Resize, then an optional crop, then an optional flip, in one sampling.

  Equal to the single ops bit by bit, with the same draws in the same order.
  """

  reads = makes = frozenset({'image'})
  moves_targets = True

  def __init__(
    self, resize: Resize, crop: Crop | None, flip: RandomFlip | None
  ):
    self.resize, self.crop, self.flip = resize, crop, flip
    if crop and (crop.height > resize.height or crop.width > resize.width):
      raise ValueError(
        f'{crop.where}: size {crop.height}x{crop.width} does not fit into the '
        f'resized image {resize.height}x{resize.width}'
      )

  def size_after(self, height: int, width: int) -> tuple[int, int]:
    last = self.crop or self.resize
    return last.height, last.width

  def deterministic(self) -> bool:
    return not self.flip and (not self.crop or self.crop.deterministic())

  def __call__(self, example: dict, rng: np.random.Generator) -> dict:
    height, width = self.resize.height, self.resize.width
    window = Window(0, 0, height, width)
    if self.crop:
      window = self.crop.window(height, width, rng)
    flip = self.flip is not None and self.flip.draw(rng)
    window = Window(window.top, window.left, window.height, window.width, flip)
    image = bilinear.resize(example['image'], height, width, window)
    if target_geometry.present(example):
      example = self._targets(example, window, image)
    return example | {'image': image}

  def _targets(self, example: dict, window: Window, image: np.ndarray) -> dict:
    """Targets as the single ops would move them."""
    height, width = self.resize.height, self.resize.width
    example = target_geometry.resize(example, height, width)
    if self.crop:
      whole = np.broadcast_to(np.uint8(0), (height, width))  # of this size
      example = target_geometry.crop(
        example | {'image': whole}, window, self.crop.min_box_overlap
      )
    if self.flip:
      example = self.flip.targets(example | {'image': image}, window.flip)
    return example


def fuse(ops: list) -> list:
  """Replaces each run resize [crop] [flip] by one `ResizedWindow`."""
  fused, rest = [], list(ops)
  while rest:
    op = rest.pop(0)
    if isinstance(op, Resize) and not op.antialias and rest:
      crop = rest.pop(0) if isinstance(rest[0], Crop) else None
      flip = rest.pop(0) if rest and isinstance(rest[0], RandomFlip) else None
      if crop or flip:
        where, op = op.where, ResizedWindow(op, crop, flip)
        op.where = where
    fused.append(op)
  return fused
