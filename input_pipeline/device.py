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
