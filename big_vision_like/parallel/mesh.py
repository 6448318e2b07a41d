"""The device mesh, and which parameter lives where on it.

Axes: 'data' and 'model'. The batch is split over both; the classifier's class
axis over 'model'; all other parameters are replicated, those of a head for
pixels or boxes among them. Model code stays plain: one table of (path pattern,
PartitionSpec) places the parameters, and optimizer slots and averages follow
their parameter because their paths end in its path.
The copies that asynchronous workers hold are split over 'data' by worker.
See docs/sharding.md.
"""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

AXES = ('data', 'model')
Rules = Sequence[tuple[str, PartitionSpec]]

# Arrays whose leading axis is that of the workers (downpour.py).
WORKERS = 'workers/params/'
# Optimizer slots, which `shard_slots` splits over 'data' besides.
SLOTS = 'opt_state/slots/'

# First match wins, among the specs of as many dims as the array: a kernel of a
# convolution [h, w, D, C] is replicated, whatever its name, and so is its bias.
RULES: Rules = (
  (r'(^|/)head/kernel$', PartitionSpec(None, 'model')),
  (r'(^|/)head/bias$', PartitionSpec('model')),
)


def shape(config: Mapping[str, int], num_devices: int) -> tuple[int, int]:
  """Resolves mesh.data and mesh.model (-1: all remaining devices).

  Raises:
    ValueError: sizes that do not multiply to the number of devices.
  """
  sizes = {axis: int(config[axis]) for axis in AXES}
  free = [axis for axis, size in sizes.items() if size == -1]
  if len(free) > 1:
    raise ValueError('only one of mesh.data, mesh.model may be -1')
  known = math.prod(size for size in sizes.values() if size != -1)
  if free and num_devices % known == 0:
    sizes[free[0]] = num_devices // known
  if math.prod(sizes.values()) != num_devices:
    raise ValueError(
      f'mesh.data={config["data"]} x mesh.model={config["model"]} does not fit '
      f'the {num_devices} devices'
    )
  return sizes['data'], sizes['model']


def create(
  config: Mapping[str, int], devices: Sequence[Any] | None = None
) -> Mesh:
  """The mesh over all devices (or the given ones)."""
  devices = list(jax.devices() if devices is None else devices)
  return jax.make_mesh(
    shape(config, len(devices)),
    AXES,
    axis_types=(AxisType.Auto,) * len(AXES),
    devices=devices,
  )


def batch_sharding(mesh: Mesh) -> NamedSharding:
  """Batch arrays: the leading axis over all devices."""
  return NamedSharding(mesh, PartitionSpec(AXES))


def check_batch(mesh: Mesh, batch_size: int, where: str) -> None:
  """Raises ValueError unless the devices divide the batch."""
  if batch_size < 1 or batch_size % mesh.size:
    raise ValueError(
      f'{where}={batch_size} must be a positive multiple of the {mesh.size} '
      f'devices of the mesh {dict(mesh.shape)}'
    )


def path_name(path: Sequence[Any]) -> str:
  """'a/b/c' for a key path of jax.tree_util."""
  keys = (
    getattr(k, 'key', getattr(k, 'name', getattr(k, 'idx', k))) for k in path
  )
  return '/'.join(str(k) for k in keys)


def spec_for(name: str, rank: int, rules: Rules = RULES) -> PartitionSpec:
  """PartitionSpec of the array at a path, by its name and rank alone.

  Args:
    name: its path.
    rank: its number of dims; of copies for workers, their axis included.
    rules: table of (path pattern, PartitionSpec).

  Returns:
    that of one copy; empty for what no rule is for.
  """
  rank -= name.startswith(WORKERS)
  for pattern, spec in rules:
    if re.search(pattern, name) and rank == len(spec):
      return spec
  return PartitionSpec()


def specs(tree: Any, rules: Rules = RULES) -> dict[str, PartitionSpec]:
  """`spec_for` of every array of a tree, by its path.

  But a bias is split only beside a kernel that is: that of a 1x1 convolution
  has the name and the rank of the classifier's.
  """
  leaves = jax.tree_util.tree_leaves_with_path(tree)
  ranks = {path_name(path): len(leaf.shape) for path, leaf in leaves}
  found = {name: spec_for(name, rank, rules) for name, rank in ranks.items()}
  for name in ranks:
    kernel = re.sub('(^|/)bias$', r'\1kernel', name)
    if not found.get(kernel, found[name]):
      found[name] = PartitionSpec()
  return found


def shardings(
  tree: Any, mesh: Mesh, rules: Rules = RULES, shard_slots: bool = False
) -> Any:
  """Tree of NamedSharding for a tree of arrays or ShapeDtypeStructs.

  Args:
    tree: a TrainState, or any part of one.
    mesh: device mesh with axes 'data' and 'model'.
    rules: table of (path pattern, PartitionSpec).
    shard_slots: split optimizer slots over 'data' too, instead of a copy on
      every device (optimizer state partitioning, ZeRO stage 1: Rajbhandari et
      al. 2020, section 5.1).

  Raises:
    ValueError: the mesh does not divide a partitioned axis.
  """

  by_name = specs(tree, rules)

  def place(path, leaf):
    name = path_name(path)
    spec = by_name[name]
    if name.startswith(WORKERS):
      spec = _worker_spec(spec, leaf, mesh)
    elif shard_slots and name.startswith(SLOTS):
      spec = slot_spec(spec, leaf, mesh)
    for size, axis in zip(leaf.shape, spec):
      if axis is not None and size % mesh.shape[axis]:
        raise ValueError(
          f'{name} has {size} columns, not a multiple of mesh.{axis}='
          f'{mesh.shape[axis]}; set task.class_multiple to a multiple of '
          f'{mesh.shape[axis]}'
        )
    return NamedSharding(mesh, spec)

  return jax.tree_util.tree_map_with_path(place, tree)


def _worker_spec(inner: PartitionSpec, leaf: Any, mesh: Mesh) -> PartitionSpec:
  """As the parameter, after the axis of workers, which is split if it can."""
  split = leaf.shape[0] % mesh.shape['data'] == 0
  if not split and not inner:
    return PartitionSpec()
  return PartitionSpec('data' if split else None, *inner)


def slot_spec(spec: PartitionSpec, leaf: Any, mesh: Mesh) -> PartitionSpec:
  """PartitionSpec of split slots: the parameter's, with 'data' besides.

  'data' goes to the first dim that is whole and that it divides; where there
  is none the slot stays as the parameter.
  """
  num = mesh.shape['data']
  axes = [*spec, *(None for _ in leaf.shape[len(spec) :])]
  for dim, size in enumerate(leaf.shape):
    if num > 1 and axes[dim] is None and size % num == 0:
      return PartitionSpec(*axes[:dim], 'data', *axes[dim + 1 :])
  return spec
