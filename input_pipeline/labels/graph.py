"""The graph behind a hierarchy: order, checks, transitive closure, counts.

Labels are nodes 0..C-1 in the order of their ids; nodes without an output id
follow. Every algorithm is iterative: a path of 10^6 nodes is an error message,
not a crash. The closure is computed level by level in topological order with
whole-level array operations, so that 70,000 nodes take a fraction of a second.
"""

import dataclasses
import itertools
from collections.abc import Sequence

import numpy as np

from big_vision_like.config import option_types
from input_pipeline.labels import ragged
from input_pipeline.labels.edge_files import Edges
from input_pipeline.labels.ragged import Ragged
from input_pipeline.labels.vocabulary import suggestion

MAX_DEPTH = 1_000  # deeper than any hierarchy of concepts: a mistake
MAX_CLOSURE = 1 << 27  # (node, ancestor) pairs, 0.5 GiB
_SHOWN = 10  # edges of a cycle in a message


@dataclasses.dataclass(frozen=True)
class Statistics:
  """Size and shape of the graph spanned by the labels and their ancestors.

  Depths are counted in edges from a root, along the longest path; children and
  parents are direct ones. Nodes without an output id are counted too, except
  in num_labels and the fields about ancestors.
  """

  num_labels: int
  num_unlisted: int  # nodes without an output id
  num_edges: int
  num_roots: int  # nodes without a parent, isolated labels included
  num_leaves: int  # nodes without a child, isolated labels included
  num_isolated: int  # labels with neither
  num_multi_parent: int
  max_depth: int
  max_children: int
  max_children_node: str
  max_parents: int
  max_ancestors: int  # with an output id, of one label
  mean_ancestors: float
  nodes_by_depth: tuple[int, ...]
  nodes_by_children: dict[int, int]  # number of children -> number of nodes


@dataclasses.dataclass(frozen=True, eq=False)
class Graph:
  """Labels, the nodes above them, and the edges among these.

  Attributes:
    names: str [N]; the first num_labels are the labels.
    child, parent: int64 [E] node indices.
    depth: int64 [N].
  """

  names: Sequence[str]
  num_labels: int
  child: np.ndarray
  parent: np.ndarray
  depth: np.ndarray
  _closure: Ragged  # of each node the ancestors and itself, int32

  def unlisted_ancestors(self) -> list[str]:
    """Names of the ancestors of labels that have no output id."""
    return list(self.names[self.num_labels :])

  def label_ancestors(self) -> Ragged:
    """Proper ancestors with an id, int32, of each label."""
    ends = self._closure.ends[: self.num_labels + 1]
    of_labels = Ragged(ends, self._closure.values[: ends[-1]])
    nodes, owners = of_labels.values, of_labels.owners
    keep = (nodes < self.num_labels) & (nodes != owners)
    lengths = np.bincount(owners[keep], minlength=self.num_labels)
    return Ragged.of_lengths(lengths, nodes[keep])

  def label_parents(self) -> Ragged:
    """Direct parents with an id, int32, of each label."""
    keep = (self.child < self.num_labels) & (self.parent < self.num_labels)
    child, parent = self.child[keep], self.parent[keep].astype(np.int32)
    return Ragged.of_pairs(child, parent, self.num_labels)

  def statistics(self) -> Statistics:
    num_nodes = len(self.names)
    children = np.bincount(self.parent, minlength=num_nodes)
    parents = np.bincount(self.child, minlength=num_nodes)
    isolated = (children + parents)[: self.num_labels] == 0
    ancestors = self.label_ancestors().lengths
    values, counts = np.unique(children, return_counts=True)
    return Statistics(
      num_labels=self.num_labels,
      num_unlisted=num_nodes - self.num_labels,
      num_edges=len(self.child),
      num_roots=int((parents == 0).sum()),
      num_leaves=int((children == 0).sum()),
      num_isolated=int(isolated.sum()),
      num_multi_parent=int((parents > 1).sum()),
      max_depth=int(self.depth.max()),
      max_children=int(children.max()),
      max_children_node=self.names[int(children.argmax())],
      max_parents=int(parents.max()),
      max_ancestors=int(ancestors.max()),
      mean_ancestors=float(ancestors.mean()),
      nodes_by_depth=tuple(np.bincount(self.depth).tolist()),
      nodes_by_children=dict(zip(values.tolist(), counts.tolist())),
    )


