"""An example as its record will hold it: the image file and its annotations.

Every image is decoded once, so that a data set holds none that training cannot
read. An image that need not change keeps its bytes. Where it is resized, boxes,
keypoints and outlines move with it, masks are resized by nearest neighbour, and
`original_size` says what it was.

`resize` samples as the op `resize` does, so that a prepared image is the one
that training would have made. `long_side` reduces for good and at any ratio:
it widens the bilinear filter with the reduction (antialias), since what aliases
in a stored image cannot be mended later.
"""

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
import simplejpeg
from PIL import Image

from input_pipeline.examples import annotations as annotation_fields
from input_pipeline.examples import outlines
from input_pipeline.examples.errors import BadExample
from input_pipeline.ops import bilinear
from input_pipeline.ops.context import OpContext
from input_pipeline.ops.decode import Decode
from input_pipeline.prepared.recipe import Recipe

_DECODE = Decode(OpContext(where='decode'))
_INDEXED = ('P', 'L')  # Pillow modes whose pixels are numbers up to 255


def image_and_annotations(
  example: Mapping[str, Any], recipe: Recipe
) -> tuple[bytes, dict[str, Any] | None]:
  """The image file, and the fields of annotations.py that go with it.

  Args:
    example: 'image' encoded or uint8 [H, W, 3], and any annotations.
    recipe: what to store.

  Returns:
    (encoded image, annotations or None where there are none).

  Raises:
    BadExample: image or mask cannot be decoded, or they differ in size.
  """
  given = example['image']
  pixels = given if isinstance(given, np.ndarray) else _DECODE.decode(given)
  fields = annotations_of(example)
  height, width = pixels.shape[:2]
  target = _stored_size(height, width, recipe)
  mask = fields.get('segmentation')
  if mask is not None:
    mask = _resized_mask(mask, (height, width), target)
  if target != (height, width):
    if fields:
      ratios = target[0] / height, target[1] / width
      fields = annotation_fields.rescale(fields, *ratios)
    fields.setdefault('original_size', np.array([height, width], np.int32))
  if mask is not None:
    fields['segmentation'] = mask
  return _encoded(given, pixels, target, recipe), fields or None


def annotations_of(example: Mapping[str, Any]) -> dict[str, Any]:
  """The fields of an example that annotations.py names."""
  names = annotation_fields.FIELDS
  return {name: example[name] for name in names if name in example}


def _stored_size(height: int, width: int, recipe: Recipe) -> tuple[int, int]:
  if recipe.resize is not None:
    return recipe.resize, recipe.resize
  longer = max(height, width)
  if recipe.long_side is None or longer <= recipe.long_side:
    return height, width
  ratio = recipe.long_side / longer
  return max(1, round(height * ratio)), max(1, round(width * ratio))


def _encoded(
  given: bytes | np.ndarray,
  pixels: np.ndarray,
  target: tuple[int, int],
  recipe: Recipe,
) -> bytes:
  if target != pixels.shape[:2]:
    if recipe.resize is not None:
      resized = bilinear.resize(pixels, target[0], target[1])
    else:
      picture = Image.fromarray(pixels)
      filtered = picture.resize(
        (target[1], target[0]), Image.Resampling.BILINEAR
      )
      resized = np.asarray(filtered)
    return simplejpeg.encode_jpeg(
      np.ascontiguousarray(resized), recipe.quality, colorsubsampling='420'
    )
  if isinstance(given, bytes):
    return given
  return _png(Image.fromarray(pixels))  # pixels as they are, so no loss


def _resized_mask(
  encoded: bytes, size: tuple[int, int], target: tuple[int, int]
) -> bytes:
  """The PNG of class ids at the size of the stored image; ids stay ids."""
  try:
    with Image.open(io.BytesIO(encoded), formats=('PNG',)) as mask:
      if mask.mode not in _INDEXED:
        raise BadExample(
          f'segmentation has mode {mask.mode!r}, it must hold class ids '
          '(a palette or 8-bit grey)'
        )
      if mask.size != (size[1], size[0]):
        raise BadExample(
          f'segmentation of {mask.height}x{mask.width} pixels for an image of '
          f'{size[0]}x{size[1]}'
        )
      mask.load()
      if target == size:
        return encoded
      # As training resizes it; Pillow errs where a centre is on an edge.
      resized = Image.fromarray(outlines.nearest(np.asarray(mask), *target))
      if mask.mode == 'P':
        resized.putpalette(mask.getpalette() or [])
      return _png(resized)
  except BadExample:
    raise
  except Exception as error:  # a parser meets hostile bytes: any failure
    raise BadExample(f'segmentation cannot be decoded: {error}') from None


def _png(picture: Image.Image) -> bytes:
  out = io.BytesIO()
  picture.save(out, 'PNG')
  return out.getvalue()
