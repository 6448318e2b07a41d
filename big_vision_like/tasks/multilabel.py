"""Multi-label classification: a logistic loss per label.

Labels are not mutually exclusive; absent labels are negatives (Sun et al. 2017,
section 4), or, where absence was verified label by label, unknown. Labels
travel as id lists: no [batch, classes] target exists.
"""

from typing import Any

import jax
import jax.numpy as jnp

from big_vision_like.config.option_types import Count
from big_vision_like.losses import classification
from big_vision_like.models.parts import heads
from big_vision_like.protocols import Backbone
from big_vision_like.tasks.parts import backbone_task
from input_pipeline.labels.space import LabelSpace


class Task(backbone_task.Classifier):
  """Per-label logistic loss on batch['label_ids'] int32 [B, L], padded -1.

  batch['label_conf'] float32 [B, L] and batch['negative_ids'] int32 [B, N],
  padded -1, are read where the options below ask for them.

  Args:
    backbone: see `backbone_task.Classifier`.
    space: the labels, one output each.
    class_multiple: pad the class axis to a multiple of it (50 in the paper).
    reduction: 'sum_classes' (the paper's scale) or 'mean_classes'.
    prior: probability that the fresh bias predicts for every label; None: 0.5.
    unknown: a label that is neither given nor verified as absent is a
      'negative', as in the paper, or has no part in the loss, 'ignore'.
    confidence: of a label is left alone ('ignore'), is its soft 'target', or
      the 'weight' of its loss; see `classification.sigmoid_sparse`.
    pixels: see `backbone_task.scale_pixels`.
  """

  SCORES = 'sigmoid'
  fields = ('image', 'label_ids')

  def __init__(
    self,
    backbone: Backbone,
    space: LabelSpace,
    *,
    class_multiple: Count = 1,
    reduction: classification.Reduction = 'sum_classes',
    prior: heads.Prior | None = None,
    unknown: classification.Unknown = 'negative',
    confidence: classification.Confidence = 'ignore',
    pixels: backbone_task.Pixels = 'inception',
  ):
    super().__init__(backbone, space, class_multiple, prior, pixels)
    if confidence != 'ignore':
      self.fields = (*self.fields, 'label_conf')
    if unknown == 'ignore':
      self.fields = (*self.fields, 'negative_ids')
    self._reduction: classification.Reduction = reduction
    self._unknown: classification.Unknown = unknown
    self._confidence: classification.Confidence = confidence

  def loss(
    self,
    params: Any,
    extra: Any,
    batch: backbone_task.Batch,
    rng: jax.Array,
    train: bool,
  ) -> tuple[jax.Array, Any, dict[str, jax.Array]]:
    """(per-example loss [B], new extra, aux of per-example [B] values)."""
    image = self.scaled(batch)
    logits, extra = self.logits(params, extra, image, rng, train)
    per_example = classification.sigmoid_sparse(
      logits,
      batch['label_ids'],
      self.num_classes,
      self._reduction,
      unknown=self._unknown,
      confidence=self._confidence,
      label_conf=batch.get('label_conf'),
      negative_ids=batch.get('negative_ids'),
    )
    aux = {'labels_per_image': _num_listed(batch['label_ids'])}
    if 'negative_ids' in batch:
      aux['negatives_per_image'] = _num_listed(batch['negative_ids'])
    return per_example, extra, aux


def _num_listed(ids: jax.Array) -> jax.Array:
  """float32 [B]: ids [B, L] that are not padding."""
  return jnp.sum(ids >= 0, axis=-1).astype(jnp.float32)
