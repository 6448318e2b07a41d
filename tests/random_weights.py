"""A state of random weights, made without compiling the initialisers."""

import math
from typing import Any

import jax
import numpy as np

from big_vision_like.training.state import TrainState


def state(exp: Any, image_size: int, seed: int = 0) -> TrainState:
  """Weights of an experiment's task, for predictions; no optimizer's slots.

  Kernels are normal with variance 1 / fan-in; batch norm changes nothing.
  """
  image = jax.ShapeDtypeStruct((1, image_size, image_size, 3), 'uint8')
  params, extra = jax.eval_shape(
    exp.task.init, jax.random.key(0), {'image': image}
  )
  rng = np.random.default_rng(seed)

  def fill(path: Any, leaf: Any) -> np.ndarray:
    if path[-1].key in ('scale', 'var'):
      return np.ones(leaf.shape, leaf.dtype)
    if path[-1].key != 'kernel':
      return np.zeros(leaf.shape, leaf.dtype)
    spread = 1 / math.sqrt(math.prod(leaf.shape[:-1]))
    return (spread * rng.normal(size=leaf.shape)).astype(leaf.dtype)

  params, extra = jax.tree_util.tree_map_with_path(fill, (params, extra))
  zero: Any = np.int32(0)
  unused: Any = np.zeros(2, np.uint32)
  return TrainState(
    step=zero,
    params=params,
    extra=extra,
    opt_state={},
    rng=unused,
    ema=None,
    nonfinite_step=zero,
  )
