"""The label tree of a synthetic world: shape, order and names.

Labels stand in preorder: a parent before its children, a subtree is a
contiguous range of ids, and so are the leaves of a subtree among all leaves.
That makes 'draw a leaf near this one' one binary search, for any number of
classes. The figures to imitate are those of the paper's vocabulary: 18,291
labels, depth up to 12, up to 2,876 children of one label
(Sun et al. 2017, section 3).
"""

import dataclasses
import functools
import itertools

import numpy as np

_VOWELS = 'aeiou'
_CODAS = 'lmnrsx'
_CLUSTERS = ('br', 'dr', 'gl', 'kr', 'pl', 'st', 'tr')
_ONSETS = (*'bdfgklmnprstvz', *_CLUSTERS)


@dataclasses.dataclass(frozen=True, eq=False)
class Taxonomy:
  """A forest over the labels 0..C-1, in preorder.

  Attributes:
    parent: int32 [C], -1 for a top-level group.
    level: int32 [C], links up to the top-level group (0 for a group).
    group: int32 [C], position of the label's group among the groups.
    leaves: int32 [L], the labels without children: what is drawn.
    first_leaf, last_leaf: int32 [C + 1], the leaves below label c are
      leaves[first_leaf[c]:last_leaf[c]]; a leaf is below itself; the last
      entry, c = -1, stands for the whole tree.
    names: C unique names; a child's name starts with its parent's.
  """

  parent: np.ndarray
  level: np.ndarray
  group: np.ndarray
  leaves: np.ndarray
  first_leaf: np.ndarray
  last_leaf: np.ndarray
  names: tuple[str, ...]

  @functools.cached_property
  def group_label(self) -> np.ndarray:
    """Label ids of the groups: int [G]."""
    return np.flatnonzero(self.parent < 0)

  @property
  def num_labels(self) -> int:
    return len(self.parent)

  @property
  def num_groups(self) -> int:
    return int(self.group[-1]) + 1

  def ancestors(self, label: int) -> list[int]:
    """Proper ancestors in the tree, the parent first."""
    found = []
    while (label := int(self.parent[label])) >= 0:
      found.append(label)
    return found


def default_depth(num_labels: int) -> int:
  """Links from group to leaf that suit a number of labels: 10 -> 1, 64 -> 2."""
  return max(1, round(np.log(num_labels) / np.log(8)))


def smallest(depth: int, num_groups: int = 2) -> int:
  """Labels that a tree needs: a pair on each level of one of the groups."""
  return 2 * depth + num_groups


def grow(
  num_labels: int,
  depth: int,
  rng: np.random.Generator,
  *,
  num_groups: int,
  fan_out: float,
  broadest: int = 0,
) -> Taxonomy:
  """Grows a random tree of exactly `num_labels` labels and depth `depth`.

  Args:
    num_labels: C, at least smallest(depth).
    depth: links on the longest path from a group to a leaf.
    rng: source of all choices.
    num_groups: top-level labels (one more if a split leaves a single child).
    fan_out: mean number of children of an inner label; labels left over at
      the last level become leaves of one parent, so single parents may have
      far more.
    broadest: number of children of one label added to the largest group; 0
      for none. Takes broadest + 1 of the labels.
  """
  if not broadest:
    parent = _grow_parents(num_labels, depth, num_groups, fan_out, rng)
    return _index(parent, rng)
  size = num_labels - broadest - 1
  parent = _grow_parents(size, depth, num_groups, fan_out, rng)
  family = np.full(broadest + 1, size, np.int32)
  family[0] = _largest_group(parent) if depth > 1 else -1
  parent = _preorder(np.concatenate([parent, family]))
  return _index(parent, rng)


def _grow_parents(
  size: int,
  depth: int,
  num_groups: int,
  fan_out: float,
  rng: np.random.Generator,
) -> np.ndarray:
  """Parents in preorder; recursion by a stack of (parent, level, budget)."""
  parent = np.full(size, -1, np.int32)
  if depth == 0:
    return parent
  stack = []

  def push(below: int, level: int, sizes: np.ndarray, spine: bool) -> None:
    for i in range(len(sizes) - 1, -1, -1):
      stack.append((below, level, int(sizes[i]), spine and i == 0))

  # The spine is the one path that must reach the last level.
  push(-1, 0, _split(size, num_groups, 2 * depth + 1, rng), True)
  for node in range(size):
    below, level, budget, spine = stack.pop()
    parent[node] = below
    left = depth - level
    if budget == 1:
      continue
    if left == 1:
      sizes = np.ones(budget - 1, np.int64)
    else:
      wanted = 1 + rng.geometric(1 / max(fan_out - 1, 1))
      need = 2 * left - 1 if spine else 1
      sizes = _split(budget - 1, wanted, need, rng)
    push(node, level + 1, sizes, spine)
  return parent


