"""Segmentation masks in PNG files: a class id a pixel, kept as ids.

A mask is a PNG with a palette, as VOC's are, or of grey. The ids are the
indices; many programs hand out the colours instead. 255 is void: object
borders, and what annotators left out.
"""

import contextlib
import io
from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from input_pipeline.examples import annotations
from input_pipeline.examples.errors import BadExample

_MAX_MASK_PIXELS = 64_000_000
_FAST = 1  # level of compression of what is not stored
_BIT_DEPTH = 24  # place of the bit depth in a PNG file


class Mask(bytes):
  """The PNG of a mask as it was read, with its class ids: decoded once.

  Attributes:
    ids: uint8 [H, W], never written to.
    present: int64 [n], the ids that occur, ascending; without void.
  """

  ids: np.ndarray
  present: np.ndarray


def read(encoded: bytes, image: bytes, num_ids: int) -> Mask:
  """A mask, checked.

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
      mask = Mask(encoded)
      mask.ids = np.array(picture)
      counts = picture.histogram()  # of ids: 256
  mask.ids.flags.writeable = False
  mask.present = np.flatnonzero(counts[: annotations.IGNORE])
  wrong = mask.present[mask.present >= num_ids]
  if wrong.size:
    raise BadExample(
      f'the mask has the class id {wrong[0]}; valid: 0 to {num_ids - 1} and '
      f'{annotations.IGNORE}'
    )
  return mask


def decoded(encoded: bytes) -> np.ndarray:
  """uint8 [H, W] class ids of an encoded mask; a `Mask` knows its own.

  Raises:
    BadExample: damaged, or neither a palette nor 8-bit grey.
  """
  if isinstance(encoded, Mask):
    return encoded.ids.copy()
  with (
    failures_named('segmentation', 'no PNG'),
    open_png(encoded) as picture,
  ):
    if not holds_ids(picture, encoded):
      raise BadExample(
        f'segmentation PNG is of mode {picture.mode}; it must have a palette '
        'or 8-bit grey'
      )
    return np.array(picture)


def replaced(mask: Any, table: np.ndarray) -> Any:
  """A mask with other class ids, encoded where it was.

  Args:
    mask: bytes of a PNG, or uint8 [H, W].
    table: integer [256], the new id of each; below 0: no valid one.

  Raises:
    BadExample: the mask cannot be decoded, or holds an id that is not valid.
  """
  encoded = isinstance(mask, bytes)
  ids = decoded(mask) if encoded else np.asarray(mask)
  new = table[ids]
  if new.min(initial=0) < 0:
    raise BadExample(
      f'class {ids[new < 0][0]} in the segmentation is none of the data set'
    )
  ids = new.astype(np.uint8)
  return _mask_of(ids) if encoded else ids


def _mask_of(ids: np.ndarray) -> Mask:
  """The mask of 8-bit grey that has these ids, with nothing left to decode."""
  mask = Mask(png(ids, _FAST))
  mask.ids = ids
  counts = np.bincount(ids.ravel(), minlength=annotations.IGNORE + 1)
  mask.present = np.flatnonzero(counts[: annotations.IGNORE])
  ids.flags.writeable = False
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


def png(mask: np.ndarray, level: int = 6) -> bytes:
  """A PNG of one 8-bit channel, compressed so much (1 to 9)."""
  file = io.BytesIO()
  Image.fromarray(mask).save(file, 'PNG', compress_level=level)
  return file.getvalue()
