"""Host batches to global device arrays. The only module here that uses jax."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np


def to_global(batch: Mapping[str, np.ndarray], sharding: Any) -> dict[str, Any]:
  """Places this process's part of a batch as part of the global arrays.

  Args:
    batch: dict of [B / processes, ...] numpy arrays.
    sharding: `NamedSharding` of the batch axis over the mesh.

  Returns:
    dict of [B, ...] global arrays; the transfer is asynchronous.
  """
  return {
    k: jax.make_array_from_process_local_data(sharding, v)
    for k, v in batch.items()
  }


def process_part(sharding: Any, batch_size: int) -> tuple[int, int]:
  """(index, count): this process holds part `index` of `count` of the rows.

  Raises:
    ValueError: its rows are no contiguous part of equal size.
  """
  placed = sharding.addressable_devices_indices_map((batch_size,))
  spans = sorted({rows[0].indices(batch_size)[:2] for rows in placed.values()})
  first, last = spans[0][0], spans[-1][1]
  num = sum(stop - start for start, stop in spans)
  if last - first != num or batch_size % num or first % num:
    raise ValueError(
      f'the rows {spans} of process {jax.process_index()} are no contiguous '
      f'part of a batch of {batch_size}: choose mesh.data and mesh.model so '
      'that the devices of a process lie together'
    )
  return first // num, batch_size // num