def _split(
  total: int, parts: int, need: int, rng: np.random.Generator
) -> np.ndarray:
  """Uneven sizes summing to `total`; the first is >= need, none is 2.

  A subtree of two labels would be a label with a single child: two names for
  the same images.
  """
  parts = max(1, min(parts, total - need + 1))
  if parts == 1 and total > need:
    parts = 2
  sizes = np.ones(parts, np.int64)
  sizes[0] = need
  free = total - int(sizes.sum())
  sizes += rng.multinomial(free, rng.dirichlet(np.full(parts, 1.5)))
  pairs = np.flatnonzero(sizes == 2)
  sizes[pairs] = 1
  for _ in pairs:
    if sizes.max() > 2:
      sizes[sizes.argmax()] += 1
    else:
      sizes = np.append(sizes, 1)
  return sizes


def _largest_group(parent: np.ndarray) -> int:
  """The group with the most labels below it; `parent` is in preorder."""
  groups = np.flatnonzero(parent < 0)
  return int(groups[np.diff(groups, append=len(parent)).argmax()])


def _preorder(parent: np.ndarray) -> np.ndarray:
  """The same tree with its nodes renumbered in preorder."""
  children: list[list[int]] = [[] for _ in range(len(parent) + 1)]
  for node, above in enumerate(parent.tolist()):
    children[above].append(node)  # -1 is the last list: the groups
  position = np.zeros(len(parent), np.int32)
  ordered = np.full(len(parent), -1, np.int32)
  stack = children[-1][::-1]
  for i in range(len(parent)):
    node = stack.pop()
    position[node] = i
    if parent[node] >= 0:
      ordered[i] = position[parent[node]]
    stack.extend(reversed(children[node]))
  return ordered


def _index(parent: np.ndarray, rng: np.random.Generator) -> Taxonomy:
  num = len(parent)
  above = parent.tolist()
  level = np.zeros(num, np.int32)
  group = np.cumsum(parent < 0, dtype=np.int32) - 1
  for node, p in enumerate(above):
    if p >= 0:
      level[node] = level[p] + 1
  is_leaf = np.ones(num, bool)
  is_leaf[parent[parent >= 0]] = False
  leaves = np.flatnonzero(is_leaf).astype(np.int32)
  size = np.ones(num, np.int32)  # of the subtree
  for node in range(num - 1, -1, -1):
    if above[node] >= 0:
      size[above[node]] += size[node]
  ends = np.concatenate([[0], np.cumsum(is_leaf)]).astype(np.int32)
  return Taxonomy(
    parent=parent,
    level=level,
    group=group,
    leaves=leaves,
    first_leaf=np.append(ends[:-1], np.int32(0)),
    last_leaf=np.append(ends[np.arange(num) + size], ends[-1]),
    names=_names(above, rng),
  )


def _names(parent: list[int], rng: np.random.Generator) -> tuple[str, ...]:
  """Pronounceable names: the parent's plus one syllable new among siblings."""
  children: dict[int, list[int]] = {}
  for node, above in enumerate(parent):
    children.setdefault(above, []).append(node)
  open_ = [a + b for a, b in itertools.product(_ONSETS, _VOWELS)]
  closed = [a + b for a, b in itertools.product(open_, _CODAS)]
  pairs = [a + b for a, b in itertools.product(open_, open_)]
  long = [a + b for a, b in itertools.product(open_, closed)]
  names = [''] * len(parent)
  for above, family in children.items():
    if above < 0:
      pool = pairs if len(family) < len(pairs) // 2 else pairs + long
      prefix = ''
    else:
      few = len(family) < len(closed) // 2
      pool = closed if few else closed + pairs
      pool = pool + long if len(family) > len(pool) // 2 else pool
      prefix = f'{names[above]}-'
    picks = rng.choice(len(pool), len(family), replace=False)
    for node, pick in zip(family, picks):
      names[node] = prefix + pool[pick]
  return tuple(names)
