"""predictions.html of tools/predict.py: images with their labels."""

import collections
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from input_pipeline import pipeline
from tools import html_page

_SIDE = 160  # pixels of a thumbnail
_MOST_FREQUENT = 20


def spread(total: int, num: int) -> frozenset[int]:
  """`num` of `total` positions, evenly spread; all where there are fewer."""
  if num <= 0:
    return frozenset()
  return frozenset(i * total // num for i in range(num))


def write(
  path: str,
  source: Any,
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
    image = decode({'image': source[index]['image']}, rng)['image']
    rows = [
      f'{entry["score"]:.3f} {entry["name"]}' for entry in line['predictions']
    ]
    caption = '\n'.join([os.path.basename(line['image']), *rows])
    small = thumbnail(image)
    scale = max(1, _SIDE // max(small.shape))  # icons are shown larger
    pictures.append(html_page.figure(small, caption, scale=scale))
  model = embedder.model
  facts = html_page.table(
    ('', ''),
    [
      ('checkpoint', str(model.path)),
      ('training steps', model.step),
      ('classes', model.task.num_classes),
      ('scores', model.scores),
      ('images', total),
      ('cannot be used', len(embedder.bad)),
      ('shown below, evenly spread', len(shown)),
    ],
  )
  parts = [facts]
  if embedder.bad:
    items = list(embedder.bad.items())[:_MOST_FREQUENT]
    parts += [
      html_page.element('h2', f'Cannot be used: {len(embedder.bad):,}'),
      html_page.table(('image', 'reason'), items),
    ]
  parts += [
    html_page.element('h2', 'First labels, most frequent ones'),
    html_page.table(('label', 'images'), counts.most_common(_MOST_FREQUENT)),
    html_page.element('h2', 'Images'),
    *pictures,
  ]
  html_page.save(path, 'Predictions', *parts)


def thumbnail(image: np.ndarray) -> np.ndarray:
  """uint8 [h, w, 3], the longer side at most 160 pixels."""
  picture = Image.fromarray(image)
  picture.thumbnail((_SIDE, _SIDE), Image.Resampling.BILINEAR)
  return np.asarray(picture)
