"""Encoded image bytes -> uint8 RGB, or a `BadExample` that says why not.

The format is read from the bytes, never from a file name. Size limits are
checked on the header, before a pixel is decoded. A JPEG with missing or
corrupt data is refused, not filled with grey. docs/data.md ("Bad images")
lists what is decoded, converted and refused.
"""

import io
from typing import Annotated

import numpy as np
import simplejpeg
from PIL import Image

from big_vision_like.config.option_types import Above, Between, Count
from input_pipeline.examples import fields
from input_pipeline.examples.errors import BadExample
from input_pipeline.ops import target_geometry
from input_pipeline.ops.context import OpContext
from input_pipeline.ops.declared import Declared

_PILLOW_FORMATS = ('PNG', 'GIF', 'BMP', 'WEBP', 'TIFF')
_PILLOW_LIMIT_MEGAPIXELS = 178  # above, Pillow itself refuses to open
_JPEG = b'\xff\xd8'  # how one starts
_ORIENTATION_TAG = 0x0112
_LYING = (5, 6, 7, 8)  # orientations that swap height and width
_WHITE = (255, 255, 255, 255)


class Decode(Declared):
  """'image' bytes -> uint8 [H,W,3]; an array passes through as it is.

  Adds `original_size` where the record has none (see the op `image_size`).

  Args (options):
    max_megapixels: largest image, in units of 10^6 pixels.
    max_megabytes: largest encoded size, in MiB.
    min_size: decode large JPEGs at 7/8, 6/8, ..., 1/8 of their size as long as
      both sides stay at least this many pixels. Faster, not pixel-equal.
      Boxes and keypoints shrink with the image.
    apply_exif: turn the image as its EXIF orientation says. Off by default:
      labels in pixel coordinates usually refer to the stored image, and a
      record with boxes or a segmentation is refused when it is on.
  """

  reads = frozenset({'image', 'original_size'})
  makes = frozenset({'image', 'original_size', 'stored_size'})
  shows_whole = True
  needs_pixels = False
  does_without = frozenset({'original_size'})

  def __init__(
    self,
    context: OpContext,
    *,
    max_megapixels: Annotated[
      float, Between(0, _PILLOW_LIMIT_MEGAPIXELS, open='low')
    ] = 64,
    max_megabytes: Annotated[float, Above(0)] = 64,
    min_size: Count | None = None,
    apply_exif: bool = False,
  ):
    self.where = context.where
    self.max_pixels = int(max_megapixels * 1e6)
    self.max_bytes = int(max_megabytes * 2**20)
    self.min_size = min_size or 0
    self.apply_exif = apply_exif

  def __call__(self, example: dict, rng: np.random.Generator) -> dict:
    image = example['image']
    if isinstance(image, np.ndarray):
      if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(
          'image arrays must be uint8 [H,W,3], got '
          f'{image.dtype} {list(image.shape)}'
        )
      decoded, stored = image, image.shape[:2]
    else:
      decoded = self.decode(image)
      stored = self._stored_size(image, decoded)
    if 'person_box' in example or target_geometry.present(example):
      self._check_targets(example)
    if target_geometry.present(example):
      return target_geometry.decoded(example, decoded, stored)
    size = example.get('original_size', np.array(stored, np.int32))
    return example | {'image': decoded, 'original_size': size}

  def size_after(self, height: int, width: int) -> tuple[int, int] | None:
    known = not (self.min_size or self.apply_exif)
    return (height, width) if known else None

  def _stored_size(self, encoded: bytes, image: np.ndarray) -> tuple[int, int]:
    """(height, width) before a JPEG was reduced by `min_size`."""
    if not self.min_size or encoded[:2] != _JPEG:
      return image.shape[0], image.shape[1]
    height, width, _, _ = simplejpeg.decode_jpeg_header(encoded)
    lying = self.apply_exif and _orientation(encoded) in _LYING
    return (int(width), int(height)) if lying else (int(height), int(width))

  def _check_targets(self, example: dict) -> None:
    if self.apply_exif:
      names = (*fields.ANNOTATIONS, 'person_box')
      present = [n for n in names if n in example]
      raise ValueError(
        f'{self.where}: apply_exif=True turns images, and {present[0]} would '
        'no longer fit; set it to False'
      )

  def decode(self, encoded: bytes) -> np.ndarray:
    """uint8 [H,W,3] of an encoded image; BadExample where it is unusable."""
    if not encoded:
      raise BadExample('empty image (0 bytes)')
    if len(encoded) > self.max_bytes:
      raise BadExample(
        f'image of {len(encoded)} bytes is above the limit of {self.max_bytes}'
      )
    if encoded[:2] != _JPEG:
      return self._other(encoded)
    image = self._jpeg(encoded)
    return _turned(image, _orientation(encoded)) if self.apply_exif else image

  def _check_size(self, kind: str, height: int, width: int) -> None:
    if height * width > self.max_pixels:
      raise BadExample(
        f'{kind} of {height}x{width} pixels is above the limit of '
        f'{self.max_pixels} pixels'
      )

  def _jpeg(self, encoded: bytes) -> np.ndarray:
    try:
      height, width, _, _ = simplejpeg.decode_jpeg_header(encoded)
      self._check_size('JPEG', int(height), int(width))
      return simplejpeg.decode_jpeg(
        encoded, 'RGB', min_height=self.min_size, min_width=self.min_size
      )
    except ValueError as error:  # strict: missing data is an error, not grey
      raise BadExample(f'JPEG cannot be decoded: {error}') from None

  def _other(self, encoded: bytes) -> np.ndarray:
    try:
      with Image.open(io.BytesIO(encoded), formats=_PILLOW_FORMATS) as picture:
        kind = str(picture.format)
        self._check_size(kind, picture.height, picture.width)
        image = _to_rgb(picture)
        if self.apply_exif:
          image = _turned(image, picture.getexif().get(_ORIENTATION_TAG, 1))
        return image
    except BadExample:
      raise
    except Image.UnidentifiedImageError:
      raise BadExample(
        f'not an image (starts with {bytes(encoded[:8])!r}; known: JPEG, '
        f'{", ".join(_PILLOW_FORMATS)})'
      ) from None
    except Image.DecompressionBombError:
      raise BadExample(
        f'image is above the limit of {self.max_pixels} pixels'
      ) from None
    except Exception as error:  # a parser meets hostile bytes: any failure
      raise BadExample(f'image cannot be decoded: {error}') from None


