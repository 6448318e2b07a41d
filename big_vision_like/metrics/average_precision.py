"""Average precision of groups of ranked entries, by one sort.

The definition's open choices (what is ranked, where it is cut, what counts)
are RankingOptions; docs/map-at-100.md explains them. Non-interpolated: the
mean over a group's positives of the precision at the rank of each.
"""

import dataclasses
from typing import Literal

import numpy as np

from big_vision_like.config import option_types
from big_vision_like.config.option_types import Count

Vocab = Literal['annotated', 'all']
Axis = Literal['class', 'image', 'pooled']
Cut = Literal['per_image', 'per_class', 'none']
Unknown = Literal['negative', 'ignore']
Denominator = Literal['all_positives', 'min_n_k', 'retrieved']


@dataclasses.dataclass(frozen=True)
class RankingOptions:
  """The open choices of the definition; see docs/map-at-100.md.

  Attributes:
    k: number of predictions an image (or of images a class) keeps.
    vocab: classes that compete: 'annotated' ones only, or 'all'.
    axis: what average precision is taken of: each 'class' over images, each
      'image' over classes, or all (image, class) pairs 'pooled'.
    cut: who keeps k: 'per_image', 'per_class', or 'none'.
    denominator: positives that count: 'all_positives', at most k of them
      ('min_n_k'), or those that survived the cut ('retrieved').
    normalise_weights: divide by the sum of the weights (else by nothing for
      axis='class', by the number of positives for the other two).
    unknown: a class that an image is not labelled with counts against it
      ('negative'), or only where its absence was verified ('ignore'): all
      other pairs of image and class are dropped before the cut.
  """

  k: Count = 100
  vocab: Vocab = 'annotated'
  axis: Axis = 'class'
  cut: Cut = 'per_image'
  denominator: Denominator = 'all_positives'
  normalise_weights: bool = True
  unknown: Unknown = 'negative'

  def __post_init__(self):
    option_types.check_fields('', self)
    if self.cut == 'none' and self.denominator == 'min_n_k':
      raise ValueError(
        "denominator='min_n_k' needs a cut at k; cut is 'none' (valid: "
        'all_positives, retrieved)'
      )


@dataclasses.dataclass(frozen=True)
class RankedEntries:
  """Ranked entries [m] and positive labels [p], images numbered by id."""

  classes: np.ndarray
  score: np.ndarray
  image: np.ndarray
  hit: np.ndarray
  label_class: np.ndarray
  label_image: np.ndarray


def average_precision(
  table: RankedEntries,
  options: RankingOptions,
  gains: np.ndarray | None,
  sizes: tuple[int, int],
) -> np.ndarray:
  """AP of each group; a hit of class c counts gains[c] (None: one)."""
  classes, image = table.classes, table.image
  if options.axis == 'class':
    order = np.lexsort((image, -table.score, classes))
    group, label_group, num_groups = classes, table.label_class, sizes[0]
  elif options.axis == 'image':
    order = np.lexsort((classes, -table.score, image))
    group, label_group, num_groups = image, table.label_image, sizes[1]
  else:
    order = np.lexsort((classes, image, -table.score))
    group = np.zeros_like(classes)
    label_group, num_groups = np.zeros_like(table.label_class), 1
  group = group[order]
  hits = np.flatnonzero(table.hit[order])
  start = segment_starts(group)[hits]
  precision = (np.arange(len(hits)) - np.searchsorted(hits, start) + 1) / (
    hits - start + 1
  )
  group, hit_class = group[hits], classes[order[hits]]
  gain = np.ones(len(hits)) if gains is None else gains[hit_class]
  total = np.bincount(group, gain * precision, num_groups)
  label_gain = (
    np.ones(len(label_group)) if gains is None else gains[table.label_class]
  )
  if not options.normalise_weights:
    gain, label_gain = np.ones_like(gain), np.ones_like(label_gain)
  positives = np.bincount(label_group, label_gain, num_groups)
  reachable = positives
  if options.denominator == 'retrieved':
    reachable = np.bincount(group, gain, num_groups)
  elif options.denominator == 'min_n_k':
    limit = label_group
    if options.axis == 'pooled':
      per_image = options.cut == 'per_image'
      limit = table.label_image if per_image else table.label_class
    best = np.lexsort((-label_gain, limit))
    rank = np.arange(len(best)) - segment_starts(limit[best])
    best = best[rank < options.k]
    reachable = np.bincount(label_group[best], label_gain[best], num_groups)
  result = np.full(num_groups, np.nan)
  np.divide(total, reachable, out=result, where=reachable > 0)
  result[(positives > 0) & (reachable == 0)] = 0.0
  return result


def segment_starts(group: np.ndarray) -> np.ndarray:
  """Position of the first entry of each entry's run of equal values."""
  first = np.ones(len(group), bool)
  first[1:] = group[1:] != group[:-1]
  return np.maximum.accumulate(np.where(first, np.arange(len(group)), 0))
