"""Semantic segmentation: softmax cross-entropy of pixels (section 5.3).

Sun et al. 2017 train DeepLab-ASPP-L: a ResNet of output stride 8, four atrous
branches (models/deeplab.py), and the mean cross-entropy of the pixels that are
not void. Logits lie on the grid of features; the loss takes every 8th label, as
DeepLab v2 does, or all of them against interpolated logits.
"""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp

from big_vision_like.config.option_types import Count, Distinct, NonEmpty
from big_vision_like.models.parts import deeplab
from big_vision_like.ops import interpolation
from big_vision_like.protocols import Backbone, WithConv
from big_vision_like.tasks.parts import backbone_contract, backbone_task
from input_pipeline.labels.space import LabelSpace

VOID = 255  # of a mask: unknown, counts nowhere


class Task(backbone_task.BackboneTask):
  """Cross-entropy on batch['segmentation'] uint8 [B, H, W], 255 where void.

  The masks' class 0 is the background and label i of the vocabulary is i + 1,
  or, without a background, label i is i.

  The prediction 'logits' is float32 [B, h, w, C] on the grid of features.

  Args:
    backbone: see `backbone_task.BackboneTask`; the head is on its 'block4'.
    space: the labels.
    background: whether masks and logits have a class before these; None: as
      the masks of the data.
    rates: dilations of the head's branches; (6, 12, 18, 24) are for features
      of stride 8, their halves cover the same field at stride 16.
    loss_at: 'grid': labels at the centres of the features; 'pixels': logits
      interpolated to the size of the mask.
    normalise: the loss is the mean over the valid pixels of the 'batch', or of
      each 'image', every image having the same weight.
    pixels: see `backbone_task.scale_pixels`.
  """

  KIND = 'mask'
  fields = ('image', 'segmentation')

  def __init__(
    self,
    backbone: Backbone,
    space: LabelSpace,
    *,
    background: bool | None = None,
    rates: Annotated[Sequence[Count], NonEmpty(), Distinct()] = deeplab.RATES,
    loss_at: Literal['grid', 'pixels'] = 'grid',
    normalise: Literal['batch', 'image'] = 'batch',
    pixels: backbone_task.Pixels = 'inception',
  ):
    if background is None:
      background = space.background is not False
    num_outputs = space.num_classes + background
    if not 2 <= num_outputs <= VOID:
      raise ValueError(
        f'{space.num_classes} labels and task.background={background}: a mask '
        f'has 2 to {VOID} classes'
      )
    head = deeplab.AtrousPyramid(
      num_classes=num_outputs,
      rates=tuple(rates),
      method=backbone.conv if isinstance(backbone, WithConv) else 'native',
      dtype=backbone_contract.compute_dtype(backbone),
    )
    super().__init__(
      backbone,
      {'head': head},
      endpoints={'head': 'block4'},
      space=space,
      pixels=pixels,
    )
    self.background = background
    self._loss_at = loss_at
    self._normalise = normalise

  def loss(
    self,
    params: Any,
    extra: Any,
    batch: backbone_task.Batch,
    rng: jax.Array,
    train: bool,
  ) -> tuple[jax.Array, Any, dict[str, jax.Array]]:
    """(per-example loss [B], new extra, aux).

    Normalised over the batch, the losses of the examples have the mean over
    its valid pixels as their mean; the parts of `train.accum_steps` count as
    batches.
    """
    image, labels = self.scaled(batch), batch['segmentation']
    logits, extra = self.logits(params, extra, image, rng, train)
    if self._loss_at == 'grid':
      stride = interpolation.stride_between(labels.shape[1:], logits.shape[1:3])
      labels = labels[:, ::stride, ::stride]
    else:
      logits = interpolation.to_pixels(logits, *labels.shape[1:])
      logits = jnp.moveaxis(logits, 1, -1)
    losses, valid = pixel_losses(logits, labels)
    total, count = losses.sum((1, 2)), valid.sum((1, 2)).astype(jnp.float32)
    if self._normalise == 'batch':
      mask = batch['_mask'].astype(jnp.float32)
      count = (count * mask).sum() / jnp.maximum(mask.sum(), 1)
    return total / jnp.maximum(count, 1), extra, {}


def pixel_losses(
  logits: jax.Array, labels: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """Softmax cross-entropy of every pixel.

  Args:
    logits: float32 [..., C].
    labels: uint8 [...] in [0, C), or 255: no loss and no gradient. Any other
      label gives NaN, which stops a run.

  Returns:
    (float32 [...] losses in nats, bool [...] pixels that are not void).
  """
  num_classes = logits.shape[-1]
  labels = labels.astype(jnp.int32)
  valid = labels != VOID
  # A selection, not a gather: it fuses, and so does its gradient.
  is_label = labels[..., None] == jnp.arange(num_classes)
  chosen = jnp.where(is_label, logits, 0.0).sum(axis=-1)
  losses = jax.nn.logsumexp(logits, axis=-1) - chosen
  losses = jnp.where((labels >= 0) & (labels < num_classes), losses, jnp.nan)
  return jnp.where(valid, losses, 0.0), valid
