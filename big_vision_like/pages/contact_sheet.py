"""Pictures with captions as one page or one image, from the same description.

A caption is a list of lines, a line a list of (text, tone) pieces; tones are
the keys of `TONES`.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from big_vision_like.pages import annotated_picture, html_page

# tone -> (colour in images, class in pages)
TONES = {
  'plain': ((28, 28, 28), None),
  'muted': ((119, 119, 119), 'muted'),
  'good': ((10, 122, 47), 'good'),
  'bad': ((179, 38, 30), 'bad'),
}
Line = Sequence[tuple[str, str]]
_GAP = 10  # pixels
_LINE = 15
_MIN_WIDTH = 170


class Tile(NamedTuple):
  """A picture and what to write below it."""

  image: np.ndarray  # uint8 [H, W, 3]
  caption: Sequence[Line]


def save_page(
  path: str,
  title: str,
  header: Sequence[tuple[str, str]],
  legend: Line,
  tiles: Sequence[Tile],
) -> None:
  """Writes an HTML page: a table of the header, the legend, the pictures."""
  page = html_page
  figures = [
    page.element(
      'figure',
      page.picture(tile.image, alt=_text(tile.caption[0])),
      page.element(
        'figcaption', page.Markup('\n'.join(map(_markup, tile.caption)))
      ),
      style=f'max-width: {_tile_width(tile)}px',
    )
    for tile in tiles
  ]
  page.save(
    path,
    title,
    page.table(('what', 'of this sheet'), header),
    page.element('p', _markup(legend)),
    *figures,
  )


def _text(line: Line) -> str:
  return ''.join(text for text, _ in line)


def _markup(line: Line) -> html_page.Markup:
  pieces = (
    html_page.element('span', text, class_=TONES[tone][1])
    for text, tone in line
  )
  return html_page.Markup(''.join(pieces))


def save_image(
  path: str,
  title: str,
  header: Sequence[tuple[str, str]],
  legend: Line,
  tiles: Sequence[Tile],
  width: int = 1350,
) -> None:
  """Writes the same as a PNG, `width` pixels wide or as wide as a picture."""
  width = max([width, *(_tile_width(tile) + 2 * _GAP for tile in tiles)])
  inner = width - 2 * _GAP
  top: list[Line] = [[(title, 'plain')]]
  top += [[(f'{name}: ', 'muted'), (value, 'plain')] for name, value in header]
  lines = [part for line in [*top, legend] for part in _wrapped(line, inner)]
  wrapped = [
    [
      part
      for line in tile.caption
      for part in _wrapped(line, _tile_width(tile))
    ]
    for tile in tiles
  ]
  places, bottom = _placed(tiles, wrapped, width, _GAP + len(lines) * _LINE)
  sheet = Image.new('RGB', (width, bottom), 'white')
  pen = ImageDraw.Draw(sheet)
  _write(pen, lines, _GAP, _GAP)
  for tile, text, (x, y) in zip(tiles, wrapped, places):
    sheet.paste(Image.fromarray(tile.image), (x, y))
    _write(pen, text, x, y + tile.image.shape[0] + 3)
  sheet.save(path)


def _tile_width(tile: Tile) -> int:
  return max(tile.image.shape[1], _MIN_WIDTH)


def _placed(
  tiles: Sequence[Tile], wrapped: Sequence[Any], width: int, top: int
) -> tuple[list[tuple[int, int]], int]:
  """Left top corners, row by row, and where the last row ends."""
  places: list[tuple[int, int]] = []
  x, y, row = _GAP, top + _GAP, 0
  for tile, text in zip(tiles, wrapped):
    wide = _tile_width(tile)
    high = tile.image.shape[0] + len(text) * _LINE + 2 * _GAP
    if x + wide + _GAP > width and x > _GAP:
      x, y, row = _GAP, y + row, 0
    places.append((x, y))
    x, row = x + wide + _GAP, max(row, high)
  return places, y + row


def _wrapped(line: Line, width: float) -> list[Line]:
  """The line broken at spaces, or within words that are too long."""
  measure = annotated_picture.font().getlength
  out: list[list[tuple[str, str]]] = [[]]
  room = width
  for text, tone in line:
    for word in _words(text):
      while measure(word) > width:
        end = max(
          (n for n in range(1, len(word)) if measure(word[:n]) <= room),
          default=0,
        )
        out[-1].append((word[:end], tone))
        out.append([])
        word, room = word[end:], width
      if measure(word.rstrip()) > room and out[-1]:
        out.append([])
        room = width
      out[-1].append((word, tone))
      room -= measure(word)
  return [*out]


def _words(text: str) -> list[str]:
  """Pieces that end with a space each, but the last."""
  parts = text.split(' ')
  return [f'{part} ' for part in parts[:-1]] + parts[-1:]


def _write(
  pen: ImageDraw.ImageDraw, lines: Sequence[Line], x: float, y: float
) -> None:
  font = annotated_picture.font()
  for line in lines:
    left = x
    for text, tone in line:
      pen.text((left, y), text, fill=TONES[tone][0], font=font)
      left += pen.textlength(text, font=font)
    y += _LINE