def refuse_unlisted(labels: Sequence[str], edges: Edges) -> None:
  """Raises ValueError for the first node that is not a label."""
  known = frozenset(labels)
  unknown: dict[str, tuple[int, str]] = {}
  for i, pair in enumerate(edges.pairs):
    for part, name in zip(('child', 'parent'), pair):
      if name not in known:
        unknown.setdefault(name, (i, part))
  if not unknown:
    return
  name, (i, part) = next(iter(unknown.items()))
  more = f' (and {len(unknown) - 1:,} more)' if len(unknown) > 1 else ''
  raise ValueError(
    f'{edges.where(i)}: {part} {name!r}{more} is not in the vocabulary'
    f'{suggestion(name, labels)}. Correct it, or list it in the vocabulary, '
    f"or say what nodes outside it mean: hierarchy_unlisted='traverse' "
    f"(ancestors are found through them) or 'add' (they become labels)"
  )


def build(labels: Sequence[str], edges: Edges, max_depth: int | None) -> Graph:
  """Checks the edges and closes the part of the graph the labels span.

  Raises:
    ValueError: self-loop, repeated edge, cycle, a path longer than max_depth,
      a closure too large, or no label in any edge; names the place.
  """
  option_types.check_value('max_depth', option_types.Count | None, max_depth)
  nodes = {name: i for i, name in enumerate(labels)}
  if len(nodes) < len(labels):
    raise ValueError(f'{len(labels) - len(nodes)} repeated label names')
  ends = [
    (nodes.setdefault(child, len(nodes)), nodes.setdefault(parent, len(nodes)))
    for child, parent in edges.pairs
  ]
  child, parent = np.array(ends, np.int64).reshape(-1, 2).T
  names = list(nodes)
  _refuse_repeats(names, child, parent, edges)
  if len(ends) and min(child.min(), parent.min()) >= len(labels):
    raise ValueError(
      f'{edges.where(0)}: no label of the vocabulary (such as {labels[0]!r}) '
      f'occurs in the hierarchy (such as {edges.pairs[0][0]!r})'
    )
  depth = _depths(names, child, parent, edges)
  limit = MAX_DEPTH if max_depth is None else min(max_depth, MAX_DEPTH)
  if depth.max() > limit:
    i = int(np.flatnonzero(depth[child] == limit + 1)[0])
    raise ValueError(
      f'{edges.where(i)}: {names[child[i]]!r} lies {limit + 1} edges below a '
      f'root; the hierarchy is {depth.max()} deep, allowed: {limit}'
    )
  above = _above_labels(len(names), len(labels), child, parent)
  number = np.cumsum(above) - 1  # labels keep their index
  kept = above[child]
  child, parent, depth = number[child[kept]], number[parent[kept]], depth[above]
  closure = _close(child, parent, depth)
  names = [name for name, keep in zip(names, above.tolist()) if keep]
  return Graph(names, len(labels), child, parent, depth, closure)


def _refuse_repeats(
  names: Sequence[str], child: np.ndarray, parent: np.ndarray, edges: Edges
) -> None:
  loops = np.flatnonzero(child == parent)
  if len(loops):
    i = int(loops[0])
    raise ValueError(f'{edges.where(i)}: {names[child[i]]!r} is its own parent')
  key = child * len(names) + parent
  order = np.argsort(key, kind='stable')
  again = np.flatnonzero(key[order[1:]] == key[order[:-1]])
  if len(again):
    second = int(order[again + 1].min())
    first = int(np.flatnonzero(key == key[second])[0])
    raise ValueError(
      f'{edges.where(second)}: edge {names[child[second]]!r} -> '
      f'{names[parent[second]]!r} is already at {edges.where(first)}'
    )


