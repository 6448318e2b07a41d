"""The two heads of Faster R-CNN (Ren et al. 2015), as the paper trains it.

Layers and initial values are those of TensorFlow's Object Detection API of 2017
(SPEC rows D.3, D.4): the region proposal network on the shared map, and two
dense layers on the pooled features of each crop.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

_NARROW = nn.initializers.truncated_normal(0.01)
_GLOROT = nn.initializers.glorot_uniform()


class RegionProposalHead(nn.Module):
  """Map [B, h, w, C] -> codes [B, A, 4] and logits [B, A, 2] of its anchors.

  A 3x3 convolution, ReLU6, and a product each for codes and logits. Anchors
  are those of a place one after the other, places row by row. Class 0 is the
  background, 1 an object. Outputs are float32.

  Attributes:
    num_anchors: of a place.
    channels: of the convolution.
    rate: its dilation; 2 on a map of stride 8.
    dtype: of the convolution.
  """

  num_anchors: int
  channels: int = 512
  rate: int = 1
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, features: jax.Array) -> tuple[jax.Array, jax.Array]:
    conv = nn.Conv(
      self.channels,
      (3, 3),
      kernel_dilation=self.rate,
      kernel_init=_NARROW,
      dtype=self.dtype,
      name='conv',
    )
    x = jnp.minimum(nn.relu(conv(features)), 6).astype(jnp.float32)

    def per_anchor(num: int, name: str) -> jax.Array:
      dense = nn.Dense(self.num_anchors * num, kernel_init=_NARROW, name=name)
      y = dense(x)  # [B, h, w, anchors * num]
      num_places = math.prod(y.shape[1:3])
      return y.reshape(y.shape[0], num_places * self.num_anchors, num)

    return per_anchor(4, 'codes'), per_anchor(2, 'classes')


class BoxHead(nn.Module):
  """Pooled features [N, D] -> codes [N, C, 4] and logits [N, C + 1], float32.

  Class 0 of the logits is the background; label i is i + 1. Codes are of the
  C classes, each with its own.
  """

  num_classes: int

  @nn.compact
  def __call__(self, features: jax.Array) -> tuple[jax.Array, jax.Array]:
    x = features.astype(jnp.float32)
    codes = nn.Dense(4 * self.num_classes, kernel_init=_GLOROT, name='codes')(x)
    classes = nn.Dense(
      self.num_classes + 1, kernel_init=_GLOROT, name='classes'
    )
    return codes.reshape(-1, self.num_classes, 4), classes(x)
