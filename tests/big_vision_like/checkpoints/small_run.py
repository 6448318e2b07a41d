"""Checkpoints of a few small arrays, made without a net or training."""

import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from big_vision_like.checkpoints import manager
from big_vision_like.parallel import mesh as mesh_lib
from big_vision_like.training.state import TrainState

META = {'config': {}, 'num_classes': 13}


def state(seed: int = 0, devices: Any = None) -> TrainState:
  """Arrays of float32, bfloat16 and int32, one of them split over devices."""
  mesh = mesh_lib.create(dict(data=-1, model=1), devices)
  rng = np.random.default_rng(seed)
  whole = NamedSharding(mesh, PartitionSpec())
  split = NamedSharding(mesh, PartitionSpec('data'))
  placed = lambda x, where=whole: jax.device_put(x, where)
  noise = lambda *shape: rng.standard_normal(shape, np.float32)
  return TrainState(
    step=placed(np.int32(0)),
    params={
      'kernel': placed(noise(64, 8), split),
      'half': placed(noise(40).astype(jnp.bfloat16)),
    },
    extra={'batch_stats': {'mean': placed(noise(8))}},
    opt_state={
      'nu': placed(noise(64, 8)),
      'counts': placed(rng.integers(0, 9, 30, np.int32)),
    },
    rng=placed(jax.random.key(seed)),
    ema=None,
    nonfinite_step=placed(np.int32(-1)),
  )


def save(folder: pathlib.Path, *steps: int, **options: Any) -> pathlib.Path:
  """Saves such a state at steps; returns the folder of the checkpoints."""
  ckpt = manager.Checkpointer(str(folder), **options)
  for step in steps:
    ckpt.save(step, state(step), {**META, 'step': step})
    ckpt.wait()
  ckpt.close()
  return ckpt.folder
