"""Sharding constraints that are no-ops where there is no mesh.

Model and loss code is written once, for one device and for many. The mesh
comes from the context (`with jax.set_mesh(mesh):` around the traced call) and
has the axes 'data' and 'model'. Batches lie over both axes, the classes of a
classifier over 'model'; docs/sharding.md draws the picture.
"""

import math

import jax
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

BATCH = ('data', 'model')  # the axes a batch dimension is split over


def mesh_axes() -> dict[str, int]:
  """Sizes of the context mesh's axes that the compiler may still split.

  Empty without a mesh. Axes that an enclosing `shard_map` has made manual are
  left out: code inside it sees its own shard only.
  """
  mesh = jax.sharding.get_abstract_mesh()
  return {
    name: size
    for name, size, kind in zip(
      mesh.axis_names, mesh.axis_sizes, mesh.axis_types, strict=True
    )
    if kind != AxisType.Manual
  }


def platform() -> str:
  """'cpu', 'gpu' or 'tpu': that of the context mesh, else JAX's default.

  A program may be compiled for devices that this machine does not have.
  """
  device = getattr(jax.sharding.get_abstract_mesh(), 'abstract_device', None)
  return getattr(device, 'platform', None) or jax.default_backend()


def check_divisible(
  shape: tuple[int, ...], spec: tuple[str | tuple[str, ...] | None, ...]
) -> None:
  """Checks that the context mesh splits `shape` evenly.

  Args:
    shape: shape of the array.
    spec: mesh axis (or axes) of each leading dimension, None for whole ones.

  Raises:
    ValueError: a dimension that its axes do not divide; jax shards evenly.
  """
  sizes = mesh_axes()
  for dim, names in enumerate(spec):
    names = (names,) if isinstance(names, str) else names or ()
    parts = math.prod(sizes.get(name, 1) for name in names)
    if shape[dim] % parts:
      raise ValueError(
        f'dimension {dim} of shape {tuple(shape)} is {shape[dim]}, which the '
        f'{parts} devices of mesh axis {"x".join(names)} do not divide: '
        'change the batch size, the class padding (class_multiple) or the mesh'
      )


def constrain(x: jax.Array, *spec: str | tuple[str, ...] | None) -> jax.Array:
  """Asks the compiler to lay `x` out over the context mesh.

  Args:
    x: array of any shape.
    *spec: mesh axis (or axes) of each leading dimension, None for whole ones.

  Returns:
    `x` with the constraint; `x` itself where no mesh with these axes is set.

  Raises:
    ValueError: the mesh does not divide a dimension.
  """
  sizes = mesh_axes()
  used = [n for s in spec for n in ((s,) if isinstance(s, str) else s or ())]
  if not used or any(name not in sizes for name in used):
    return x
  check_divisible(x.shape, spec)
  return jax.lax.with_sharding_constraint(x, P(*spec))
