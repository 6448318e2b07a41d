"""Which parameter server would hold which variable.

The paper (Sun et al. 2017, section 4): 17 servers; the last fully connected
layer is cut vertically, by output, into 50 layers of equal size, spread over
the servers. Variables go to the servers in turn, as TensorFlow's
replica_device_setter places them, and optimizer slots to their variable's.

The table changes nothing in what is computed: the simulated servers
(downpour.py) apply a push as a whole, and devices hold what mesh.py says.
"""

import dataclasses
import math
from typing import Any

import jax

from big_vision_like.parallel import mesh as mesh_lib
from big_vision_like.training import optim
from big_vision_like.training.state import TrainState


@dataclasses.dataclass(frozen=True)
class Server:
  """What one server holds.

  Attributes:
    variables: names of the whole arrays.
    shards: indices of the head's shards; shard k is columns k w to (k + 1) w
      of every array of the head, w being their equal width.
    variable_bytes: of the arrays and shards.
    slot_bytes: of their optimizer slots.
  """

  variables: tuple[str, ...]
  shards: tuple[int, ...]
  variable_bytes: int
  slot_bytes: int


def check_shards(class_multiple: int, head_shards: int) -> None:
  """Raises ValueError unless the head can be cut into equal shards."""
  if class_multiple % head_shards:
    raise ValueError(
      f'train.downpour.head_shards={head_shards} does not divide '
      f'task.class_multiple={class_multiple}: the shards of the head would not '
      f'be equal; set task.class_multiple to a multiple of {head_shards}'
    )


def place(state: TrainState, servers: int, head_shards: int) -> list[Server]:
  """The servers, each with its variables and shards of the head.

  Args:
    state: of arrays or ShapeDtypeStructs; its params and extra are placed.
    servers: number of servers.
    head_shards: number of vertical cuts of the head, that is of the params
      whose last axis is the classes'.

  Raises:
    ValueError: the shards would not be equal.
  """
  slots, specs = _slot_bytes(state), mesh_lib.specs(state.params)
  sizes: dict[str, tuple[int, int]] = {}  # name -> bytes, bytes of its slots
  shard = [0, 0]
  for item in ('params', 'extra'):
    leaves = jax.tree_util.tree_leaves_with_path(getattr(state, item))
    for path, leaf in leaves:
      name = mesh_lib.path_name(path)
      own = _num_bytes(leaf), slots.get(name, 0) if item == 'params' else 0
      if item == 'params' and specs[name]:
        check_shards(leaf.shape[-1], head_shards)
        shard = [a + b // head_shards for a, b in zip(shard, own)]
      else:
        sizes[f'{item}/{name}'] = own
  num_shards = head_shards if any(shard) else 0
  names, table = list(sizes), []
  for i in range(servers):
    mine = tuple(names[i::servers])
    first = (i - len(names)) % servers  # the turn goes on from the variables
    cuts = tuple(range(first, num_shards, servers))
    total = [
      sum(sizes[name][k] for name in mine) + len(cuts) * shard[k]
      for k in (0, 1)
    ]
    table.append(Server(mine, cuts, *total))
  return table


def describe(state: TrainState, servers: int, head_shards: int) -> str:
  """The table as text, one line a server."""
  table = place(state, servers, head_shards)
  mib = lambda n: f'{n / 2**20:10.2f} MiB'
  lines = [
    f'parameter servers: {servers}, simulated; the head in '
    f'{sum(len(s.shards) for s in table)} shards{_width(state, head_shards)}',
    '  server  variables       bytes    with slots  shards of the head',
  ]
  for i, server in enumerate(table):
    both = server.variable_bytes + server.slot_bytes
    lines.append(
      f'  {i:6d}  {len(server.variables):9d}{mib(server.variable_bytes)}'
      f'{mib(both)}  {" ".join(map(str, server.shards)) or "-"}'
    )
  return '\n'.join(lines)


def _width(state: TrainState, head_shards: int) -> str:
  specs = mesh_lib.specs(state.params)
  for path, leaf in jax.tree_util.tree_leaves_with_path(state.params):
    if specs[mesh_lib.path_name(path)]:
      return f' of {leaf.shape[-1] // head_shards} columns'
  return ''


def _slot_bytes(state: TrainState) -> dict[str, int]:
  """Name of a parameter -> bytes of its optimizer slots."""
  found: dict[str, int] = {}
  for tree in optim.slot_trees(state.opt_state).values():
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
      name = mesh_lib.path_name(path)
      found[name] = found.get(name, 0) + _num_bytes(leaf)
  return found


def _num_bytes(leaf: Any) -> int:
  return math.prod(leaf.shape) * leaf.dtype.itemsize
