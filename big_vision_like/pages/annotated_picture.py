"""Draws boxes, masks and keypoints over an image, with names that can be read.

Small images are enlarged to whole pixels first, so that lines and text stay
outside of what they mark.
"""

import functools
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from big_vision_like.pages import keypoint_marks, mask_pictures
from input_pipeline.examples import annotations, outlines

_TEXT = 11  # pixels
_COLOURS = (
  (230, 25, 75), (60, 180, 75), (255, 225, 25), (0, 130, 200), (245, 130, 48),
  (145, 30, 180), (70, 240, 240), (240, 50, 230), (210, 245, 60),
  (250, 190, 212), (0, 128, 128), (220, 190, 255), (170, 110, 40),
  (255, 250, 200), (128, 0, 0), (170, 255, 195), (128, 128, 0), (0, 0, 128),
)  # fmt: skip
_UNKNOWN = (255, 255, 255)


@functools.cache
def font(size: int = _TEXT) -> ImageFont.FreeTypeFont:
  """DejaVu Sans, which comes with matplotlib: names may be in any script."""
  import matplotlib

  path = os.path.join(matplotlib.get_data_path(), 'fonts/ttf/DejaVuSans.ttf')
  return ImageFont.truetype(path, size)


def colour(label: int) -> tuple[int, int, int]:
  """A colour of its own for each of 18 neighbouring ids."""
  return _COLOURS[label % len(_COLOURS)]


def draw(
  example: Mapping[str, Any],
  name: Callable[[int], str],
  side: int,
  *,
  background: bool = True,
  words: Sequence[str] | None = None,
  faint: Sequence[tuple[np.ndarray, int]] = (),
  pairs: Sequence[tuple[int, int]] | None = None,
  radius: float = 0.0,
) -> np.ndarray:
  """uint8 [h, w, 3]: the image of an example with its targets drawn over it.

  Args:
    example: 'image' uint8 [H, W, 3] and any fields of annotations.py, as ops
      leave them; boxes may be padded (`box_mask`).
    name: what to write at a box of a label.
    side: pixels that the longer side should have, about. Small images are
      enlarged by a whole number, large ones reduced.
    background: class 0 of a segmentation is the background, which is left as
      it is, and label i is class i + 1; or else label i is class i.
    words: what to write at each box, in place of its name.
    faint: (box [4], position of a box of the example): thin outlines in the
      colour of that box.
    pairs: (left, right) numbers of keypoints; None: not known, so those of
      COCO where there are 17.
    radius: of the discs about the keypoints of a crop of a person, in pixels
      of the crop; 0 for none.
  """
  image = example['image']
  scale = side / max(image.shape[:2])
  scale = max(round(scale), 1) if scale > 1 else scale
  height, width = (max(round(n * scale), 1) for n in image.shape[:2])
  kind = Image.Resampling.NEAREST if scale >= 1 else Image.Resampling.BOX
  canvas = np.array(Image.fromarray(image).resize((width, height), kind))
  _draw_masks(canvas, example, scale, background)
  picture = Image.fromarray(canvas)
  pen = ImageDraw.Draw(picture)
  if (
    'image_size' in example and (example['image_size'] < image.shape[:2]).any()
  ):
    bottom, right = (n * scale - 1 for n in example['image_size'])
    pen.rectangle((0, 0, right, bottom), outline=_UNKNOWN)
  for box, i in faint:
    pen.rectangle(_corners(box, scale), outline=_colour_of(example, i))
  shown = _boxes(example)
  for i in shown:
    if 'keypoints' in example:
      keypoint_marks.draw(pen, example['keypoints'][i], scale, pairs)
  for i in shown:
    text = _words(example, i, name) if words is None else words[i]
    _draw_box(pen, example, i, scale, text)
  if 'person_keypoints' in example:
    keypoint_marks.draw_crop(pen, example, scale, radius, pairs)
  return np.array(picture)


def _boxes(example: Mapping[str, Any]) -> list[int]:
  """Positions of the real boxes."""
  if 'box_mask' in example:
    return np.flatnonzero(example['box_mask']).tolist()
  return list(range(len(example.get('boxes', ()))))


def _draw_masks(
  canvas: np.ndarray, example: Mapping[str, Any], scale: float, background: bool
) -> None:
  """Mixes the segmentation, or else the objects' outlines, into the canvas."""
  size = canvas.shape[0], canvas.shape[1]
  segmentation = example.get('segmentation')
  if isinstance(segmentation, np.ndarray):
    ids = outlines.nearest(segmentation, *size)
    for i in np.unique(ids).tolist():
      if i or not background:
        label = i - background
        tone = _UNKNOWN if i == annotations.IGNORE else colour(label)
        mask_pictures.mix(canvas, ids == i, np.array(tone))
  elif 'box_outlines' in example:
    whole = example['image'].shape[:2]
    for i, outline in enumerate(example['box_outlines']):
      scaled = annotations.rescale(
        {'box_outlines': [outline]}, size[0] / whole[0], size[1] / whole[1]
      )['box_outlines'][0]
      tone = np.array(_colour_of(example, i))
      mask_pictures.mix(canvas, outlines.mask(scaled, *size), tone)


def _colour_of(example: Mapping[str, Any], i: int) -> tuple[int, int, int]:
  labels = example.get('box_labels', ())
  return colour(int(labels[i]) if i < len(labels) else i)


def _words(
  example: Mapping[str, Any], i: int, name: Callable[[int], str]
) -> str:
  """The name of a box's label, and what it is marked as."""
  words = []
  if i < len(example.get('box_labels', ())):
    words.append(name(int(example['box_labels'][i])))
  for flag in ('crowd', 'difficult'):
    if f'box_{flag}' in example and example[f'box_{flag}'][i]:
      words.append(f'({flag})')
  return ' '.join(words).strip()


def _draw_box(
  pen: ImageDraw.ImageDraw,
  example: Mapping[str, Any],
  i: int,
  scale: float,
  text: str,
) -> None:
  tone = _colour_of(example, i)
  corners = _corners(example['boxes'][i], scale)
  x0, y0, _, _ = corners
  pen.rectangle(corners, outline=tone, width=2)
  if not text:
    return
  # Above the box where there is room, and never outside the picture.
  image = pen.im.size  # type: ignore[union-attr]
  wide, high = pen.textlength(text, font=font()), _TEXT + 3
  left = max(min(x0, image[0] - wide - 2), 0)
  top = y0 - high if y0 >= high else min(y0 + 2, image[1] - high)
  pen.rectangle((left, top, left + wide + 2, top + high), fill=tone)
  dark = sum(tone) < 380
  ink = (255, 255, 255) if dark else (0, 0, 0)
  pen.text((left + 1, top), text, fill=ink, font=font())


def _corners(box: np.ndarray, scale: float) -> tuple[float, ...]:
  """left, top, right, bottom pixels that belong to a box."""
  y0, x0, y1, x1 = (float(n) * scale for n in box)
  return x0, y0, max(x1 - 1, x0), max(y1 - 1, y0)
