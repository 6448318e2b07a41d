"""The map of a frozen net in place of the image: the last op of its chain."""

import numpy as np

from big_vision_like.config.option_types import Count
from input_pipeline.examples.errors import BadExample
from input_pipeline.examples.stored_map import StoredMap
from input_pipeline.ops.context import OpContext
from input_pipeline.ops.declared import Declared


class FeatureMap(Declared):
  """Makes `block3_map` float32 [U, V, D] of the stored one; no image is left.

  For the source `feature_maps` (docs/frozen-features.md). The ops before are
  those of the images: they see blanks of the same sizes, so that boxes move and
  chance falls as with images, and a reflection takes the reflection's map.

  Args (options):
    stride: pixels of the canvas a feature.
    channels: D.
  """

  reads = frozenset({'image', 'block3_map'})
  makes = frozenset({'block3_map'})

  def __init__(self, context: OpContext, *, stride: Count, channels: Count):
    self.where = context.where
    self.stride, self.channels = stride, channels

  def __call__(self, example: dict, rng: np.random.Generator) -> dict:
    height, width = example['image'].shape[:2]
    side = lambda pixels: -(-pixels // self.stride)
    shape = side(height), side(width), self.channels
    rest = {k: v for k, v in example.items() if k != 'image'}
    stored = example.get('block3_map')
    if isinstance(stored, np.ndarray) and not stored.size:  # of a blank record
      return rest | {'block3_map': np.zeros(shape, np.float32)}
    if not isinstance(stored, StoredMap):
      raise ValueError(
        f'{self.where}: the record has no feature map; the op is for the '
        "source type 'feature_maps'"
      )
    if stored.shape != shape:
      raise ValueError(
        f'{self.where}: the stored map is {list(stored.shape)}, but stride='
        f'{self.stride} and channels={self.channels} on a canvas of {height}x'
        f'{width} pixels make {list(shape)}'
      )
    try:
      return rest | {'block3_map': stored.read()}
    except ValueError as error:
      raise BadExample(f'feature map: {error}') from None
