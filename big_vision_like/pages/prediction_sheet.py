"""predictions.html of tools/predict.py: images with their labels."""

import collections
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from big_vision_like.pages import html_page
from big_vision_like.protocols import Source
from input_pipeline import pipeline
from input_pipeline.examples.errors import record_named

_SIDE = 160  # pixels of a thumbnail
_MOST_FREQUENT = 20


def spread(total: int, num: int) -> frozenset[int]:
  """`num` of `total` positions, evenly spread; all where there are fewer."""
  if num <= 0:
    return frozenset()
  return frozenset(i * total // num for i in range(num))


def write(
  path: str,
  source: Source,
  shown: Sequence[tuple[int, dict[str, Any]]],
  embedder: Any,
  counts: collections.Counter[str],
  total: int,
) -> None:
  """Writes the page.

  Args:
    path: of the page.
    source: the images.
    shown: (index, line of predictions.jsonl) of those on the page.
    embedder: the model.
    counts: how many images have each name as their first.
    total: images of the input.
  """
  decode = pipeline.build_ops(
    [dict(op='decode', min_size=_SIDE)], source, 'thumbnails'
  )[0]
  rng = np.random.default_rng(0)  # decoding has no chance
  pictures = []
  for index, line in shown:
    with record_named(source, index, 'the sheet of predictions'):
      image = decode({'image': source[index]['image']}, rng)['image']
    rows = [
      f'{entry["score"]:.3f} {entry["name"]}' for entry in line['predictions']
    ]
    caption = '\n'.join([os.path.basename(line['image']), *rows])
    small = thumbnail(image)
    scale = max(1, _SIDE // max(small.shape))  # icons are shown larger
    pictures.append(html_page.figure(small, caption, scale=scale))
  model = embedder.model
  about = [('classes', model.space.num_classes), ('scores', model.scores)]
  parts = [
    *facts(model, about, total, embedder.bad, len(shown)),
    html_page.element('h2', 'First labels, most frequent ones'),
    html_page.table(('label', 'images'), counts.most_common(_MOST_FREQUENT)),
    html_page.element('h2', 'Images'),
    *pictures,
  ]
  html_page.save(path, 'Predictions', *parts)


def facts(
  model: Any,
  about: Sequence[tuple[str, Any]],
  total: int,
  bad: Mapping[str, str],
  num_shown: int,
) -> list[html_page.Markup]:
  """What a page of predictions begins with: of what it is, what is missing.

  Args:
    model: stored_model.StoredModel.
    about: (name, value) of what is particular to the predictions.
    total: images of the input.
    bad: key -> reason of those that cannot be used.
    num_shown: images on the page.
  """
  rows = [
    ('checkpoint', str(model.path)),
    ('training steps', model.step),
    *about,
    ('images', total),
    ('cannot be used', len(bad)),
    ('shown below, evenly spread', num_shown),
  ]
  parts = [html_page.table(('', ''), rows)]
  if bad:
    items = list(bad.items())[:_MOST_FREQUENT]
    parts += [
      html_page.element('h2', f'Cannot be used: {len(bad):,}'),
      html_page.table(('image', 'reason'), items),
    ]
  return parts


def thumbnail(image: np.ndarray, side: int = _SIDE) -> np.ndarray:
  """uint8 [h, w, 3], the longer side at most `side` pixels."""
  picture = Image.fromarray(image)
  picture.thumbnail((side, side), Image.Resampling.BILINEAR)
  return np.asarray(picture)
