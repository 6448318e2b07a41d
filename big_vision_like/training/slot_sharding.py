"""Optimizer slots split over the 'data' axis (ZeRO, stage 1).

Data-parallel devices hold equal parameters, and would hold equal slots and
repeat the same update. Instead every device keeps a part of each slot, updates
that part of the parameter, and the updates are gathered (Rajbhandari et al.
2020, section 5.1). A gradient is then needed in parts only: the compiler may
turn its all-reduce into a reduce-scatter.
"""

from collections.abc import Callable
from typing import Any

import jax
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from big_vision_like.parallel import mesh as mesh_lib


def split_update(
  tx: optax.GradientTransformation, mesh: Mesh
) -> optax.GradientTransformation:
  """`tx` with its update computed in parts; the same updates, whole again.

  Says where every value lives, for otherwise the parts would spread to what
  is computed from the parameters, batch statistics for example.
  """

  def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
    # The gradients of vectors are whole already: batch norm's backward pass
    # needs the same sums.
    grads = _place(
      updates,
      mesh,
      lambda spec, x: mesh_lib.slot_spec(spec, x, mesh) if x.ndim > 1 else spec,
    )
    updates, state = tx.update(grads, state, params)
    return _place(updates, mesh, lambda spec, _: spec), state

  return optax.GradientTransformation(tx.init, update)


def _place(
  tree: Any, mesh: Mesh, place: Callable[[PartitionSpec, Any], PartitionSpec]
) -> Any:
  """The tree of arrays, each constrained to `place(spec of its path, it)`."""
  specs = mesh_lib.specs(tree)

  def constrain(path, x):
    spec = place(specs[mesh_lib.path_name(path)], x)
    return jax.lax.with_sharding_constraint(x, NamedSharding(mesh, spec))

  return jax.tree_util.tree_map_with_path(constrain, tree)