def _to_rgb(picture: Image.Image) -> np.ndarray:
  """uint8 [H,W,3] of the first frame.

  16-bit grey is scaled (Pillow's own conversion would clip it), transparency
  is laid over white, palettes are looked up. Floating point is clipped to 0 to
  255; NaN would become black.
  """
  if picture.mode == 'F' and not np.isfinite(np.asarray(picture)).all():
    raise BadExample(f'{picture.format} has values that are not finite')
  if picture.mode.startswith('I'):  # 'I;16', 'I;16B'; 'I' in older Pillow
    deep = np.asarray(picture)
    if deep.min() < 0 or deep.max() > 65535:
      raise BadExample(f'{picture.format} has values outside 0 to 65535')
    grey = ((deep.astype(np.uint32) + 128) // 257).astype(np.uint8)
    return np.repeat(grey[:, :, None], 3, axis=2)
  if picture.has_transparency_data:
    colour = picture.convert('RGBA')
    paper = Image.new('RGBA', colour.size, _WHITE)
    return np.array(Image.alpha_composite(paper, colour))[:, :, :3].copy()
  return np.array(picture.convert('RGB'))


def _orientation(encoded: bytes) -> int:
  """EXIF orientation of a JPEG, 1 where it has none or a broken one."""
  try:
    with Image.open(io.BytesIO(encoded), formats=('JPEG', 'MPO')) as picture:
      return picture.getexif().get(_ORIENTATION_TAG, 1)
  except Exception:  # the pixels are good, only the note about them is not
    return 1


def _turned(image: np.ndarray, orientation: int) -> np.ndarray:
  """The image as a viewer shows it; orientations 1 to 8 of the EXIF tag."""
  if orientation in _LYING:
    image = image.transpose(1, 0, 2)
  if orientation in (2, 3, 6, 7):
    image = image[:, ::-1]
  if orientation in (3, 4, 7, 8):
    image = image[::-1]
  return np.ascontiguousarray(image)
