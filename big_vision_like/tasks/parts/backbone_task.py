"""What tasks share: a backbone, a head over an endpoint of it, features.

A task holds no arrays: `init` makes parameters, `loss` and `predict_fns` are
pure functions of them (docs/add-a-task.md).
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from big_vision_like.models.parts import heads
from big_vision_like.tasks.parts import backbone_contract

Batch = dict[str, jax.Array]


# How uint8 becomes float: (mean, standard deviation) of pixels in [0, 1].
PIXELS = {
  'inception': (0.5, 0.5),
  'imagenet': ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
}


def scale_pixels(image: jax.Array, pixels: str = 'inception') -> jax.Array:
  """uint8 [0, 255] -> float32.

  Args:
    image: [..., 3].
    pixels: 'inception' gives [-1, 1] (Sun et al. 2017, section 4), 'imagenet'
      standardises the channels as torchvision's and timm's weights want it.
  """
  if pixels == 'inception':
    return image.astype(jnp.float32) / 127.5 - 1.0
  mean, std = (jnp.float32(value) for value in PIXELS[pixels])
  return (image.astype(jnp.float32) / 255.0 - mean) / std


class BackboneTask:
  """A backbone and a head over one of its endpoints; subclasses add `loss`.

  Attributes:
    num_classes: true number of classes.
    frozen_parameters: patterns of the parameters that the backbone freezes.

  Args:
    backbone: Linen module that returns endpoints by name, 'pooled' [B, D]
      among them.
    head: Linen module, endpoint -> logits.
    endpoint: name of the endpoint that the head takes.
    num_classes: true number of classes.
    pixels: see `scale_pixels`.
  """

  # Options that change what the same arrays compute: a warm start compares.
  LAYOUT = ('pixels',)

  def __init__(
    self,
    backbone: Any,
    head: Any,
    *,
    endpoint: str,
    num_classes: int,
    pixels: str = 'inception',
  ):
    if pixels not in PIXELS:
      raise ValueError(f'task.pixels={pixels!r}; valid: {", ".join(PIXELS)}')
    self.num_classes = num_classes
    self._pixels = pixels
    frozen = getattr(backbone, 'frozen_parameters', tuple)()
    self.frozen_parameters = tuple(f'backbone/{name}' for name in frozen)
    self._backbone = backbone
    self._head = head
    self._endpoint = endpoint

  def init(self, rng: jax.Array, batch: Batch) -> tuple[Any, Any]:
    """(params, extra) for the shapes of a batch."""
    backbone_rng, head_rng = jax.random.split(rng)
    image = self.scaled(batch)
    variables, endpoints = backbone_contract.init(
      self._backbone, backbone_rng, image, self._endpoint
    )
    params = {'backbone': variables.pop('params')}
    head = self._head.init(head_rng, endpoints[self._endpoint])
    params['head'] = head['params']
    return params, variables

  def scaled(self, batch: Batch) -> jax.Array:
    """The images as the backbone takes them, float32 [B, H, W, 3]."""
    return scale_pixels(batch['image'], self._pixels)

  def logits(
    self, params: Any, extra: Any, image: jax.Array, rng: Any, train: bool
  ) -> tuple[jax.Array, Any]:
    """(float32 logits, new extra) of `scaled` images."""
    variables = {'params': params['backbone'], **extra}
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
    logits: Any = self._head.apply(head, endpoints[self._endpoint])
    return logits, extra

  @property
  def predict_fns(self) -> dict[str, Callable[[Any, Batch], Batch]]:
    """'logits' and 'features', the pooled endpoint [B, D], both float32."""

    def logits(state: Any, batch: Batch) -> Batch:
      image = self.scaled(batch)
      out, _ = self.logits(state.params, state.extra, image, None, False)
      return {'logits': out}

    def features(state: Any, batch: Batch) -> Batch:
      variables = {'params': state.params['backbone'], **state.extra}
      image = self.scaled(batch)
      endpoints = self._backbone.apply(variables, image, train=False)
      return {'features': endpoints['pooled']}

    return {'logits': logits, 'features': features}


class Classifier(BackboneTask):
  """Backbone, global average pool and a class-partitioned linear head.

  `logits` are [B, padded classes].

  Args:
    backbone: see `BackboneTask`.
    num_classes: true number of classes.
    class_multiple: the class axis is padded to a multiple of it.
    prior: see `heads.ClassifierHead`.
    pixels: see `scale_pixels`.
  """

  def __init__(
    self,
    backbone: Any,
    num_classes: int,
    class_multiple: int,
    prior: float | None = None,
    pixels: str = 'inception',
  ):
    if num_classes < 1 or class_multiple < 1:
      raise ValueError(
        f'task.num_classes={num_classes} and task.class_multiple='
        f'{class_multiple} must be positive'
      )
    head = heads.ClassifierHead(
      num_classes=num_classes,
      class_multiple=class_multiple,
      dtype=getattr(backbone, 'compute_dtype', 'float32'),
      prior=prior,
    )
    super().__init__(
      backbone,
      head,
      endpoint='pooled',
      num_classes=num_classes,
      pixels=pixels,
    )
