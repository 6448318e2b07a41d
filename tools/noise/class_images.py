"""Classes to look at, and which records of a source carry each."""

from collections.abc import Sequence

import numpy as np

from big_vision_like.protocols import Source
from input_pipeline.labels import arrays
from input_pipeline.labels import vocabulary as vocabularies

PARTS = ('head', 'torso', 'tail')


class ClassImages:
  """Records by class, from one pass over the labels; no image is read.

  Args:
    source: any source.
    filled_in: a record also counts for the ancestors of its labels.

  Raises:
    ValueError: filled_in, and the source has no hierarchy.
  """

  def __init__(self, source: Source, filled_in: bool = False):
    if filled_in and source.hierarchy is None:
      raise ValueError('--filled_in needs a hierarchy, and the data have none')
    self._vocabulary = source.vocabulary
    self._hierarchy = source.hierarchy if filled_in else None
    self._index = arrays.of(source) or arrays.build(source)
    self.num_unreadable = len(self._index.unreadable)

  def counts(self) -> np.ndarray:
    """int64 [C] records of each class."""
    parts = arrays.blocks(self._index)
    if self._hierarchy is not None:
      closure = self._hierarchy.closure
      parts = (arrays.replaced(block, closure) for block in parts)
    return arrays.counts(parts, len(self._vocabulary))

  def of(self, label: int) -> np.ndarray:
    """int64 [n] records that carry the class, ascending."""
    wanted = np.zeros(len(self._vocabulary), bool)
    wanted[label] = True
    if self._hierarchy is not None:
      closure = self._hierarchy.closure
      wanted[closure.owners[closure.values == label]] = True
    found = arrays.carrying(self._index, wanted).astype(np.int64)
    return np.setdiff1d(found, self._index.unreadable)

  def named(self, names: Sequence[str]) -> list[int]:
    """Ids of the names; ValueError for an unknown one or one without images."""
    counts = self.counts()
    labels = []
    for name in dict.fromkeys(names):
      if name not in self._vocabulary:
        near = vocabularies.suggestion(name, self._vocabulary.names)
        raise ValueError(
          f'--class_name: {name!r} is not among the {len(self._vocabulary)} '
          f'labels{near}'
        )
      label = self._vocabulary.index(name)
      if not counts[label]:
        raise ValueError(f'--class_name: no record carries {name!r}')
      labels.append(label)
    return labels

  def by_count(
    self, num: int, part: str | None = None, min_images: int = 1
  ) -> list[int]:
    """Classes at evenly spread ranks of their counts, most images first.

    Args:
      num: how many.
      part: only from the third of the ranks with most images ('head'), fewest
        ('tail') or between ('torso'); None for all.
      min_images: classes with fewer are left out.

    Raises:
      ValueError: no class has so many images.
    """
    counts = self.counts()
    ranked = np.argsort(-counts, kind='stable')
    ranked = ranked[counts[ranked] >= max(min_images, 1)]
    if not len(ranked):
      raise ValueError(
        f'no class has --min_images={min_images} images; the largest has '
        f'{counts.max()}'
      )
    if part is not None:
      thirds = np.array_split(ranked, len(PARTS))
      # Of one or two classes the first thirds have one each.
      ranked = thirds[PARTS.index(part)]
      if not len(ranked):
        raise ValueError(f'too few classes with images to have a {part}')
    places = np.linspace(0, len(ranked) - 1, min(num, len(ranked))).round()
    return ranked[places.astype(int)].tolist()
