"""Linear classifier whose outputs are split over the mesh's 'model' axis.

The final layer for 18,291 labels (37 million weights) is cut vertically, by
output, as in Sun et al. 2017, section 3.2. Devices take equal shards only, so
the class axis is padded to a multiple of the number of shards: 18,291 = 3 * 7
* 13 * 67 becomes 18,300 for the paper's 50. Padded columns start at zero, get
no gradient from the losses (losses/) and are ranked last (ops/topk.py).
"""

import math
from typing import Annotated

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from big_vision_like.config import option_types
from big_vision_like.config.option_types import Between
from big_vision_like.parallel import constraints

Prior = Annotated[float, Between(0, 1, open='both')]

# He et al. 2015, fan-in, truncated: what slim's resnet_arg_scope gives the
# logits layer (variance_scaling_initializer with its defaults).
KERNEL_INIT = nn.initializers.variance_scaling(
  2.0, 'fan_in', 'truncated_normal'
)


def padded_classes(num_classes: int, multiple: int = 1) -> int:
  """Smallest multiple of `multiple` that holds `num_classes` outputs.

  Raises:
    ValueError: either number is not positive.
  """
  if num_classes < 1 or multiple < 1:
    raise ValueError(
      'num_classes and class_multiple must be at least 1, got '
      f'{num_classes} and {multiple}'
    )
  return -(-num_classes // multiple) * multiple


class ClassifierHead(nn.Module):
  """Features [B, D] -> logits float32 [B, C_pad], classes split over 'model'.

  Parameters: `kernel` [D, C_pad], `bias` [C_pad], float32. The first
  `num_classes` columns do not depend on `class_multiple`, so a checkpoint moves
  between meshes by cutting and padding alone.

  Attributes:
    num_classes: number of labels, without padding.
    class_multiple: the class axis is padded to a multiple of this; a multiple
      of the size of the mesh's 'model' axis.
    dtype: type of the matrix product's operands; the sum is float32.
    kernel_init: initialiser of the kernel [D, num_classes].
    prior: if given, the probability that the bias alone predicts for every
      label (Lin et al. 2017, section 4.1); None starts the bias at zero.
  """

  num_classes: int
  class_multiple: int = 1
  dtype: str = 'float32'
  kernel_init: nn.initializers.Initializer = KERNEL_INIT
  prior: Prior | None = None

  @nn.compact
  def __call__(self, features: jax.Array) -> jax.Array:
    width = padded_classes(self.num_classes, self.class_multiple)
    padding = width - self.num_classes
    shape = (features.shape[-1], self.num_classes)
    kernel = self.param(
      'kernel',
      lambda key: jnp.pad(
        self.kernel_init(key, shape, jnp.float32), ((0, 0), (0, padding))
      ),
    )
    bias = self.param(
      'bias',
      lambda key: jnp.pad(
        jnp.full((self.num_classes,), _logit(self.prior), jnp.float32),
        (0, padding),
      ),
    )
    kernel = constraints.constrain(kernel, None, 'model')
    bias = constraints.constrain(bias, 'model')
    features = constraints.constrain(features, constraints.BATCH, None)
    logits = _class_parallel_product(features, kernel, self.dtype)
    return constraints.constrain(logits + bias, 'data', 'model')  # [B, C_pad]


def _class_parallel_product(
  features: jax.Array, kernel: jax.Array, dtype: str
) -> jax.Array:
  """features [B, D] over both axes times kernel [D, C] over 'model'.

  Every device gathers the rows of its 'data' shard along 'model' and
  multiplies them with its own columns. Written per shard because of the
  gradient: the transpose of the gather is a reduce-scatter, each device
  receives the sum for its own rows only, where the compiler's own partition of
  a plain product may sum all rows on all devices and cut afterwards.

  Returns:
    float32 [B, C], rows over 'data', columns over 'model'.
  """
  axes = constraints.mesh_axes()
  if not {'data', 'model'} <= axes.keys() or axes['model'] == 1:
    return _product(features, kernel, dtype)
  constraints.check_divisible(features.shape, (constraints.BATCH,))
  # Named where it has one device, 'data' would bring a sum over that device.
  data = 'data' if axes['data'] > 1 else None
  rows = constraints.BATCH if data else 'model'

  def local(features: jax.Array, kernel: jax.Array) -> jax.Array:
    features = jax.lax.all_gather(features, 'model', tiled=True)
    return _product(features, kernel, dtype)

  return jax.shard_map(
    local,
    in_specs=(P(rows), P(None, 'model')),
    out_specs=P(data, 'model'),
    axis_names={'data', 'model'},
  )(features, kernel)


def _product(features: jax.Array, kernel: jax.Array, dtype: str) -> jax.Array:
  """[B, D] x [D, C] -> float32 [B, C], operands in `dtype`."""
  return jax.lax.dot_general(
    features.astype(dtype),
    kernel.astype(dtype),
    (((1,), (0,)), ((), ())),
    preferred_element_type=jnp.float32,
  )


def _logit(probability: float | None) -> float:
  if probability is None:
    return 0.0
  option_types.check_value('prior', Prior, probability)
  return math.log(probability / (1 - probability))
