"""Pages of detections: images with what was found beside what is there."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from big_vision_like.pages import annotated_picture, worst_page

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

  def found(image: np.ndarray, index: int, ratio: np.ndarray) -> np.ndarray:
    there = lists.of(index)
    boxes = there['boxes'] * np.tile(ratio, 2)
    return detected(image, {**there, 'boxes': boxes}, names)

  worst_page.write(
    path, source, chosen,
    title='Worst images', page='the page of detections',
    fields=_DRAWN, names=names, found=found,
    caption=f'found (scores from {SHOWN_ABOVE})',
  )  # fmt: skip


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
  return annotated_picture.draw(
    example, lambda label: names[label], worst_page.SIDE, words=words
  )
