"""Linear classifier whose outputs are split over the mesh's 'model' axis.

The final layer for 18,291 labels (37 million weights) is cut vertically, by
output, as in Sun et al. 2017, section 3.2. Devices take equal shards only, so
the class axis is padded to a multiple of the number of shards: 18,291 = 3 * 7
* 13 * 67 becomes 18,300 for the paper's 50. Padded columns start at zero, get
no gradient from the losses (losses.py) and are ranked last (ops/topk.py).
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from big_vision_like.ops import sharding

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
  prior: float | None = None

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
    kernel = sharding.constrain(kernel, None, 'model')
    bias = sharding.constrain(bias, 'model')
    # Gathered along 'model', which is small; the transpose of this line
    # brings the gradient back by a sum over 'model' and a slice.
    features = sharding.constrain(features, sharding.BATCH, None)
    features = sharding.constrain(features, 'data', None)
    logits = jax.lax.dot_general(
      features.astype(self.dtype),
      kernel.astype(self.dtype),
      (((1,), (0,)), ((), ())),
      preferred_element_type=jnp.float32,
    )
    return sharding.constrain(logits + bias, 'data', 'model')  # [B, C_pad]


def _logit(probability: float | None) -> float:
  if probability is None:
    return 0.0
  if not 0 < probability < 1:
    raise ValueError(
      f'prior must be a probability between 0 and 1, got {probability}'
    )
  return math.log(probability / (1 - probability))
