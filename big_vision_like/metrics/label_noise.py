"""How good given labels are, measured on records whose true labels are known.

Precision of a label is the part of its uses that are right; 1 - precision is
what "20% of the labels are wrong" means (Sun et al. 2017, section 3.1). Recall
is the part of the images that show it which say so; the paper cannot estimate
it, since nobody has listed all that its images show.
"""

import collections
import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np

Z_95 = 1.959963984540054  # normal quantile of a two-sided 95% interval
NOTHING = -1  # in place of a label: the image shows no other


@dataclasses.dataclass(frozen=True, eq=False)
class LabelCounts:
  """Labels of the records that were checked, by class; int64 [C] each.

  Attributes:
    given: records that carry the label.
    true: records that show it.
    right: records that carry and show it.
  """

  given: np.ndarray
  true: np.ndarray
  right: np.ndarray

  @property
  def precision(self) -> np.ndarray:
    """float64 [C] right / given; NaN where the label is not given."""
    return _ratio(self.right, self.given)

  @property
  def recall(self) -> np.ndarray:
    """float64 [C] right / true; NaN where no record shows the label."""
    return _ratio(self.right, self.true)


def count(
  given: Sequence[np.ndarray], true: Sequence[np.ndarray], num_classes: int
) -> LabelCounts:
  """Counts the labels of n records, as unique ids each."""
  right = [np.intersect1d(g, t) for g, t in zip(given, true, strict=True)]
  return LabelCounts(
    *(_totals(ids, num_classes) for ids in (given, true, right))
  )


def wilson_interval(
  successes: np.ndarray | int, trials: np.ndarray | int
) -> tuple[np.ndarray, np.ndarray]:
  """95% score interval of a rate (Wilson 1927); (0, 1) without trials.

  Unlike p +- 1.96 standard errors it stays within [0, 1] and holds for few
  trials and for rates near 0 and 1, which is what most classes are like.
  """
  k, n = np.asarray(successes, np.float64), np.asarray(trials, np.float64)
  z2 = Z_95**2
  middle = (k + z2 / 2) / (n + z2)
  half = Z_95 / (n + z2) * np.sqrt(k * _ratio(n - k, n, 0.0) + z2 / 4)
  low, high = middle - half, middle + half
  # At the ends the formula is exact, its rounding is not.
  return np.where(k == 0, 0.0, low), np.where(k == n, 1.0, high)


@dataclasses.dataclass(frozen=True)
class WeightedRate:
  """A rate of the whole data set, from classes checked unequally often.

  Attributes:
    rate: sum of w_c * precision_c.
    low, high: 95% interval.
    covered: share of all labels that belong to the classes checked.
  """

  rate: float
  low: float
  high: float
  covered: float


def weighted_precision(
  counts: LabelCounts, population: np.ndarray
) -> WeightedRate:
  """Precision of all labels of the data set, each class with its own share.

  Clean sets often hold as many images of every class; averaged as they are,
  rare classes would count as much as frequent ones. Classes of which no label
  was checked are left out. The variance is that of a stratified sample, with
  two successes and two failures added to each class (Agresti and Coull 1998),
  lest classes found all right seem certain.

  Args:
    counts: of the checked records.
    population: int [C] uses of each label in the whole data set.
  """
  checked = counts.given > 0
  n, k = counts.given[checked], counts.right[checked]
  uses = np.asarray(population, np.float64)
  total, reached = uses.sum(), uses[checked].sum()
  if not reached:
    return WeightedRate(np.nan, 0.0, 1.0, 0.0)
  weights = uses[checked] / reached
  rate = float(weights @ (k / n))
  smooth = (k + 2) / (n + 4)
  half = Z_95 * np.sqrt(weights**2 @ (smooth * (1 - smooth) / (n + 4)))
  return WeightedRate(
    rate,
    max(rate - float(half), 0.0),
    min(rate + float(half), 1.0),
    float(reached / total),
  )


def confusions(
  given: Iterable[np.ndarray],
  true: Iterable[np.ndarray],
  missed: Iterable[np.ndarray],
) -> dict[int, collections.Counter[int]]:
  """What the images of wrong labels show instead.

  Args:
    given: labels of each record, unique ids.
    true: all that it shows.
    missed: of these, the ones to name; those given are left out.

  Returns:
    wrong label -> counts of the missed ones in its images, NOTHING where there
    is none. An image with several missed labels counts for each.
  """
  found: dict[int, collections.Counter[int]] = {}
  for g, t, m in zip(given, true, missed, strict=True):
    wrong = np.setdiff1d(g, t)
    if wrong.size:
      instead = np.setdiff1d(m, g).tolist() or [NOTHING]
      for label in wrong.tolist():
        found.setdefault(label, collections.Counter()).update(instead)
  return found


def _ratio(
  part: np.ndarray, whole: np.ndarray, empty: float = np.nan
) -> np.ndarray:
  """part / whole, `empty` where whole is 0."""
  out = np.full(np.broadcast(part, whole).shape, empty)
  return np.divide(part, whole, out=out, where=np.asarray(whole) > 0)


def _totals(ids: Sequence[np.ndarray], num_classes: int) -> np.ndarray:
  flat = np.concatenate([np.empty(0, np.int64), *ids]).astype(np.int64)
  return np.bincount(flat, minlength=num_classes)
