"""Work on images one by one, on the device that has them.

How often a loop runs that suppresses or assigns boxes depends on the images.
Mapped over a batch it runs until the last image is done; split over devices by
the compiler, all would ask each other at every turn whether they are, and a
map that is read or written at places of its own would travel. So each device
works off its own images.
"""

from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import PartitionSpec as P

from big_vision_like.parallel import constraints


def run(program: Callable[..., Any], *batch: Any) -> Any:
  """program(*batch), on every device with its own images.

  Args:
    program: of trees of arrays [B, ...] to a tree of arrays [B, ...], each
      image by itself. It may close over constants, not over traced arrays.
    *batch: trees of arrays [B, ...].

  Raises:
    ValueError: the mesh does not divide the batch.
  """
  if not {'data', 'model'} <= constraints.mesh_axes().keys():
    return program(*batch)
  leaves = jax.tree.leaves(batch)
  constraints.check_divisible(leaves[0].shape, (constraints.BATCH,))
  return jax.shard_map(
    program,
    in_specs=P(constraints.BATCH),
    out_specs=P(constraints.BATCH),
    axis_names={'data', 'model'},
    check_vma=False,  # loops start from constants, which do not vary
  )(*batch)


def mapped(program: Callable[..., Any], *batch: Any) -> Any:
  """`run` of a program of one image: it is mapped over the batch."""
  return run(jax.vmap(program), *batch)
