"""How often each class is seen: a Zipf long tail, and themes.

An object's leaf class is drawn in two steps: the scene has a theme (one
top-level group), an object follows it with probability `theme` and is drawn
from all leaves otherwise. Both keep the marginal of a leaf exactly at its Zipf
frequency, so the expected counts are known in closed form.
"""

import dataclasses

import numpy as np

from input_pipeline.synthetic_world.taxonomy import Taxonomy


@dataclasses.dataclass(frozen=True, eq=False)
class Frequency:
  """Class frequencies of a world.

  Attributes:
    taxonomy: the label tree.
    leaf: float64 [L], probability that an object is of the leaf; sums to 1.
    edges: float64 [L + 1], cumulative `leaf`, from 0 to 1.
    theme: probability that an object follows the scene's theme.
    num_objects: float64 [max_objects], probability of 1, 2, ... objects.
  """

  taxonomy: Taxonomy
  leaf: np.ndarray
  edges: np.ndarray
  theme: float
  num_objects: np.ndarray

  def below(self, label: int | np.ndarray) -> np.ndarray:
    """Probability that an object is of the label (of a leaf below it)."""
    tree = self.taxonomy
    return (
      self.edges[tree.last_leaf[label]] - self.edges[tree.first_leaf[label]]
    )

  def draw(
    self, uniform: np.ndarray | float, label: int | np.ndarray = -1
  ) -> np.ndarray:
    """Positions among the leaves, by frequency below `label` (-1: all).

    Args:
      uniform: random numbers in [0, 1), any shape.
      label: the label below which to draw, broadcast against `uniform`.
    """
    first = self.taxonomy.first_leaf[label]
    last = self.taxonomy.last_leaf[label]
    low, high = self.edges[first], self.edges[last]
    found = self.edges.searchsorted(low + uniform * (high - low), 'right') - 1
    return np.minimum(np.maximum(found, first), last - 1)

  def seen(self, members: np.ndarray | None = None) -> np.ndarray:
    """Probability that an image shows at least one object of each label.

    Args:
      members: bool [L], ask for this set of leaves instead of the labels.

    Returns:
      float64 [C], or [1] with `members`.
    """
    tree = self.taxonomy
    groups = np.flatnonzero(tree.parent < 0)
    of_group = self.below(groups)  # [G]
    if members is None:
      inside = self.below(np.arange(tree.num_labels))  # [C]
      # A label lies in one group: under another theme only the free draws
      # can hit it.
      own = of_group[tree.group]
      hit = self.theme * inside / own + (1 - self.theme) * inside
      miss = (1 - self.theme) * inside
      return own * self._any(hit) + (1 - own) * self._any(miss)
    chosen = np.where(members, self.leaf, 0)
    starts = tree.first_leaf[groups]
    share = np.add.reduceat(chosen, starts) / of_group  # [G]
    hit = self.theme * share + (1 - self.theme) * chosen.sum()
    return np.array([of_group @ self._any(hit)])

  def _any(self, q: np.ndarray) -> np.ndarray:
    """Probability of at least one hit when each object hits with q."""
    n = np.arange(1, len(self.num_objects) + 1)
    return (1 - (1 - q[..., None]) ** n) @ self.num_objects

  @property
  def distinct_leaves(self) -> float:
    """Expected number of different leaf classes in an image."""
    if len(self.num_objects) == 1:
      return 1.0  # not a rounding error away from it
    return float(self.seen()[self.taxonomy.leaves].sum())


def zipf(
  taxonomy: Taxonomy,
  exponent: float,
  tail: float,
  theme: float,
  max_objects: int,
  rng: np.random.Generator,
) -> Frequency:
  """Leaf frequencies rank^-exponent, the ranks dealt at random to leaves.

  With `tail` times (leaves + 1 - rank)^tail: few classes of an open vocabulary
  are as rare as the last, where Zipf's law alone has the more the rarer they
  are (the discrete generalised beta distribution, Martinez-Mekler et al. 2009,
  Universality of rank-ordering distributions, PLoS ONE 4(3)).
  """
  rank = 1 + rng.permutation(len(taxonomy.leaves))
  leaf = rank.astype(np.float64) ** -exponent
  if tail:
    leaf *= (len(leaf) + 1.0 - rank) ** tail
  leaf /= leaf.sum()
  edges = np.concatenate([[0.0], np.cumsum(leaf)])
  edges[-1] = 1.0
  number = np.arange(max_objects, 0, -1) ** 0.5  # few more often than many
  return Frequency(taxonomy, leaf, edges, theme, number / number.sum())
