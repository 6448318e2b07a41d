"""Single-label classification: softmax cross-entropy (ImageNet, section 4)."""

from typing import Any

import jax

from big_vision_like import losses
from big_vision_like.tasks import common


class Task(common.Classifier):
  """Softmax cross-entropy on batch['label'] int32 [B].

  Args:
    backbone: see `common.Classifier`.
    num_classes: true number of classes; None: that of the training source.
    class_multiple: pad the class axis to a multiple of it.
    label_smoothing: mass spread evenly over all classes.
  """

  fields = ('image', 'label')

  def __init__(
    self,
    backbone: Any,
    *,
    num_classes: int,
    class_multiple: int = 1,
    label_smoothing: float = 0.0,
  ):
    super().__init__(backbone, num_classes, class_multiple)
    if not 0 <= label_smoothing < 1:
      raise ValueError(
        f'task.label_smoothing={label_smoothing} must be in [0, 1)'
      )
    self._label_smoothing = label_smoothing

  def loss(
    self,
    params: Any,
    extra: Any,
    batch: common.Batch,
    rng: jax.Array,
    train: bool,
  ) -> tuple[jax.Array, Any, dict[str, jax.Array]]:
    """(per-example loss [B], new extra, aux)."""
    logits, extra = self.logits(params, extra, batch, rng, train)
    per_example = losses.softmax_sparse(
      logits,
      batch['label'],
      self.num_classes,
      label_smoothing=self._label_smoothing,
    )
    return per_example, extra, {}
