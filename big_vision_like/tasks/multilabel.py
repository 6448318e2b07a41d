"""Multi-label classification: a logistic loss per label.

Labels are not mutually exclusive; absent labels are negatives (Sun et al. 2017,
section 4). Labels travel as id lists: no [batch, classes] target exists.
"""

from typing import Any

import jax
import jax.numpy as jnp

from big_vision_like import losses
from big_vision_like.tasks import common


class Task(common.Classifier):
  """Per-label logistic loss on batch['label_ids'] int32 [B, L], padded -1.

  Args:
    backbone: see `common.Classifier`.
    num_classes: true number of labels; None: that of the training source.
    class_multiple: pad the class axis to a multiple of it (50 in the paper).
    reduction: 'sum_classes' (the paper's scale) or 'mean_classes'.
    prior: probability that the fresh bias predicts for every label; None: 0.5.
  """

  fields = ('image', 'label_ids')

  def __init__(
    self,
    backbone: Any,
    *,
    num_classes: int,
    class_multiple: int = 1,
    reduction: str = 'sum_classes',
    prior: float | None = None,
  ):
    super().__init__(backbone, num_classes, class_multiple, prior)
    if reduction not in losses.REDUCTIONS:
      raise ValueError(
        f'task.reduction={reduction!r}; valid: {", ".join(losses.REDUCTIONS)}'
      )
    self._reduction = reduction

  def loss(
    self,
    params: Any,
    extra: Any,
    batch: common.Batch,
    rng: jax.Array,
    train: bool,
  ) -> tuple[jax.Array, Any, dict[str, jax.Array]]:
    """(per-example loss [B], new extra, aux of per-example [B] values)."""
    logits, extra = self.logits(params, extra, batch, rng, train)
    label_ids = batch['label_ids']
    per_example = losses.sigmoid_sparse(
      logits, label_ids, self.num_classes, reduction=self._reduction
    )
    num_labels = jnp.sum(label_ids >= 0, axis=-1).astype(jnp.float32)
    return per_example, extra, {'labels_per_image': num_labels}
