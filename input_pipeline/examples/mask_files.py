"""Segmentation masks in PNG files: a class id a pixel, kept as ids.

A mask is a PNG with a palette, as VOC's are, or of grey. The ids are the
indices; many programs hand out the colours instead. 255 is void: object
borders, and what annotators left out.
"""

import io

import numpy as np
from PIL import Image, UnidentifiedImageError

from input_pipeline.examples import annotations
from input_pipeline.examples.errors import BadExample

_MAX_MASK_PIXELS = 64_000_000
_BIT_DEPTH = 24  # place of the bit depth in a PNG file


def class_ids(encoded: bytes, image: bytes, num_ids: int) -> np.ndarray:
  """uint8 [H, W] class ids of an encoded mask.

  Args:
    encoded: PNG with a palette, whose colours do not count, or of 8-bit grey.
    image: the encoded image it belongs to, of the same size.
    num_ids: ids are 0 to num_ids - 1, and 255.

  Raises:
    BadExample: damaged, of another kind or size, or with other ids.
  """
  try:
    with Image.open(io.BytesIO(image)) as picture:
      size = picture.size
    with Image.open(io.BytesIO(encoded), formats=('PNG',)) as picture:
      # Pillow spreads grey of fewer bits over 0 to 255.
      if picture.mode != 'P' and (
        picture.mode != 'L' or encoded[_BIT_DEPTH] != 8
      ):
        raise BadExample(
          f'the mask is of mode {picture.mode}; expected a palette or 8-bit '
          f'grey'
        )
      if picture.size != size or size[0] * size[1] > _MAX_MASK_PIXELS:
        raise BadExample(
          f'the mask is {picture.size[0]}x{picture.size[1]} pixels, the image '
          f'{size[0]}x{size[1]}'
        )
      mask = np.array(picture)
  except BadExample:
    raise
  except UnidentifiedImageError:
    raise BadExample(
      'mask or image cannot be decoded: no PNG, or no image'
    ) from None
  except Exception as error:  # a parser meets hostile bytes: any failure
    raise BadExample(f'mask or image cannot be decoded: {error}') from None
  wrong = mask[(mask >= num_ids) & (mask != annotations.IGNORE)]
  if wrong.size:
    raise BadExample(
      f'the mask has the class id {wrong[0]}; valid: 0 to {num_ids - 1} and '
      f'{annotations.IGNORE}'
    )
  return mask


def png(mask: np.ndarray) -> bytes:
  """A PNG of one 8-bit channel."""
  file = io.BytesIO()
  Image.fromarray(mask).save(file, 'PNG')
  return file.getvalue()
