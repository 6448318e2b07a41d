"""Pages of the worst images: what is there beside what was found."""

from collections.abc import Callable, Collection, Sequence
from typing import Any

import numpy as np

from big_vision_like.pages import annotated_picture, html_page
from input_pipeline import pipeline
from input_pipeline.examples.errors import record_named

SIDE = 320  # pixels of a picture
_DECODED = ('image', 'original_size')
# (image uint8 [H, W, 3] as stored, its index, its size over that of the
# original, in whose pixels predictions are) -> a picture.
Draw = Callable[[np.ndarray, int, np.ndarray], np.ndarray]


def write(
  path: str,
  source: Any,
  chosen: Sequence[tuple[int, str]],
  *,
  title: str,
  page: str,
  fields: Collection[str],
  names: Sequence[str],
  found: Draw,
  caption: str,
) -> None:
  """Writes a page.

  Args:
    path: of the page.
    source: the images.
    chosen: (image, caption).
    title: of the page.
    page: for messages, 'the page of poses'.
    fields: annotations of the records that are drawn.
    names: of the classes of boxes.
    found: draws what was found in an image.
    caption: of that picture.

  Raises:
    ValueError: an image that cannot be used; names it.
  """
  decode = pipeline.build_ops([dict(op='decode')], source, 'pictures')[0]
  rng = np.random.default_rng(0)  # decoding has no chance
  parts = []
  for index, text in chosen:
    with record_named(source, index, page):
      example = source[index]
      known = {k: v for k, v in example.items() if k in _DECODED}
      decoded = decode(known, rng)
    image = decoded['image']
    # The image may be stored smaller than it was.
    ratio = np.array(image.shape[:2]) / decoded['original_size']
    there = {k: v for k, v in example.items() if k in fields}
    picture = annotated_picture.draw(
      {**there, 'image': image}, lambda label: names[label], SIDE
    )
    parts += [
      html_page.element('p', f'{source.key(index)}: {text}'),
      html_page.figure(picture, 'there'),
      html_page.figure(found(image, index, ratio), caption),
    ]
  text = '' if parts else html_page.element('p', 'No image has a mistake.')
  html_page.save(path, title, text, *parts)
