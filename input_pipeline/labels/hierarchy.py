"""Label hierarchy: a DAG of child -> parent edges, validated and closed.

An image labelled *apple* also counts as *fruit* (Sun et al. 2017, section 3.1:
the hierarchy completes missing labels). `Hierarchy.close` adds to the labels
of an image all their ancestors, from a closure computed once as CSR; no array
of classes x classes exists. File formats and rules: docs/label-hierarchy.md.
"""

import dataclasses
import functools
from collections.abc import Iterable, Sequence
from typing import Literal

import numpy as np

from big_vision_like.config import option_types
from input_pipeline.labels import edge_files
from input_pipeline.labels import graph as label_graph
from input_pipeline.labels.graph import Statistics
from input_pipeline.labels.ragged import Ragged
from input_pipeline.labels.vocabulary import Vocabulary

# What nodes outside the vocabulary mean.
Unlisted = Literal['error', 'traverse', 'add']
_NotAdded = Literal['error', 'traverse']


@dataclasses.dataclass(frozen=True, eq=False)
class Hierarchy:
  """The closed DAG over C labels.

  Attributes:
    ancestors: int32, the proper ancestors of each label that have an output
      id, ascending.
    parents: int32, the direct parents of each label that have an output id,
      ascending.
    depth: int32 [C] edges on the longest path from a root, nodes without an
      output id included.
    num_labels: C.
    statistics: size and shape of the graph that the labels span.
  """

  ancestors: Ragged
  parents: Ragged
  depth: np.ndarray
  num_labels: int
  statistics: Statistics

  @classmethod
  def from_edges(
    cls,
    names: Sequence[str],
    edges: Iterable[tuple[str, str]],
    *,
    max_depth: int | None = None,
    unlisted: str = 'error',
  ) -> 'Hierarchy':
    """Builds it from (child, parent) names.

    Args:
      names: the labels in the order of their ids, unique.
      edges: (child, parent) pairs.
      max_depth: longest path allowed, in edges; None for no limit of one's
        own.
      unlisted: what an edge between nodes outside `names` means: 'error', or
        'traverse' (ancestors are found through it; it is no target).

    Raises:
      ValueError: unknown node, self-loop, repeated edge, cycle or too deep.
    """
    option_types.check_value('unlisted', _NotAdded, unlisted)
    given = edge_files.Edges(list(edges), lambda i: f'edge {i + 1}')
    return _build(tuple(names), given, max_depth, unlisted)

  @functools.cached_property
  def _closed(self) -> tuple[list[int], np.ndarray]:
    """(ends, values) of the closure; `close` slices by a list, it is faster."""
    own = np.arange(self.num_labels)
    rows = Ragged.of_pairs(
      np.concatenate([self.ancestors.owners, own]),
      np.concatenate([self.ancestors.values, own.astype(np.int32)]),
      self.num_labels,
    )
    return rows.ends.tolist(), rows.values

  @property
  def closure(self) -> Ragged:
    """Each label's ancestors and the label itself, int32, ascending."""
    ends, closed = self._closed
    return Ragged(np.array(ends, np.int64), closed)

  def close(self, ids: np.ndarray) -> np.ndarray:
    """Labels with all their ancestors.

    Args:
      ids: integer [n] label ids, any order, repeats allowed.

    Returns:
      int32 [m] ascending unique ids.

    Raises:
      ValueError: an id outside 0..C-1.
    """
    ends, closed = self._closed
    labels = ids.tolist()
    if not labels:
      return np.empty(0, np.int32)
    if min(labels) < 0 or max(labels) >= self.num_labels:
      raise ValueError(
        f'label ids {labels} are not all in 0..{self.num_labels - 1}'
      )
    if len(labels) == 1:
      i = labels[0]
      return closed[ends[i] : ends[i + 1]].copy()
    merged = np.concatenate([closed[ends[i] : ends[i + 1]] for i in labels])
    merged.sort()
    keep = np.empty(len(merged), bool)
    keep[0] = True
    np.not_equal(merged[1:], merged[:-1], out=keep[1:])
    return merged[keep]

  def close_counts(self, counts: np.ndarray) -> np.ndarray:
    """Images per label after fill-in, from images per label before.

    Each label's images count for its ancestors too; an image with two labels
    below one ancestor counts there twice, so these are upper bounds.

    Args:
      counts: integer [C].

    Returns:
      int64 [C].
    """
    closed = np.array(counts, np.int64)
    above = self.ancestors
    np.add.at(closed, above.values, np.repeat(counts, above.lengths))
    return closed


def load(
  path: str,
  vocabulary: Vocabulary,
  *,
  unlisted: str = 'error',
  max_depth: int | None = None,
) -> Hierarchy:
  """Reads a hierarchy (edge_files.py has the formats).

  Args:
    path: file of child -> parent edges.
    vocabulary: the labels; other nodes of the file have no output.
    unlisted: 'error' refuses nodes outside the vocabulary, 'traverse' finds
      ancestors through them.
    max_depth: longest path allowed, in edges.

  Raises:
    FileNotFoundError: no such file.
    ValueError: malformed line, unknown node, self-loop, repeated edge, cycle,
      too deep; names the file and the line.
  """
  option_types.check_value('unlisted', _NotAdded, unlisted)
  edges = edge_files.read(path)
  return _build(vocabulary.names, edges, max_depth, unlisted)


