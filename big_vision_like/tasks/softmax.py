"""Single-label classification: softmax cross-entropy (ImageNet, section 4)."""

from typing import Annotated, Any

import jax
import jax.numpy as jnp

from big_vision_like.config.option_types import AtLeast, Count
from big_vision_like.losses import classification
from big_vision_like.protocols import Backbone
from big_vision_like.tasks.parts import backbone_task
from input_pipeline.labels.space import LabelSpace


class Task(backbone_task.Classifier):
  """Softmax cross-entropy on batch['label'] int32 [B].

  Args:
    backbone: see `backbone_task.Classifier`.
    space: the labels, one output each.
    class_multiple: pad the class axis to a multiple of it.
    label_smoothing: mass spread evenly over all classes.
    mixup: images and losses of two examples are mixed by a weight drawn from
      Beta(mixup, mixup) at each step (Zhang et al. 2018); 0 for none.
    pixels: see `backbone_task.scale_pixels`.
  """

  fields = ('image', 'label')

  def __init__(
    self,
    backbone: Backbone,
    space: LabelSpace,
    *,
    class_multiple: Count = 1,
    label_smoothing: classification.Smoothing = 0.0,
    mixup: Annotated[float, AtLeast(0)] = 0.0,
    pixels: backbone_task.Pixels = 'inception',
  ):
    super().__init__(backbone, space, class_multiple, pixels=pixels)
    self._label_smoothing = label_smoothing
    self._mixup = mixup

  def loss(
    self,
    params: Any,
    extra: Any,
    batch: backbone_task.Batch,
    rng: jax.Array,
    train: bool,
  ) -> tuple[jax.Array, Any, dict[str, jax.Array]]:
    """(per-example loss [B], new extra, aux)."""
    image, label = self.scaled(batch), batch['label']
    if not (train and self._mixup):
      logits, extra = self.logits(params, extra, image, rng, train)
      return self._cross_entropy(logits, label), extra, {}
    mix_rng, rng = jax.random.split(rng)
    weight = mixing_weights(mix_rng, batch['_mask'], self._mixup)  # [B]
    other = jnp.roll(image, 1, axis=0)
    image = other + weight[:, None, None, None] * (image - other)
    logits, extra = self.logits(params, extra, image, rng, train)
    own = self._cross_entropy(logits, label)
    others = self._cross_entropy(logits, jnp.roll(label, 1))
    return others + weight * (own - others), extra, {}

  def _cross_entropy(self, logits: jax.Array, label: jax.Array) -> jax.Array:
    return classification.softmax_sparse(
      logits, label, self.num_classes, label_smoothing=self._label_smoothing
    )


def mixing_weights(rng: jax.Array, mask: jax.Array, alpha: float) -> jax.Array:
  """Share of each example's own image where it is mixed with the one before.

  One draw from Beta(alpha, alpha) a batch; 1 where either of the two does not
  count, so that a blank never leaks into an example.

  Args:
    rng: key.
    mask: bool [B], the examples that count.
    alpha: of the distribution.

  Returns:
    float32 [B] in [0, 1].
  """
  weight = jax.random.beta(rng, alpha, alpha, dtype=jnp.float32)
  return jnp.where(mask & jnp.roll(mask, 1), weight, 1.0)
