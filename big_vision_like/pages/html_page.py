"""One HTML file that holds its pictures: reports to open, mail or archive.

No scripts and nothing to fetch. All text is escaped here; what is put together
with `Markup` is not escaped again.
"""

import base64
import html
import io
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from PIL import Image

from big_vision_like.config import redaction
from input_pipeline.files import atomic

_STYLE = """
body { font: 14px/1.4 system-ui, sans-serif; margin: 24px; color: #1c1c1c;
       background: #fff; max-width: 1500px }
h1 { font-size: 22px } h2 { font-size: 17px; margin-top: 28px }
table { border-collapse: collapse } th { text-align: left; background: #f3f3f3 }
th, td { border: 1px solid #ddd; padding: 4px 8px; vertical-align: top }
td.number { text-align: right; font-variant-numeric: tabular-nums }
figure { display: inline-block; margin: 0 8px 12px 0; vertical-align: top }
figcaption { font-size: 12px; overflow-wrap: anywhere; white-space: pre-line }
img { display: block; background: #eee }
.muted { color: #777 } .good { color: #0a7a2f } .bad { color: #b3261e }
"""


class Markup(str):
  """Text that is HTML already."""


def escape(text: Any) -> Markup:
  """HTML of any text, without secrets; Markup stays as it is."""
  return (
    text
    if isinstance(text, Markup)
    else Markup(html.escape(redaction.text(str(text))))
  )


def element(tag: str, *children: Any, **attributes: Any) -> Markup:
  """`<tag attributes>children</tag>`; `class_` gives the attribute class."""
  given = ''.join(
    f' {name.rstrip("_")}="{html.escape(str(value))}"'
    for name, value in attributes.items()
    if value is not None
  )
  inside = ''.join(escape(child) for child in children)
  return Markup(f'<{tag}{given}>{inside}</{tag}>')


def picture(image: np.ndarray, *, alt: str = '', scale: float = 1) -> Markup:
  """An <img> that holds its pixels.

  Args:
    image: uint8 [H, W, 3]; stored as PNG up to 64x64 pixels, else as JPEG.
    alt: what it shows.
    scale: size on the page over its size in pixels.
  """
  small = image.shape[0] * image.shape[1] <= 64 * 64
  kind, options = ('png', {}) if small else ('jpeg', {'quality': 85})
  buffer = io.BytesIO()
  Image.fromarray(np.ascontiguousarray(image)).save(buffer, kind, **options)
  data = base64.b64encode(buffer.getvalue()).decode()
  height, width = (round(n * scale) for n in image.shape[:2])
  return Markup(
    f'<img src="data:image/{kind};base64,{data}" alt="{html.escape(alt)}" '
    f'width="{width}" height="{height}">'
  )


def figure(image: np.ndarray, caption: Any, *, scale: float = 1) -> Markup:
  """A picture with lines of text below it, no wider than the picture."""
  width = max(round(image.shape[1] * scale), 120)
  return element(
    'figure',
    picture(image, alt=str(caption).partition('\n')[0], scale=scale),
    element('figcaption', caption),
    style=f'max-width: {width}px',
  )


def table(header: Sequence[Any], rows: Iterable[Sequence[Any]]) -> Markup:
  """A table; numbers are right-aligned."""

  def cell(value: Any) -> Markup:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return element('td', value, class_='number' if number else None)

  head = element('tr', *(element('th', name) for name in header))
  body = [element('tr', *map(cell, row)) for row in rows]
  return element('table', head, *body)


def save(path: str, title: str, *parts: Any) -> None:
  """Writes the page, whole or not at all."""
  inside = '\n'.join(escape(part) for part in parts)
  page = (
    '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
    f'<title>{html.escape(title)}</title>\n<style>{_STYLE}</style></head>\n'
    f'<body>\n<h1>{html.escape(title)}</h1>\n{inside}\n</body></html>\n'
  )
  atomic.write_text(path, page)