def _depths(
  names: Sequence[str], child: np.ndarray, parent: np.ndarray, edges: Edges
) -> np.ndarray:
  """int64 [N] longest path from a root (Kahn's order, parents first)."""
  num_nodes = len(names)
  by_parent = Ragged.of_pairs(parent, child, num_nodes)
  start, children = by_parent.ends.tolist(), by_parent.values.tolist()
  waiting = np.bincount(child, minlength=num_nodes).tolist()
  depth = [0] * num_nodes
  order = [node for node, count in enumerate(waiting) if count == 0]
  for node in order:  # grows while it is walked
    below = depth[node] + 1
    for i in children[start[node] : start[node + 1]]:
      if depth[i] < below:
        depth[i] = below
      waiting[i] -= 1
      if waiting[i] == 0:
        order.append(i)
  if len(order) < num_nodes:
    stuck = np.array(waiting) > 0
    raise ValueError(_describe_cycle(names, child, parent, stuck, edges))
  return np.array(depth, np.int64)


def _describe_cycle(
  names: Sequence[str],
  child: np.ndarray,
  parent: np.ndarray,
  stuck: np.ndarray,
  edges: Edges,
) -> str:
  """The edges of one cycle; every stuck node has a stuck parent."""
  upward: dict[int, int] = {}  # stuck node -> edge to a stuck parent
  for i in np.flatnonzero(stuck[child] & stuck[parent]).tolist():
    upward.setdefault(int(child[i]), i)
  node, seen = next(iter(upward)), dict[int, int]()
  path: list[int] = []
  while node not in seen:
    seen[node] = len(path)
    path.append(upward[node])
    node = int(parent[upward[node]])
  cycle = path[seen[node] :]
  shown = [
    f'{names[child[i]]!r} -> {names[parent[i]]!r} ({edges.where(i)})'
    for i in cycle[:_SHOWN]
  ]
  more = f', ... {len(cycle) - _SHOWN} more' if len(cycle) > _SHOWN else ''
  return (
    f'{edges.where(cycle[0])}: cycle of {len(cycle)} edges: '
    f'{", ".join(shown)}{more}'
  )


def _above_labels(
  num_nodes: int, num_labels: int, child: np.ndarray, parent: np.ndarray
) -> np.ndarray:
  """bool [N]: labels and their ancestors."""
  by_child = Ragged.of_pairs(child, parent, num_nodes)
  start, parents = by_child.ends.tolist(), by_child.values.tolist()
  above = [True] * num_labels + [False] * (num_nodes - num_labels)
  waiting = list(range(num_labels))
  while waiting:
    node = waiting.pop()
    for i in parents[start[node] : start[node + 1]]:
      if not above[i]:
        above[i] = True
        waiting.append(i)
  return np.array(above)


def _close(child: np.ndarray, parent: np.ndarray, depth: np.ndarray) -> Ragged:
  """Every node's ancestors and itself, ascending."""
  num_nodes = len(depth)
  order = np.lexsort((child, depth[child]))
  child, parent = child[order], parent[order]
  bounds = np.searchsorted(depth[child], np.arange(1, depth.max() + 2))
  start = np.zeros(num_nodes, np.int64)
  length = np.zeros(num_nodes, np.int64)
  roots = np.flatnonzero(depth == 0)
  start[roots], length[roots] = np.arange(len(roots)), 1
  store = np.empty(max(4 * num_nodes, 16), np.int32)
  store[: len(roots)] = roots
  used = len(roots)
  for begin, end in itertools.pairwise(bounds.tolist()):
    own, up = child[begin:end], parent[begin:end]  # own is ascending
    members, row = np.unique(own, return_inverse=True)
    sizes = length[up]
    if used + sizes.sum() > MAX_CLOSURE:
      raise ValueError(
        f'the hierarchy has more than {MAX_CLOSURE:,} (node, ancestor) pairs'
      )
    taken = store[ragged.positions(start[up], sizes)]
    keys = np.concatenate(
      [
        np.repeat(row, sizes) * num_nodes + taken,
        np.arange(len(members)) * num_nodes + members,
      ]
    )
    keys = np.unique(keys)
    row, nodes = np.divmod(keys, num_nodes)
    length[members] = np.bincount(row, minlength=len(members))
    start[members] = used + np.cumsum(length[members]) - length[members]
    if used + len(nodes) > len(store):
      grown = np.empty(2 * (used + len(nodes)), np.int32)
      grown[:used] = store[:used]
      store = grown
    store[used : used + len(nodes)] = nodes
    used += len(nodes)
  return Ragged.of_lengths(length, store[ragged.positions(start, length)])
