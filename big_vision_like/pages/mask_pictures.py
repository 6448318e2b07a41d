"""Masks as pictures: colours of class ids, files, overlays.

The colours are those of PASCAL VOC's masks (Everingham et al. 2015): the bits
of the id, three at a time from the lowest on, are the highest bits of red,
green and blue, so that neighbouring ids differ most.
"""

import functools
import os

import numpy as np
from PIL import Image

from input_pipeline.files import atomic

ALPHA = 0.45  # of a colour over the image
_LINE = (255, 255, 255)
_BAND = 256  # rows at a time: what is held as floats
_LINE_PER_SIDE = 500  # pixels of a side for each pixel of a line's width
_LARGEST_JPEG = 65_500  # pixels of a side


@functools.cache
def colour_map() -> np.ndarray:
  """uint8 [256, 3]: red, green and blue of each id; 0 black, 255 near white."""
  ids = np.arange(256)
  colours = np.zeros((256, 3), np.uint8)
  for bit in range(8):
    for channel in range(3):
      value = (ids >> (3 * bit + channel)) & 1
      colours[:, channel] |= (value << (7 - bit)).astype(np.uint8)
  colours.setflags(write=False)
  return colours


def save_mask(path: str, ids: np.ndarray) -> None:
  """Writes ids uint8 [H, W] as a palette PNG, whole or not at all.

  Its pixel values are the ids; viewers show the colours of `colour_map`.
  """
  picture = Image.fromarray(ids)
  picture.putpalette(colour_map().tobytes())
  _save(path, picture, 'PNG')


def save_picture(path: str, image: np.ndarray) -> str:
  """Writes uint8 [H, W, 3] as `path`.jpg; as .png where JPEG has no such size.

  Returns:
    the path with its suffix.
  """
  kind, suffix = 'JPEG', '.jpg'
  if max(image.shape[:2]) > _LARGEST_JPEG:
    kind, suffix = 'PNG', '.png'
  options = {'quality': 90} if kind == 'JPEG' else {}
  _save(f'{path}{suffix}', Image.fromarray(image), kind, **options)
  return f'{path}{suffix}'


def _save(path: str, picture: Image.Image, kind: str, **options: int) -> None:
  os.makedirs(os.path.dirname(path) or '.', exist_ok=True)
  # Not durable: there are thousands of them.
  with atomic.writing(path, durable=False) as file:
    picture.save(file, kind, **options)


def histogram(ids: np.ndarray, num_classes: int) -> np.ndarray:
  """int64 [num_classes]: how many pixels of ids uint8 [H, W] each class has."""
  return sum(
    (
      np.bincount(ids[top : top + _BAND].ravel(), minlength=num_classes)
      for top in range(0, len(ids), _BAND)
    ),
    start=np.zeros(num_classes, np.int64),
  )


def mix(image: np.ndarray, where: np.ndarray, colours: np.ndarray) -> None:
  """Mixes colours into some pixels of an image, in place.

  Args:
    image: uint8 [H, W, 3].
    where: bool [H, W], n of them True.
    colours: [3], or one for each of these pixels [n, 3].
  """
  mixed = (1 - ALPHA) * image[where] + ALPHA * np.asarray(colours)
  image[where] = mixed.astype(np.uint8)


def overlay(
  image: np.ndarray, ids: np.ndarray, *, background: bool
) -> np.ndarray:
  """uint8 [H, W, 3]: the image with its mask mixed in, classes parted by lines.

  Args:
    image: uint8 [H, W, 3].
    ids: uint8 [H, W].
    background: class 0 is the background, which keeps the image's colours.
  """
  out = image.copy()
  for top in range(0, len(ids), _BAND):
    band = ids[top : top + _BAND]
    where = band != 0 if background else np.ones(band.shape, bool)
    mix(out[top : top + _BAND], where, colour_map()[band[where]])
  width = max(1, round(max(ids.shape) / _LINE_PER_SIDE))
  out[:, :-width][ids[:, :-width] != ids[:, width:]] = _LINE
  out[:-width][ids[:-width] != ids[width:]] = _LINE
  return out