def attach(
  vocabulary: Vocabulary,
  path: str | None,
  *,
  unlisted: str = 'error',
  max_depth: int | None = None,
) -> tuple[Vocabulary, Hierarchy | None]:
  """Vocabulary and hierarchy of a data set, as its options describe them.

  Args:
    vocabulary: labels of the data set.
    path: hierarchy file; None for the vocabulary's own `parents`, if any.
    unlisted: 'error' | 'traverse' as in `load`, or 'add': ancestors of labels
      that are outside the vocabulary become labels themselves, appended in
      alphabetical order with zero training images.
    max_depth: longest path allowed, in edges.

  Returns:
    The vocabulary (longer than the given one only under 'add') and its
    hierarchy, None if there is neither a path nor `parents`.
  """
  option_types.check_value('hierarchy_unlisted', Unlisted, unlisted)
  if path is not None:
    edges = edge_files.read(path)
  elif vocabulary.parents is not None:
    edges = edge_files.of_vocabulary(vocabulary)
  else:
    return vocabulary, None
  if unlisted == 'add':
    graph = label_graph.build(vocabulary.names, edges, None)
    added = sorted(graph.unlisted_ancestors())
    vocabulary = _extended(vocabulary, added)
    unlisted = 'traverse'  # what is left lies above no label
  return vocabulary, _build(vocabulary.names, edges, max_depth, unlisted)


def restrict(
  vocabulary: Vocabulary,
  hierarchy: Hierarchy | None,
  labels: np.ndarray,
  *,
  keep_ids: bool = False,
) -> tuple[Vocabulary, Hierarchy | None]:
  """Vocabulary and hierarchy of some of the labels.

  Of two labels kept, one is the other's ancestor if it was before, through
  whatever labels or nodes in between.

  Args:
    vocabulary: C labels.
    hierarchy: theirs, or None.
    labels: integer [k] ids to keep, ascending and unique.
    keep_ids: all C labels keep their ids, and those not in `labels` lose their
      edges and counts; else the k labels get ids 0..k-1 in their order.
  """
  kept = np.zeros(len(vocabulary), bool)
  kept[labels] = True
  if not keep_ids:
    new = vocabulary.restricted(labels.tolist())
  elif vocabulary.counts is None:
    new = vocabulary
  else:
    counts = np.where(kept, vocabulary.counts, 0)
    new = dataclasses.replace(vocabulary, counts=counts)
  if hierarchy is None:
    return new, None
  edges = [
    (vocabulary.names[child], vocabulary.names[parent])
    for child in labels.tolist()
    for parent in _nearest(hierarchy, child, kept)
  ]
  closed = Hierarchy.from_edges(new.names, edges)
  if new.parents is not None:
    parents: list[tuple[str, ...]] = [
      tuple(new.names[p] for p in row) for row in closed.parents
    ]
    new = dataclasses.replace(new, parents=tuple(parents))
  return new, closed


def _nearest(hierarchy: Hierarchy, label: int, kept: np.ndarray) -> list[int]:
  """Kept parents of a label, and kept ancestors with none kept in between."""

  def above(node: int) -> np.ndarray:
    ancestors = hierarchy.ancestors[node]
    return ancestors[kept[ancestors]]

  ancestors = above(label)
  if len(ancestors) < 2:
    return ancestors.tolist()
  further = np.concatenate([above(node) for node in ancestors.tolist()])
  direct = ~np.isin(ancestors, further)
  direct |= np.isin(ancestors, hierarchy.parents[label])
  return ancestors[direct].tolist()


def _extended(vocabulary: Vocabulary, added: Sequence[str]) -> Vocabulary:
  """The vocabulary with labels appended that no image has by itself."""
  if added and vocabulary.weights is not None:
    raise ValueError(
      f'{vocabulary.origin or "vocabulary"}: has popularity weights, so '
      f"hierarchy_unlisted='add' cannot add labels without one such as "
      f'{added[0]!r}; list them in the vocabulary'
    )
  zeros = [0] * len(added)
  counts, parents = vocabulary.counts, vocabulary.parents
  nothing = (None,) * len(added)
  known, described = vocabulary.imagenet_ids, vocabulary.descriptions
  return Vocabulary(
    (*vocabulary.names, *added),
    counts=None if counts is None else np.concatenate([counts, zeros]),
    weights=vocabulary.weights,
    parents=None if parents is None else (*parents, *((),) * len(added)),
    imagenet_ids=None if known is None else (*known, *nothing),
    descriptions=None if described is None else (*described, *nothing),
  )


def _build(
  names: Sequence[str],
  edges: edge_files.Edges,
  max_depth: int | None,
  unlisted: str,
) -> Hierarchy:
  if unlisted == 'error':
    label_graph.refuse_unlisted(names, edges)
  graph = label_graph.build(names, edges, max_depth)
  num_labels = len(names)
  ancestors, parents = graph.label_ancestors(), graph.label_parents()
  for rows in (ancestors, parents):
    rows.ends.setflags(write=False)
    rows.values.setflags(write=False)
  return Hierarchy(
    ancestors,
    parents,
    depth=graph.depth[:num_labels].astype(np.int32),
    num_labels=num_labels,
    statistics=graph.statistics(),
  )
