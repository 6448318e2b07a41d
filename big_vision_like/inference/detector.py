"""Boxes in any images, by the detection model of a checkpoint.

An image is seen as the run's evaluation sees it; boxes are in pixels of the
image file, whatever size the net looks at.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from big_vision_like.inference import segmenter
from big_vision_like.inference.stored_model import StoredModel
from big_vision_like.inference.stored_predictor import StoredPredictor

_EVALUATORS = ('coco_detection', 'voc_detection')


class Found(NamedTuple):
  """The detections of an image, n of them, best first.

  Attributes:
    index: of the image in its source.
    size: its height and width.
    boxes: float32 [n, 4] y0, x0, y1, x1 in its pixels.
    scores: float32 [n].
    labels: int32 [n].
  """

  index: int
  size: tuple[int, int]
  boxes: np.ndarray
  scores: np.ndarray
  labels: np.ndarray


def default_ops(config: Any) -> list[dict[str, Any]]:
  """`segmenter.whole_image_ops` of a run of a detector."""
  return segmenter.whole_image_ops(config, _EVALUATORS)


class Detector(StoredPredictor):
  """Images -> boxes; the arguments are those of `StoredPredictor`.

  Args:
    model: of a task whose prediction is of kind 'boxes'.
    ops: op configs from an encoded image to 'image', 'image_size' and
      'original_size'; None: `default_ops` of the run.
    batch_size, threads, workers: see `StoredPredictor`.
  """

  def __init__(
    self,
    model: StoredModel,
    *,
    ops: Sequence[Mapping[str, Any]] | None = None,
    batch_size: int = 4,
    threads: int = 2,
    workers: int = 0,
  ):
    name, _ = model.prediction('boxes')
    if ops is None:
      ops = default_ops(model.config)
    super().__init__(
      model, name, ops,
      batch_size=batch_size, threads=threads, workers=workers,
    )  # fmt: skip

  def detections(
    self, source: Any, indices: Sequence[int] | np.ndarray | None = None
  ) -> Iterator[Found]:
    """Detections of the records of a source, in the order given.

    Records that cannot be used are left out; `bad` has them.

    Raises:
      ValueError: an index outside the source, or boxes that are not finite.
    """
    for chosen, outputs, batch in self.batches(source, indices):
      for row, index in enumerate(chosen.tolist()):
        kept = outputs['mask'][row]
        boxes, scores, labels = (
          outputs[name][row][kept] for name in ('boxes', 'scores', 'labels')
        )
        if not (np.isfinite(boxes).all() and np.isfinite(scores).all()):
          raise ValueError(f'{source.key(index)}: detections are not finite')
        height, width = batch['original_size'][row].tolist()
        yield Found(index, (height, width), boxes, scores, labels)
