"""What evaluators of boxes share: truth, detections, results and a page.

The truth is read once, as the records hold it, in pixels of the original
images; detections are in these pixels too. So figures do not depend on the size
that the net looks at.
"""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from big_vision_like.metrics import box_mistakes, box_pairs
from big_vision_like.pages import box_sheet
from big_vision_like.protocols import Prediction
from evaluators.harness import context, image_lists, left_behind
from evaluators.harness.evaluation_set import EvalData, run_over
from input_pipeline.labels import matching
from input_pipeline.labels.space import LabelSpace
from input_pipeline.truth import true_boxes

_FIELDS = ('boxes', 'scores', 'labels')
Figures = Callable[
  [box_pairs.Truth, box_pairs.Detections, Sequence[str]], dict[str, float]
]


class BoxEvaluation:
  """Runs detections over a set and scores them.

  Args:
    predict, ctx, data, ops, batch_size, exclude_ids: of the evaluator.
    predict_fn: which prediction gives boxes, scores, labels and mask.
    ignored: field of the boxes that count neither way, 'box_crowd' or
      'box_difficult'.
    num_worst: images on the page of the worst; 0: no page.
  """

  def __init__(
    self,
    predict: Mapping[str, Prediction],
    ctx: context.EvalContext,
    *,
    data: Mapping[str, Any],
    ops: Sequence[Mapping[str, Any]],
    batch_size: int,
    predict_fn: str,
    exclude_ids: str | Sequence[str | int] | None,
    ignored: str,
    num_worst: int,
  ):
    self._ctx = ctx
    self._predict = context.choose(predict, predict_fn, ctx, 'boxes', 'pose')
    self._data = EvalData(
      ctx, data, ops, batch_size,
      fields=self._predict.reads, classes=False, exclude_ids=exclude_ids,
    )  # fmt: skip
    self._of = f'{ctx.where}.data'
    self._own = LabelSpace.of_source(self._data.source)
    self._model_ids = matching.positions(
      self._own, ctx.space, self._of, 'the model'
    )
    self._ignored = ignored
    self._num_worst = num_worst
    self._left = left_behind.LeftBehind(ctx)

  @functools.cached_property
  def names(self) -> tuple[str, ...]:
    """Of the model's classes, which may be in another order than the set's."""
    return tuple(self._own.names[i] for i in np.argsort(self._model_ids))

  @functools.cached_property
  def truth(self) -> box_pairs.Truth:
    """The boxes of all records; read at the first evaluation.

    Raises:
      ValueError: a record without boxes' fields or one that cannot be used.
    """
    columns = list(true_boxes.read(self._data.source, self._ignored, self._of))
    columns[1] = self._model_ids[columns[1]].astype(np.int64)
    return box_pairs.Truth(*columns)

  def run(self, state: Any, figures: Figures) -> dict[str, float]:
    """The figures of a state; every image counts once."""
    found = image_lists.Collector(_FIELDS)
    seen = []
    for outputs, batch in run_over(self._predict, state, self._data):
      numbers = np.concatenate(
        [outputs['boxes'], outputs['scores'][..., None]], axis=2
      ).reshape(len(batch['_id']), -1)
      broken = np.array([not np.isfinite(row).all() for row in numbers], bool)
      self._data.refuse(broken, batch['_id'], 'detections are not finite in {}')
      found.add(outputs, batch['_id'])
      seen.append(batch['_id'])
    lists, ids = found.finished(), np.concatenate(seen)
    detections = _as_coco(lists)
    source = self._data.source
    self._left.write_results(self._rows(detections))
    if self._left.without_truth(source):
      return {
        'num_images': len(ids), 'num_detections': len(detections.images)
      }  # fmt: skip
    self._write_page(lists, detections)

    numbers = true_boxes.image_numbers(source)

    def of_kept(kept: np.ndarray) -> dict[str, float]:
      images = ids[kept]
      return self._figures(
        left_behind.of_images(self.truth, images, numbers),
        left_behind.of_images(detections, images, numbers),
        figures,
      ) | {'num_images': len(images)}

    return self._data.figures(ids, of_kept)

  def _figures(
    self,
    truth: box_pairs.Truth,
    detections: box_pairs.Detections,
    figures: Figures,
  ) -> dict[str, float]:
    if not (~truth.ignored).any():
      raise ValueError(f'{self._ctx.where}: no box of the set counts')
    if not len(detections.images):
      self._left.say_once('nothing was detected in any image')
    return {
      key.replace(' ', '_'): value
      for key, value in figures(truth, detections, self.names).items()
    } | {
      'num_boxes': int((~truth.ignored).sum()),
      'num_detections': len(detections.images),
    }

  def say_left_out(
    self, names: Sequence[str], found: Mapping[str, Any]
  ) -> None:
    """Names the figures that no box counts for."""
    self._left.say_left_out(names, found, 'box')

  def _write_page(
    self, lists: image_lists.ImageLists, detections: box_pairs.Detections
  ) -> None:
    path = self._left.file('worst.html')
    if path is not None and self._num_worst:
      worst = box_mistakes.worst(
        self.truth, detections, self._num_worst, score=box_sheet.SHOWN_ABOVE
      )
      box_sheet.write(path, self._data.source, worst, lists, self.names)

  def _rows(self, found: box_pairs.Detections) -> Iterator[dict[str, Any]]:
    """Results as COCO's servers and tools take them.

    Images and categories have the numbers of the data's publisher where the
    data hold them; otherwise an image is its position in the set and a
    category its label, both counted from 1.
    """
    numbers = true_boxes.image_numbers(self._data.source)
    external = self._own.external_ids or range(1, len(self.names) + 1)
    categories = [external[i] for i in np.argsort(self._model_ids)]
    for image, label, box, score in zip(
      numbers[found.images].tolist(),
      found.labels.tolist(),
      found.boxes.tolist(),
      found.scores.tolist(),
    ):
      yield dict(
        image_id=image, category_id=categories[label], bbox=box, score=score
      )


def _as_coco(lists: image_lists.ImageLists) -> box_pairs.Detections:
  fields = lists.fields
  return box_pairs.Detections(
    lists.images,
    fields['labels'].astype(np.int64),
    true_boxes.xywh(fields['boxes']),
    fields['scores'].astype(np.float64),
  )
