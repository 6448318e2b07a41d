"""What classification tasks share: a backbone, a partitioned head, features.

A task holds no arrays: `init` makes parameters, `loss` and `predict_fns` are
pure functions of them (docs/add-a-task.md).
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from big_vision_like.models import heads

Batch = dict[str, jax.Array]


def scale_pixels(image: jax.Array) -> jax.Array:
  """uint8 [0, 255] -> float32 [-1, 1] (Sun et al. 2017, section 4)."""
  return image.astype(jnp.float32) / 127.5 - 1.0


class Classifier:
  """Backbone, global average pool and a class-partitioned linear head.

  Subclasses add `loss`.

  Attributes:
    frozen_parameters: patterns of the parameters that the backbone freezes.

  Args:
    backbone: Linen module whose endpoints include 'pooled' [B, D].
    num_classes: true number of classes.
    class_multiple: the class axis is padded to a multiple of it.
    prior: see `heads.ClassifierHead`.
  """

  def __init__(
    self,
    backbone: Any,
    num_classes: int,
    class_multiple: int,
    prior: float | None = None,
  ):
    if num_classes < 1 or class_multiple < 1:
      raise ValueError(
        f'task.num_classes={num_classes} and task.class_multiple='
        f'{class_multiple} must be positive'
      )
    self.num_classes = num_classes
    frozen = getattr(backbone, 'frozen_parameters', tuple)()
    self.frozen_parameters = tuple(f'backbone/{name}' for name in frozen)
    self._backbone = backbone
    self._head = heads.ClassifierHead(
      num_classes=num_classes,
      class_multiple=class_multiple,
      dtype=getattr(backbone, 'compute_dtype', 'float32'),
      prior=prior,
    )

  def init(self, rng: jax.Array, batch: Batch) -> tuple[Any, Any]:
    """(params, extra) for the shapes of a batch."""
    backbone_rng, head_rng = jax.random.split(rng)
    image = scale_pixels(batch['image'])
    variables = dict(self._backbone.init(backbone_rng, image, train=False))
    params = {'backbone': variables.pop('params')}
    endpoints = self._backbone.apply(
      {'params': params['backbone'], **variables}, image, train=False
    )
    head = self._head.init(head_rng, endpoints['pooled'])
    params['head'] = head['params']
    return params, variables

  def logits(
    self, params: Any, extra: Any, batch: Batch, rng: Any, train: bool
  ) -> tuple[jax.Array, Any]:
    """(float32 [B, padded classes], new extra)."""
    variables = {'params': params['backbone'], **extra}
    image = scale_pixels(batch['image'])
    if train:
      endpoints, updates = self._backbone.apply(
        variables,
        image,
        train=True,
        mutable=list(extra),
        rngs={'dropout': rng},
      )
      extra = {**extra, **updates}
    else:
      endpoints = self._backbone.apply(variables, image, train=False)
    head = {'params': params['head']}
    logits: Any = self._head.apply(head, endpoints['pooled'])
    return logits, extra

  @property
  def predict_fns(self) -> dict[str, Callable[[Any, Batch], Batch]]:
    """'logits' [B, padded classes] and 'features' [B, D], both float32."""

    def logits(state: Any, batch: Batch) -> Batch:
      out, _ = self.logits(state.params, state.extra, batch, None, False)
      return {'logits': out}

    def features(state: Any, batch: Batch) -> Batch:
      variables = {'params': state.params['backbone'], **state.extra}
      image = scale_pixels(batch['image'])
      endpoints = self._backbone.apply(variables, image, train=False)
      return {'features': endpoints['pooled']}

    return {'logits': logits, 'features': features}
