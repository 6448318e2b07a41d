"""Segmentation masks in PNG files: a class id a pixel, kept as ids.

A mask is a PNG with a palette, as VOC's are, or of grey. The ids are the
indices; many programs hand out the colours instead. 255 is void: object
borders, and what annotators left out.
"""

import contextlib
import io
from collections.abc import Iterator

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
  with failures_named('mask or image', 'no PNG, or no image'):
    with Image.open(io.BytesIO(image)) as picture:
      size = picture.size
    with open_png(encoded) as picture:
      if not holds_ids(picture, encoded):
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
  wrong = mask[(mask >= num_ids) & (mask != annotations.IGNORE)]
  if wrong.size:
    raise BadExample(
      f'the mask has the class id {wrong[0]}; valid: 0 to {num_ids - 1} and '
      f'{annotations.IGNORE}'
    )
  return mask


def open_png(encoded: bytes) -> Image.Image:
  """The picture, not decoded yet; other formats are not tried."""
  return Image.open(io.BytesIO(encoded), formats=('PNG',))


def holds_ids(picture: Image.Image, encoded: bytes) -> bool:
  """Whether its pixel values are ids: those of a palette, or 8-bit grey.

  Pillow spreads grey of fewer bits over 0 to 255.
  """
  grey = picture.mode == 'L' and encoded[_BIT_DEPTH] == 8
  return picture.mode == 'P' or grey


@contextlib.contextmanager
def failures_named(what: str, unidentified: str) -> Iterator[None]:
  """Failures to decode as BadExample: '<what> cannot be decoded: ...'.

  Args:
    what: is decoded.
    unidentified: the reason where it is of no known format.
  """
  try:
    yield
  except BadExample:
    raise
  except UnidentifiedImageError:
    raise BadExample(f'{what} cannot be decoded: {unidentified}') from None
  except Exception as error:  # a parser meets hostile bytes: any failure
    raise BadExample(f'{what} cannot be decoded: {error}') from None


def png(mask: np.ndarray) -> bytes:
  """A PNG of one 8-bit channel."""
  file = io.BytesIO()
  Image.fromarray(mask).save(file, 'PNG')
  return file.getvalue()
