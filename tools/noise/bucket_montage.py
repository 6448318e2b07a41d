"""The montage of a noise audit: rows of pictures with text beside them."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

_MARGIN = 16  # pixels
_GAP = 4
_LABEL_WIDTH = 150
_TITLE_HEIGHT = 54
_DARK, _GREY, _EMPTY = (28, 28, 28), (119, 119, 119), (238, 238, 238)


@dataclasses.dataclass(frozen=True)
class Row:
  """One bucket or cluster.

  Attributes:
    name: such as '1, nearest'.
    lines: what else is said of it.
    images: uint8 [S, S, 3] each.
  """

  name: str
  lines: Sequence[str]
  images: Sequence[np.ndarray]


def draw(
  title: str, subtitle: str, rows: Sequence[Row], columns: int
) -> np.ndarray:
  """uint8 [H, W, 3].

  Args:
    title: the class.
    subtitle: what the rows are.
    rows: top first.
    columns: pictures in a row; places without one stay grey.
  """
  size = len(rows[0].images[0])
  height = max(size, 62)  # room for the text of a row
  width = 2 * _MARGIN + _LABEL_WIDTH + columns * (size + _GAP)
  sheet = Image.new(
    'RGB',
    (width, 2 * _MARGIN + _TITLE_HEIGHT + len(rows) * (height + _GAP)),
    (255, 255, 255),
  )
  pen = ImageDraw.Draw(sheet)
  pen.text((_MARGIN, _MARGIN - 4), _fitted(title, 20, width), _DARK, _font(20))
  pen.text(
    (_MARGIN, _MARGIN + 24), _fitted(subtitle, 13, width), _GREY, _font(13)
  )
  for number, row in enumerate(rows):
    top = _MARGIN + _TITLE_HEIGHT + number * (height + _GAP)
    pen.text((_MARGIN, top), row.name, _DARK, _font(14))
    pen.text(
      (_MARGIN, top + 20), '\n'.join(row.lines), _GREY, _font(12), spacing=3
    )
    for column in range(columns):
      left = _MARGIN + _LABEL_WIDTH + column * (size + _GAP)
      if column < len(row.images):
        sheet.paste(Image.fromarray(row.images[column]), (left, top))
      else:
        box = (left, top, left + size - 1, top + size - 1)
        pen.rectangle(box, fill=_EMPTY)
  return np.asarray(sheet)


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
  return ImageFont.load_default(size)


def _fitted(text: str, size: int, width: int) -> str:
  """The text, cut with '...' where the sheet is too narrow for it."""
  room, font = width - 2 * _MARGIN, _font(size)
  if font.getlength(text) <= room:
    return text
  while text and font.getlength(f'{text}...') > room:
    text = text[:-1]
  return f'{text}...'
