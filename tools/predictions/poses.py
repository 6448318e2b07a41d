"""Keypoints of people, by the checkpoint of a pose net: part of tools.predict.

poses.json has all of them as COCO's keypoint results, images counted from 1 in
the order of the input; overlays/NAME.jpg shows the likely ones over the image.
"""

import os
from collections.abc import Iterator
from typing import Any

import numpy as np

from big_vision_like.inference import poses, stored_model
from big_vision_like.pages import (
  annotated_picture,
  html_page,
  pose_sheet,
  prediction_sheet,
)
from input_pipeline.examples.errors import BadExample
from input_pipeline.files import atomic

from . import image_list, overlays
from .masks import output_names

BATCH_SIZE = 16
SCORE = 0.3
_SIDE = 640  # pixels of a picture, about
_RESULTS = 'poses.json'


class Poses:
  """Predicts the poses of people, and writes them.

  Args:
    model: stored_model.StoredModel of a pose net.
    boxes: where people are.
    bad: key -> reason of images that are known to be of no use.
    folder: of the output.
    score: from which a pose is listed and drawn.
    on_sheet: indices of the images to show.
    overlays: whether to write overlays.
    reading: batch_size and workers of `poses.Poser`.

  Attributes:
    bad: key -> reason of the images that cannot be used.
  """

  def __init__(
    self,
    model: stored_model.StoredModel,
    boxes: poses.Boxes,
    bad: dict[str, str],
    folder: str,
    *,
    score: float,
    on_sheet: frozenset[int],
    overlays: bool = True,
    **reading: Any,
  ):
    self._poser = poses.Poser(model, **reading)
    self._model = model
    self._boxes = boxes
    self.bad = dict(bad)
    self._folder = folder
    self._score = score
    self._on_sheet = on_sheet
    self._overlays = overlays
    self._shown: list[tuple[str, np.ndarray]] = []
    self._num = 0

  @property
  def summary(self) -> str:
    """What was predicted, for the last lines."""
    number = len(self._poser.skeleton.names)
    return (
      f'{self._num:,} poses of {number} keypoints with a score of '
      f'{self._score:g} or more; all of them in '
      f'{os.path.join(self._folder, _RESULTS)}'
    )

  def lines(self, found: image_list.Found) -> Iterator[dict[str, Any]]:
    """Writes the files; the line of every image that can be used, in order.

    A line is {'image': key, 'overlay': file in the output, 'people': [{'score',
    'box': [y0, x0, y1, x1], 'keypoints': {name: [y, x, confidence]}}, ...]},
    highest score first; 'left_out' has the reasons of boxes that are of no use.
    """
    names = output_names(found)
    results = os.path.join(self._folder, _RESULTS)
    by_image = self._poser.poses(found.source, self._boxes)
    following = next(by_image, None)
    with atomic.writing_json_list(results) as append:
      for index in range(len(found.source)):
        one = None
        if following is not None and following.index == index:
          one, following = following, next(by_image, None)
        key = found.source.key(index)
        left_out = self._left_out(index, key)
        if one is None and left_out:
          self.bad.setdefault(key, left_out[0])
        if key in self.bad:
          continue
        try:
          line = self._line(index, one, names[index], found.source)
        except BadExample as bad:
          self.bad[key] = bad.reason
          continue
        for row in self._rows(one, found.source):
          append(row)
        yield line | ({'left_out': left_out} if left_out else {})

  def _left_out(self, index: int, key: str) -> list[str]:
    """Reasons of an image's boxes that could not be used."""
    first, last = np.searchsorted(self._boxes.images, [index, index + 1])
    known = self._poser.bad
    names = [f'{key}#{i + 1}' for i in range(last - first)]
    return [known[name] for name in names if name in known]

  def _rows(
    self, one: poses.Found | None, source: Any
  ) -> Iterator[dict[str, Any]]:
    if one is None:
      return
    for keypoints, score in zip(one.keypoints.astype(float), one.scores):
      shown = [[x, y, 1] for y, x, _ in keypoints.tolist()]
      yield dict(
        image_id=one.index + 1,
        file_name=source.key(one.index),
        category_id=1,
        keypoints=[number for point in shown for number in point],
        score=float(score),
      )

  def _line(
    self, index: int, one: poses.Found | None, name: str, source: Any
  ) -> dict[str, Any]:
    line: dict[str, Any] = {'image': source.key(index)}
    likely = [] if one is None else np.flatnonzero(one.scores >= self._score)
    if self._overlays or index in self._on_sheet or one is None:
      image = overlays.decoded(self._poser.ops, source, index)
      over = self._drawn(image, one, likely)
      if self._overlays:
        line['overlay'] = overlays.save(self._folder, name, over)
      if index in self._on_sheet:
        self._shown.append((line['image'], over))
    line['people'] = [
      {
        'score': float(f'{one.scores[i]:.6g}'),
        'box': _rounded(one.boxes[i]),
        'keypoints': {
          name: _rounded(point)
          for name, point in zip(self._poser.skeleton.names, one.keypoints[i])
        },
      }
      for i in likely
      if one is not None
    ]
    self._num += len(line['people'])
    return line

  def _drawn(
    self, image: np.ndarray, one: poses.Found | None, likely: Any
  ) -> np.ndarray:
    """uint8 [h, w, 3]: the likely poses over the image, the best on top."""
    if one is None:
      return annotated_picture.draw({'image': image}, str, _SIDE)
    found = dict(
      keypoints=one.keypoints[likely],
      scores=one.scores[likely],
      boxes=one.boxes[likely],
    )
    return pose_sheet.detected(image, found, side=_SIDE)

  def write_page(self, path: str, source: Any) -> int:
    """Writes the sheet; returns how many images are on it."""
    about = [
      ('keypoints', len(self._poser.skeleton.names)),
      ('boxes', len(self._boxes.images)),
      ('scores from', self._score),
    ]
    facts = prediction_sheet.facts(
      self._model, about, len(source), self.bad, len(self._shown)
    )
    html_page.save(
      path,
      'Poses',
      *facts,
      html_page.element('h2', 'Images'),
      *(
        html_page.figure(picture, os.path.basename(key))
        for key, picture in self._shown
      ),
    )
    return len(self._shown)


def _rounded(values: np.ndarray) -> list[float]:
  return [round(x, 4) for x in values.astype(float).tolist()]
