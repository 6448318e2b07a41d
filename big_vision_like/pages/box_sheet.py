"""Pages of detections: images with what was found beside what is there."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from big_vision_like.pages import (
  annotated_picture,
  html_page,
  truth_pictures,
)

_SIDE = 320  # pixels of a picture
SHOWN_ABOVE = 0.3  # scores drawn


def write(
  path: str,
  source: Any,
  chosen: Sequence[tuple[int, str]],
  lists: Any,
  names: Sequence[str],
) -> None:
  """Writes a page of images with their truth and their detections.

  Args:
    path: of the page.
    source: the images.
    chosen: (image, caption).
    lists: image_lists.ImageLists of boxes, scores and labels.
    names: of the classes.
  """
  pages = truth_pictures.Pictures(source, _DRAWN, 'the page of detections')
  rows = []
  for index, caption in chosen:
    image, there, ratio = pages.of(index)
    found = dict(lists.of(index))
    found['boxes'] = found['boxes'] * np.tile(ratio, 2)
    pictures = (
      annotated_picture.draw(there, _name(names), _SIDE),
      detected(image, found, names),
    )
    rows.append(
      [
        html_page.element('p', f'{source.key(index)}: {caption}'),
        html_page.figure(pictures[0], 'there'),
        html_page.figure(pictures[1], f'found (scores from {SHOWN_ABOVE})'),
      ]
    )
  parts = [part for row in rows for part in row]
  text = '' if parts else html_page.element('p', 'No image has a mistake.')
  html_page.save(path, 'Worst images', text, *parts)


_DRAWN = ('boxes', 'box_labels', 'box_crowd', 'box_difficult')


def detected(
  image: np.ndarray,
  found: dict[str, np.ndarray],
  names: Sequence[str],
  least: float = SHOWN_ABOVE,
) -> np.ndarray:
  """uint8 [h, w, 3]: an image with detections of at least a score drawn."""
  shown = np.flatnonzero(found['scores'] >= least)[::-1]  # the best on top
  scores = found['scores'][shown]
  example = {
    'image': image,
    'boxes': found['boxes'][shown],
    'box_labels': found['labels'][shown],
  }
  words = [
    f'{names[label]} {score:.2f}'
    for label, score in zip(example['box_labels'], scores)
  ]
  return annotated_picture.draw(example, _name(names), _SIDE, words=words)


def _name(names: Sequence[str]) -> Any:
  return lambda label: names[label]
