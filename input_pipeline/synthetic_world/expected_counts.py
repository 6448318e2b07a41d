"""How many images get each raw label, without drawing any.

What raw_labels.py does to an image, taken over all images. Which class is
labelled, and how often as an ancestor, is known exactly. A wrong label is one
that the image does not show; here the chance that a class is shown beside
another one is taken for each class on its own (a mean field), which is exact
for one object an image and for pairs of siblings.
"""

import numpy as np

from input_pipeline.synthetic_world.frequency import Frequency
from input_pipeline.synthetic_world.raw_labels import (
  COUSIN,
  TRIES,
  Annotator,
)
from input_pipeline.synthetic_world.taxonomy import Taxonomy

_TINY = 1e-300


def label_rates(annotator: Annotator) -> np.ndarray:
  """Expected number of raw labels of each class in an image: float64 [C]."""
  frequency = annotator.frequency
  tree = frequency.taxonomy
  seen = frequency.seen()[tree.leaves]
  # The first object is of a class as often as any; others are labelled by
  # chance, a class once.
  labelled = frequency.leaf + annotator.extra * (seen - frequency.leaf)
  wrong, none_left = _wrong(annotator, annotator.noise * labelled)
  right = labelled * (1 - annotator.noise) + none_left
  level = tree.level[tree.leaves]
  coarse = np.where(level > 0, annotator.coarse * right, 0)
  # Each of a leaf's ancestors alike.
  share = np.concatenate([[0], np.cumsum(coarse / np.maximum(level, 1))])
  rates = share[tree.last_leaf[:-1]] - share[tree.first_leaf[:-1]]
  rates[tree.leaves] = right - coarse + wrong
  return rates


def _wrong(
  annotator: Annotator, mass: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """Where wrong labels go: (rate of each leaf as one, mass without a place).

  Args:
    annotator: see `label_rates`.
    mass: float64 [L], wrong labels given in place of each leaf.
  """
  frequency = annotator.frequency
  tree = frequency.taxonomy
  level, leaf_parent = tree.level[tree.leaves], tree.parent[tree.leaves]
  near = np.where(level > 0, annotator.neighbour_noise * mass, 0)
  cousins = np.where(level > 1, COUSIN * near, 0)
  entering = [near - cousins, cousins]
  circles = _Circles(frequency, _shown_beside(annotator, themed=True))
  left, circle = np.zeros_like(mass), leaf_parent
  for step in range(int(tree.level.max()) + 1):
    left += entering[step] if step < len(entering) else 0
    inside = np.flatnonzero(circle >= 0)
    left[inside] = circles.add(inside, circle[inside], left[inside])
    circle = np.where(circle >= 0, tree.parent[circle], -1)
  everywhere = _Circles(frequency, _shown_beside(annotator, themed=False))
  leaves = np.arange(len(mass))
  left = everywhere.add(leaves, np.full(len(mass), -1), left + mass - near)
  return circles.rates() + everywhere.rates(), left


def _shown_beside(annotator: Annotator, themed: bool) -> np.ndarray:
  """Chance that an image with a labelled object shows each leaf beside it.

  Args:
    annotator: see `label_rates`.
    themed: of leaves of the same group as that object; else of any.

  Returns:
    float64 [L].
  """
  frequency = annotator.frequency
  tree, theme = frequency.taxonomy, frequency.theme
  hit = frequency.leaf
  if themed:
    of_group = frequency.below(tree.group_label)[tree.group[tree.leaves]]
    is_theme = theme + (1 - theme) * of_group
    hit = hit * (is_theme * theme / of_group + 1 - theme)
  others = np.arange(len(frequency.num_objects))
  # Images with more objects have more labels.
  weight = frequency.num_objects * (1 + annotator.extra * others)
  missed = np.maximum(1 - hit, 0)[:, None] ** others
  return 1 - missed @ (weight / weight.sum())


class _Circles:
  """Wrong labels drawn by frequency from what a circle has and does not show.

  A circle is the leaves below a label (-1: all). Where TRIES draws have met
  only what the image shows, any other leaf of the circle comes alike.
  """

  def __init__(self, frequency: Frequency, shown: np.ndarray):
    tree = frequency.taxonomy
    self._tree = tree
    self._log_shown = _Sums(tree, np.log(np.maximum(shown, _TINY)))
    self._frequent = _Sums(tree, frequency.leaf)
    self._by_frequency = _Sums(tree, frequency.leaf * (1 - shown))
    self._alike = _Sums(tree, 1 - shown)

  def add(
    self, leaves: np.ndarray, circle: np.ndarray, mass: np.ndarray
  ) -> np.ndarray:
    """Draws for each of the leaves from its circle; returns what is left.

    That is where all others in the circle are shown.
    """
    size = self._tree.last_leaf[circle] - self._tree.first_leaf[circle]
    full = np.exp(np.minimum(self._log_shown.others(leaves, circle), 0))
    full = np.where(size > 1, full, 1)  # nothing but the leaf itself
    found = mass * (1 - full)
    free = self._by_frequency.others(leaves, circle)
    missed = np.clip(1 - free / self._frequent.of(circle), 0, 1) ** TRIES
    self._by_frequency.spread(leaves, circle, found * (1 - missed))
    self._alike.spread(leaves, circle, found * missed)
    return mass * full

  def rates(self) -> np.ndarray:
    """Rate of each leaf as a wrong label: float64 [L]."""
    return self._by_frequency.received() + self._alike.received()


class _Sums:
  """Values of leaves: their sums over circles, and shares handed out by them.

  Args:
    tree: the label tree.
    value: float64 [L].
  """

  def __init__(self, tree: Taxonomy, value: np.ndarray):
    self._tree, self._value = tree, value
    self._before = np.concatenate([[0], np.cumsum(value)])
    # Handed out per unit of value: to a circle's leaves; taken back of a leaf.
    self._to_circle = np.zeros(tree.num_labels + 1)
    self._to_leaf = np.zeros(len(value))

  def of(self, circle: np.ndarray) -> np.ndarray:
    """Sums over the leaves of each circle."""
    first, last = self._tree.first_leaf[circle], self._tree.last_leaf[circle]
    return self._before[last] - self._before[first]

  def others(self, leaves: np.ndarray, circle: np.ndarray) -> np.ndarray:
    """Sums over the leaves of each circle but one."""
    return self.of(circle) - self._value[leaves]

  def spread(
    self, leaves: np.ndarray, circle: np.ndarray, mass: np.ndarray
  ) -> None:
    """Hands out mass to the other leaves of each circle, by their values."""
    unit = mass / np.maximum(self.others(leaves, circle), _TINY)
    unit = np.where(mass > 0, unit, 0)
    np.add.at(self._to_circle, circle, unit)
    np.subtract.at(self._to_leaf, leaves, unit)

  def received(self) -> np.ndarray:
    """What each leaf got: float64 [L]."""
    tree = self._tree
    above = self._to_circle[:-1].copy()
    for level in range(1, int(tree.level.max()) + 1):
      labels = np.flatnonzero(tree.level == level)
      above[labels] += above[tree.parent[labels]]
    units = above[tree.leaves] + self._to_circle[-1] + self._to_leaf
    return np.maximum(self._value * units, 0)
