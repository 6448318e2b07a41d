"""predictions.html of tools.predict for masks: overlays beside the images."""

import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from big_vision_like.pages import html_page, mask_pictures, prediction_sheet
from input_pipeline.examples import outlines

_SIDE = 240  # pixels of a thumbnail
_NAMED = 6  # classes below an image


class Classes(NamedTuple):
  """Names of the class ids of masks, and how much there is of each.

  Attributes:
    names: of each id: {'name'}, and 'label' where the name describes it.
    pixels: sum over images of the share of pixels, for each id.
    images: how many images have any.
  """

  names: Sequence[dict[str, str]]
  pixels: np.ndarray
  images: np.ndarray


class Shown(NamedTuple):
  """An image of the page: its line in predictions.jsonl and two thumbnails."""

  line: dict[str, Any]
  image: np.ndarray
  overlay: np.ndarray


def shown(
  line: dict[str, Any], image: np.ndarray, ids: np.ndarray, background: bool
) -> Shown:
  """Thumbnails of an image uint8 [H, W, 3] and of its mask uint8 [H, W].

  The mask is drawn over the small image: lines would fade in a reduced one.
  """
  small = prediction_sheet.thumbnail(image, _SIDE)
  reduced = outlines.nearest(ids, *small.shape[:2])
  over = mask_pictures.overlay(small, reduced, background=background)
  return Shown(line, small, over)


def write(
  path: str,
  pictures: Sequence[Shown],
  model: Any,
  classes: Classes,
  bad: Mapping[str, str],
  total: int,
) -> None:
  """Writes the page.

  Args:
    path: of the page.
    pictures: what to show.
    model: stored_model.StoredModel.
    classes: what the masks of all images are made of.
    bad: key -> reason of the images that cannot be used.
    total: images of the input.
  """
  num_masks = max(total - len(bad), 1)
  swatches = mask_pictures.colour_map()
  legend = [
    (
      _swatch(swatches[i]),
      i,
      entry['name'],
      int(classes.images[i]),
      _percent(classes.pixels[i] / num_masks, 2),
    )
    for i, entry in enumerate(classes.names)
  ]
  about = [
    ('classes', len(classes.names)),
    ('background', 'class 0' if model.background else 'none'),
  ]
  html_page.save(
    path,
    'Predicted masks',
    *prediction_sheet.facts(model, about, total, bad, len(pictures)),
    html_page.element('h2', 'Classes'),
    html_page.table(
      ('', 'id', 'class', 'images with it', 'mean share of pixels'), legend
    ),
    html_page.element('h2', 'Images'),
    *(_figure(one, swatches) for one in pictures),
  )


def _figure(one: Shown, swatches: np.ndarray) -> html_page.Markup:
  """Image, overlay, and the largest classes with their colours."""
  entries = one.line['classes']
  lines = [html_page.escape(os.path.basename(one.line['image']))]
  for entry in entries[:_NAMED]:
    lines.append(
      html_page.Markup(
        f'{_swatch(swatches[entry["id"]])} '
        f'{html_page.escape(entry["name"])} {_percent(entry["share"], 1)}'
      )
    )
  if len(entries) > _NAMED:
    lines.append(html_page.escape(f'and {len(entries) - _NAMED} more'))
  # Icons are shown larger.
  scale = max(1, _SIDE // max(one.image.shape))
  width = round(2 * scale * one.image.shape[1]) + 4
  pair = html_page.element(
    'div',
    html_page.picture(one.image, alt=str(lines[0]), scale=scale),
    html_page.picture(one.overlay, alt='its mask', scale=scale),
    style='display: flex; gap: 4px',
  )
  return html_page.element(
    'figure',
    pair,
    html_page.element('figcaption', html_page.Markup('\n'.join(lines))),
    style=f'max-width: {max(width, 200)}px',
  )


def _percent(share: float, decimals: int) -> html_page.Markup:
  """A share in percent; what rounds to nothing, and is not, says so."""
  least = 10**-decimals
  if 0 < 100 * share < least:
    return html_page.escape(f'< {least:.{decimals}f} %')
  return html_page.escape(f'{100 * share:.{decimals}f} %')


def _swatch(colour: np.ndarray) -> html_page.Markup:
  red, green, blue = colour.tolist()
  return html_page.element(
    'span',
    style=f'display: inline-block; width: 1em; height: 1em; border: 1px solid '
    f'#888; background: rgb({red},{green},{blue})',
  )
