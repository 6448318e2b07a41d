"""What tasks share: a backbone, heads over endpoints of it, features.

A task holds no arrays: `init` makes parameters, `loss` and `predictions` are
pure functions of them (docs/add-a-task.md).
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import jax
import jax.numpy as jnp

from big_vision_like import protocols
from big_vision_like.config.option_types import Count, OneOf
from big_vision_like.models.parts import heads
from big_vision_like.protocols import Backbone, Kind, Prediction, Scores
from big_vision_like.tasks.parts import backbone_contract
from input_pipeline.labels.space import LabelSpace

Batch = dict[str, jax.Array]


# How uint8 becomes float: (mean, standard deviation) of pixels in [0, 1].
# 'msra' subtracts 123.68, 116.779 and 103.939 from pixels in [0, 255].
PIXELS = {
  'inception': (0.5, 0.5),
  'imagenet': ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
  'msra': ((123.68 / 255, 116.779 / 255, 103.939 / 255), (1 / 255,) * 3),
}
Pixels = Annotated[str, OneOf(tuple(PIXELS))]


def scale_pixels(image: jax.Array, pixels: Pixels = 'inception') -> jax.Array:
  """uint8 [0, 255] -> float32.

  Args:
    image: [..., 3].
    pixels: 'inception' gives [-1, 1] (Sun et al. 2017, section 4), 'imagenet'
      standardises the channels as torchvision's and timm's weights want it,
      'msra' subtracts means as the weights of He et al. 2016 want it.
  """
  if pixels == 'inception':
    return image.astype(jnp.float32) / 127.5 - 1.0
  mean, std = (jnp.float32(value) for value in PIXELS[pixels])
  return (image.astype(jnp.float32) / 255.0 - mean) / std


class BackboneTask:
  """A backbone and heads over its endpoints; subclasses add `loss`.

  Parameters are `backbone` and, by its name, those of every head.

  Attributes:
    space: the labels.
    num_classes: number of labels, without padding or a background.
    heads: name -> Linen module.
    frozen_parameters: patterns of the parameters that the backbone freezes.

  Args:
    backbone: Linen module that returns endpoints by name, 'pooled' [B, D]
      among them.
    heads: name -> Linen module, endpoint -> logits. `head`, the name of an
      only one, is that of the class-partitioned one (mesh.RULES).
    endpoints: name of a head -> the endpoint that it takes.
    space: the labels.
    pixels: see `scale_pixels`.
    taps: the endpoints that the backbone is asked for; empty: it gives its
      usual ones.
  """

  # Options that change what the same arrays compute: a warm start compares.
  LAYOUT = ('pixels',)
  # Of its logits.
  KIND: Kind = 'classes'
  SCORES: Scores = 'softmax'

  def __init__(
    self,
    backbone: Backbone,
    heads: Mapping[str, Any],
    *,
    endpoints: Mapping[str, str],
    space: LabelSpace,
    pixels: Pixels = 'inception',
    taps: Sequence[str] = (),
  ):
    assert heads.keys() == endpoints.keys() and 'backbone' not in heads
    self.space = space
    self.num_classes = space.num_classes
    self._pixels = pixels
    frozen = ()
    if isinstance(backbone, protocols.Freezing):
      frozen = backbone.frozen_parameters()
    self.frozen_parameters = tuple(f'backbone/{name}' for name in frozen)
    self._backbone = backbone
    self.heads = dict(heads)
    self._endpoints = dict(endpoints)
    self._taps = {'taps': tuple(taps)} if taps else {}

  def init(self, rng: jax.Array, batch: Batch) -> tuple[Any, Any]:
    """(params, extra) for the shapes of a batch."""
    backbone_rng, *head_rngs = jax.random.split(rng, 1 + len(self.heads))
    image = self.scaled(batch)
    variables, endpoints = backbone_contract.init(
      self._backbone, backbone_rng, image, self._endpoints.values(), self._taps
    )
    self.check_endpoints(image, endpoints)
    params = {'backbone': variables.pop('params')}
    for (name, module), head_rng in zip(self.heads.items(), head_rngs):
      head = module.init(head_rng, endpoints[self._endpoints[name]])
      params[name] = head['params']
    return params, variables

  def check_endpoints(
    self, image: jax.Array, endpoints: Mapping[str, jax.Array]
  ) -> None:
    """Raises ValueError where the endpoints of images do not suit the task."""

  def scaled(self, batch: Batch, field: str = 'image') -> jax.Array:
    """The images as the backbone takes them, float32 [B, H, W, 3]."""
    return scale_pixels(batch[field], self._pixels)

  def logits(
    self, params: Any, extra: Any, image: jax.Array, rng: Any, train: bool
  ) -> tuple[jax.Array, Any]:
    """(float32 logits of `head`, new extra) of `scaled` images."""
    outputs, extra = self.outputs(params, extra, image, rng, train)
    return outputs['head'], extra

  def outputs(
    self, params: Any, extra: Any, image: jax.Array, rng: Any, train: bool
  ) -> tuple[dict[str, Any], Any]:
    """(name -> what the head returns, new extra) of `scaled` images."""
    endpoints, extra = self.apply_backbone(
      params, extra, rng, train, image, **self._taps
    )
    outputs = {
      name: head.apply(
        {'params': params[name]}, endpoints[self._endpoints[name]]
      )
      for name, head in self.heads.items()
    }
    return outputs, extra

  def apply_backbone(
    self,
    params: Any,
    extra: Any,
    rng: Any,
    train: bool,
    *args: Any,
    **options: Any,
  ) -> tuple[Any, Any]:
    """(what a method of the backbone returns, new extra).

    Args:
      params, extra: of the task.
      rng: of dropout; not used where `train` is false.
      train: of the call; statistics are updated if it is true.
      *args, **options: of the call; `method` is which one.
    """
    variables = {'params': params['backbone'], **extra}
    call = {'train': train, **options}
    if not train:
      return self._backbone.apply(variables, *args, **call), extra
    out, updates = self._backbone.apply(
      variables, *args, mutable=list(extra), rngs={'dropout': rng}, **call
    )
    return out, {**extra, **updates}

  @property
  def predictions(self) -> dict[str, Prediction]:
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

    return {
      'logits': Prediction(logits, self.KIND, scores=self.SCORES),
      'features': Prediction(features, 'vectors'),
    }


class Classifier(BackboneTask):
  """Backbone, global average pool and a class-partitioned linear head.

  `logits` are [B, padded classes].

  Args:
    backbone: see `BackboneTask`.
    space: the labels.
    class_multiple: the class axis is padded to a multiple of it.
    prior: see `heads.ClassifierHead`.
    pixels: see `scale_pixels`.
  """

  def __init__(
    self,
    backbone: Backbone,
    space: LabelSpace,
    class_multiple: Count,
    prior: heads.Prior | None = None,
    pixels: Pixels = 'inception',
  ):
    head = heads.ClassifierHead(
      num_classes=space.num_classes,
      class_multiple=class_multiple,
      dtype=backbone_contract.compute_dtype(backbone),
      prior=prior,
    )
    super().__init__(
      backbone,
      {'head': head},
      endpoints={'head': 'pooled'},
      space=space,
      pixels=pixels,
    )
