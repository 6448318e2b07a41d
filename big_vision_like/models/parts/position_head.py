"""A linear map at every position of a map of features: a 1x1 convolution.

The last layer of a pose net (Papandreou et al. 2017, section 3.2), whose
outputs are interpolated to pixels afterwards.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax

_NARROW = nn.initializers.truncated_normal(0.01)


class PositionHead(nn.Module):
  """Features [B, h, w, D] -> float32 [B, h, w, C].

  Parameters, float32: `kernel` [D, C], a truncated normal of 0.01, and `bias`
  [C], zero: a fresh head says next to nothing anywhere.

  Attributes:
    num_outputs: C.
    dtype: type of the product's operands; sums are float32.
  """

  num_outputs: int
  dtype: str = 'float32'

  @nn.compact
  def __call__(self, features: jax.Array) -> jax.Array:
    shape = features.shape[-1], self.num_outputs
    kernel = self.param('kernel', _NARROW, shape, jnp.float32)
    bias = self.param(
      'bias', nn.initializers.zeros, (self.num_outputs,), jnp.float32
    )
    out = lax.dot_general(
      features.astype(self.dtype),
      kernel.astype(self.dtype),
      (((3,), (0,)), ((), ())),
      preferred_element_type=jnp.float32,
    )
    return out + bias
