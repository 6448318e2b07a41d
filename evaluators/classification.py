"""Single-label classification: top-1, top-5 and loss, single crop.

The rank of the true class is counted on the device from logits split by class:
no sort, nothing of size [batch, classes] leaves it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from big_vision_like.config.option_types import Count
from big_vision_like.metrics import classification
from big_vision_like.ops import ranks
from big_vision_like.protocols import Prediction
from evaluators.harness import context
from evaluators.harness.evaluation_set import EvalData, run_over


class Evaluator:
  """Scores predict[predict_fn]['logits'] against batch['label'] int32 [B].

  Figures: 'top1' and 'top5' in percent (top5 is 100 with five classes or
  fewer), 'loss' the mean softmax cross-entropy in nats, 'num_images'. Of equal
  logits the lower class id ranks first.

  Args:
    predict: the task's prediction functions.
    ctx: see `context.EvalContext`.
    data, ops, batch_size: the evaluation set; ops must make 'label'.
    predict_fn: which prediction gives the logits.
    exclude_ids: near-duplicates of training images, see
      `exclusions.read_excluded`. Figures without them are '<name>/dedup'.
  """

  def __init__(
    self,
    predict: Mapping[str, Prediction],
    ctx: context.EvalContext,
    *,
    data: Mapping[str, Any],
    ops: Sequence[Mapping[str, Any]],
    batch_size: Count,
    predict_fn: str = 'logits',
    exclude_ids: str | Sequence[str | int] | None = None,
  ):
    self._ctx = ctx
    self._predict = context.choose(predict, predict_fn, ctx, 'classes')
    self._data = EvalData(
      ctx, data, ops, batch_size,
      fields=('image', 'label'), exclude_ids=exclude_ids,
    )  # fmt: skip

  def run(self, state: Any) -> dict[str, float]:
    """The figures of a state; every example counts once."""
    ids, ranks, losses = [], [], []
    for outputs, batch in run_over(self._outputs, state, self._data):
      broken = ~np.isfinite(outputs['loss'])
      self._data.refuse(broken, batch['_id'], 'the loss of {} is not finite')
      ids.append(batch['_id'])
      ranks.append(outputs['rank'])
      losses.append(outputs['loss'])
    rank, loss = np.concatenate(ranks), np.concatenate(losses)
    return self._data.figures(
      np.concatenate(ids),
      lambda keep: classification.figures(rank[keep], loss[keep]),
    )

  def _outputs(self, state: Any, batch: Any) -> dict[str, jax.Array]:
    logits = self._predict(state, batch)['logits']
    return ranks.rank_and_loss(logits, batch['label'], self._ctx.num_classes)
