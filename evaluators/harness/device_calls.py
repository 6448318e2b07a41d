"""A function of a state and a batch on the devices; the host keeps the rest.

Of a batch only what the function reads is sent to the devices, and nothing of
it comes back: masks that are compared there never travel twice, and what only
the host wants stays where it is.
"""

from collections.abc import Collection, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from big_vision_like.parallel import mesh as mesh_lib
from evaluators.harness.context import Outputs, PredictFn
from input_pipeline import device


class DeviceCall:
  """`fn(state, batch)`, compiled at its first call.

  Args:
    fn: traceable; returns a dict of [B, ...] arrays.
    mesh: of the devices; None: one device.
    fields: of the batch, given back beside what `fn` returns.
    num_parts: how many parts of a batch lie in different processes. `fields` of
      a single part never leave the host; those of several are gathered through
      the devices, so that every process has them whole.
  """

  def __init__(
    self,
    fn: PredictFn,
    mesh: Mesh | None,
    fields: Collection[str],
    *,
    num_parts: int = 1,
  ):
    self._fn = jax.jit(fn)
    self._mesh = mesh
    self._num_parts = num_parts
    self._gathered = frozenset(fields if num_parts > 1 else ())
    self._kept = frozenset(fields) - self._gathered
    self._unread: dict[str, jax.ShapeDtypeStruct] | None = None
    whole = None if mesh is None else NamedSharding(mesh, PartitionSpec())
    self._run = jax.jit(self._outputs, out_shardings=whole)

  def __call__(
    self, state: Any, batch: Mapping[str, np.ndarray]
  ) -> tuple[Outputs, Outputs]:
    """(outputs, fields) of a batch, of which this process has its part."""
    if self._mesh is None:
      outputs, gathered = self._run(state, self._sent(state, batch))
    else:
      sharding = mesh_lib.batch_sharding(self._mesh)
      with jax.set_mesh(self._mesh):
        sent = device.to_global(self._sent(state, batch), sharding)
        outputs, gathered = self._run(state, sent)
    return outputs, gathered | {name: batch[name] for name in self._kept}

  def _sent(
    self, state: Any, batch: Mapping[str, np.ndarray]
  ) -> dict[str, np.ndarray]:
    """What the devices need of a batch; the first one tells."""
    if self._unread is None:
      specs = {name: self._spec(value) for name, value in batch.items()}
      wanted = fields_read(self._fn, state, specs) | self._gathered
      self._unread = {k: v for k, v in specs.items() if k not in wanted}
    return {k: v for k, v in batch.items() if k not in self._unread}

  def _outputs(self, state: Any, sent: Outputs) -> tuple[Outputs, Outputs]:
    """Traced: what `fn` returns, and what the other processes need."""
    assert self._unread is not None
    unread = {k: jnp.zeros(v.shape, v.dtype) for k, v in self._unread.items()}
    return (
      self._fn(state, unread | sent),
      {name: sent[name] for name in self._gathered},
    )

  def _spec(self, part: np.ndarray) -> jax.ShapeDtypeStruct:
    shape = (len(part) * self._num_parts, *part.shape[1:])
    if self._mesh is None:
      return jax.ShapeDtypeStruct(shape, part.dtype)
    sharding = mesh_lib.batch_sharding(self._mesh)
    return jax.ShapeDtypeStruct(shape, part.dtype, sharding=sharding)


def fields_read(
  fn: Any, state: Any, batch: Mapping[str, Any]
) -> frozenset[str]:
  """Fields of a batch on whose values the outputs of a jitted function depend.

  One of which only the shape is read is not among them.
  """
  jaxpr = fn.trace(state, batch).jaxpr.jaxpr
  names = jax.tree.leaves({name: name for name in batch})
  used = {id(v) for equation in jaxpr.eqns for v in equation.invars}
  used |= {id(v) for v in jaxpr.outvars}
  inputs = jaxpr.invars[len(jaxpr.invars) - len(names) :]
  return frozenset(n for n, v in zip(names, inputs) if id(v) in used)
