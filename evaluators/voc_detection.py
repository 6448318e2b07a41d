"""Average precision of boxes as VOC measures it (Everingham et al. 2010).

At an IoU of a half, the area under the precision's envelope and, beside it, the
eleven points of 2007; difficult boxes count neither way. In percent.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from big_vision_like.config.option_types import AtLeast, Count
from big_vision_like.metrics import voc_detection
from big_vision_like.protocols import Prediction
from evaluators.harness import context
from evaluators.harness.box_evaluation import BoxEvaluation


class Evaluator:
  """Scores predict[predict_fn] against the boxes of the records.

  Figures: 'ap50' (all-point), 'ap50_11point' and 'ap50/<class>'. Runs with a
  workdir leave <workdir>/<name>_results.json in COCO's form and the page
  <name>_worst.html.

  Args:
    predict: the task's prediction functions.
    ctx: see `context.EvalContext`.
    data, ops, batch_size: the evaluation set; ops make what the prediction
      reads, boxes are read from the records.
    predict_fn: which prediction gives boxes.
    per_class: give 'ap50/<class>'.
    inclusive: corners are pixels that belong to the box, as in the devkit;
      or else they are its edges, as in TensorFlow's Object Detection API.
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
    inclusive: bool = False,
    num_worst: Annotated[int, AtLeast(0)] = 24,
    exclude_ids: str | Sequence[str | int] | None = None,
  ):
    self._per_class = per_class
    self._figures = functools.partial(
      voc_detection.figures, inclusive=inclusive
    )
    self._boxes = BoxEvaluation(
      predict, ctx, data=data, ops=ops, batch_size=batch_size,
      predict_fn=predict_fn, exclude_ids=exclude_ids, ignored='box_difficult',
      num_worst=num_worst,
    )  # fmt: skip

  def run(self, state: Any) -> dict[str, float]:
    """The figures of a state; every image counts once."""
    found = self._boxes.run(state, self._figures)
    if self._per_class:
      return found
    return {k: v for k, v in found.items() if not k.startswith('ap50/')}
