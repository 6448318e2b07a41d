"""Average precision of boxes as COCO measures it (Lin et al. 2014).

Means over IoU thresholds of .50 to .95, over classes and over sizes; at most
100 detections of an image and class count. The figures are pycocotools'
(big_vision_like/metrics/coco_detection.py), in percent.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from big_vision_like.config.option_types import AtLeast, Count
from big_vision_like.metrics import coco_detection
from big_vision_like.protocols import Prediction
from evaluators.harness import context
from evaluators.harness.box_evaluation import BoxEvaluation


class Evaluator:
  """Scores predict[predict_fn] against the boxes of the records.

  Figures: 'ap', 'ap50', 'ap75', 'ap_small|medium|large', 'ar1|10|100',
  'ar_small|medium|large' and 'ap/<class>'; one that no box counts for is left
  out, which the log says once. Crowds count neither way. Runs with a workdir
  leave <workdir>/<name>_results.json, as COCO's server takes it, and the page
  <name>_worst.html.

  Args:
    predict: the task's prediction functions.
    ctx: see `context.EvalContext`.
    data, ops, batch_size: the evaluation set; ops make what the prediction
      reads, boxes are read from the records.
    predict_fn: which prediction gives boxes.
    per_class: give 'ap/<class>'.
    num_worst: images on the page; 0: no page.
    exclude_ids: see `exclusions.read_excluded`.
  """

  def __init__(
    self,
    predict: Mapping[str, Prediction],
    ctx: context.EvalContext,
    *,
    data: Mapping[str, Any],
    ops: Sequence[Mapping[str, Any]],
    batch_size: Count,
    predict_fn: str = 'detections',
    per_class: bool = True,
    num_worst: Annotated[int, AtLeast(0)] = 24,
    exclude_ids: str | Sequence[str | int] | None = None,
  ):
    self._per_class = per_class
    self._boxes = BoxEvaluation(
      predict, ctx, data=data, ops=ops, batch_size=batch_size,
      predict_fn=predict_fn, exclude_ids=exclude_ids, ignored='box_crowd',
      num_worst=num_worst,
    )  # fmt: skip

  def run(self, state: Any) -> dict[str, float]:
    """The figures of a state; every image counts once."""
    found = self._boxes.run(state, coco_detection.figures)
    self._boxes.say_left_out(coco_detection.FIGURES, found)
    if self._per_class:
      return found
    return {k: v for k, v in found.items() if not k.startswith('ap/')}
