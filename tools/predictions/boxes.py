"""Boxes, by the checkpoint of a detector: a part of tools.predict.

detections.json has all of them as COCO's results, images counted from 1 in the
order of the input; overlays/NAME.jpg shows the likely ones over the image.
"""

import collections
import os
from collections.abc import Iterator
from typing import Any

import numpy as np

from big_vision_like.inference import detector, stored_model
from big_vision_like.pages import (
  box_sheet,
  html_page,
  prediction_sheet,
)
from input_pipeline.files import atomic

from . import image_list, overlays
from .masks import output_names

BATCH_SIZE = 4
SCORE = 0.3
_RESULTS = 'detections.json'


class Boxes:
  """Predicts the boxes of images, and writes them.

  Args:
    model: stored_model.StoredModel of a detector.
    classes: names of its classes, or None.
    folder: of the output.
    score: from which a box is listed and drawn.
    on_sheet: indices of the images to show.
    overlays: whether to write overlays.
    reading: batch_size and workers of `detector.Detector`.

  Attributes:
    bad: key -> reason of the images that cannot be used.
  """

  def __init__(
    self,
    model: stored_model.StoredModel,
    classes: Any,
    folder: str,
    *,
    score: float,
    on_sheet: frozenset[int],
    overlays: bool = True,
    **reading: Any,
  ):
    self._detector = detector.Detector(model, **reading)
    self._model = model
    self._folder = folder
    self._score = score
    self._on_sheet = on_sheet
    self._overlays = overlays
    self._shown: list[tuple[str, np.ndarray]] = []
    self._counts: collections.Counter[str] = collections.Counter()
    num = model.space.num_classes
    self._names = [stored_model.name_of(classes, i) for i in range(num)]
    self._categories = model.space.external_ids or range(1, num + 1)

  @property
  def bad(self) -> dict[str, str]:
    return self._detector.bad

  @property
  def summary(self) -> str:
    """What was predicted, for the last lines."""
    return (
      f'boxes of {len(self._names):,} classes with a score of {self._score:g} '
      f'or more; all of them in {os.path.join(self._folder, _RESULTS)}'
    )

  def lines(self, found: image_list.Found) -> Iterator[dict[str, Any]]:
    """Writes the files; the line of every image that can be used, in order.

    A line is {'image': key, 'size': [height, width], 'overlay': file in the
    output, 'boxes': [{'id', 'name', 'score', 'box': [y0, x0, y1, x1]}, ...]},
    highest score first.
    """
    names = output_names(found)
    results = os.path.join(self._folder, _RESULTS)
    with atomic.writing_json_list(results) as append:
      for one in self._detector.detections(found.source):
        for row in self._rows(one, found.source):
          append(row)
        yield self._line(one, names[one.index], found.source)

  def _rows(self, one: detector.Found, source: Any) -> Iterator[dict[str, Any]]:
    for box, score, label in zip(one.boxes, one.scores, one.labels):
      y0, x0, y1, x1 = box.astype(float).tolist()
      yield dict(
        image_id=one.index + 1,
        file_name=source.key(one.index),
        category_id=self._categories[label],
        bbox=[x0, y0, x1 - x0, y1 - y0],
        score=float(score),
      )

  def _line(
    self, one: detector.Found, name: str, source: Any
  ) -> dict[str, Any]:
    line: dict[str, Any] = {
      'image': source.key(one.index),
      'size': list(one.size),
    }
    likely = one.scores >= self._score
    if self._overlays or one.index in self._on_sheet:
      found = dict(
        boxes=one.boxes[likely],
        scores=one.scores[likely],
        labels=one.labels[likely],
      )
      names = [entry['name'] for entry in self._names]
      image = overlays.decoded_again(self._detector.ops, source, one.index)
      over = box_sheet.detected(image, found, names, 0)
      if self._overlays:
        line['overlay'] = overlays.save(self._folder, name, over)
      if one.index in self._on_sheet:
        self._shown.append((line['image'], over))
    line['boxes'] = [
      {
        'id': int(one.labels[i]),
        **self._names[one.labels[i]],
        'score': float(f'{one.scores[i]:.6g}'),
        'box': [round(x, 2) for x in one.boxes[i].astype(float).tolist()],
      }
      for i in np.flatnonzero(likely)
    ]
    self._counts.update(entry['name'] for entry in line['boxes'])
    return line

  def write_page(self, path: str, source: Any) -> int:
    """Writes the sheet; returns how many images are on it."""
    about = [('classes', len(self._names)), ('scores from', self._score)]
    facts = prediction_sheet.facts(
      self._model, about, len(source), self.bad, len(self._shown)
    )
    html_page.save(
      path,
      'Detections',
      *facts,
      html_page.element('h2', 'Boxes by class'),
      html_page.table(('label', 'boxes'), self._counts.most_common(20)),
      html_page.element('h2', 'Images'),
      *(
        html_page.figure(picture, os.path.basename(key))
        for key, picture in self._shown
      ),
    )
    return len(self._shown)
