"""Labels as the web gives them: few, incomplete, a fifth of them wrong.

The paper's images carry 1.26 labels on average, about 20% of them wrong, and
how many are missing is unknown (Sun et al. 2017, section 3). Here: the largest
object is always labelled, any other class shown with one fixed probability;
some labels name an ancestor instead of the leaf; each is wrong with
probability `noise`, most often because a near class was taken for it.
"""

import dataclasses

import numpy as np

from input_pipeline.labels.hierarchy import Hierarchy
from input_pipeline.synthetic_world.frequency import Frequency

COUSIN = 0.3  # share of near labels that name a cousin, not a sibling
TRIES = 12  # draws before what is left is listed


@dataclasses.dataclass(frozen=True, eq=False)
class Annotator:
  """Turns the classes that an image shows into raw labels.

  Attributes:
    frequency: of the classes; wrong labels follow it.
    hierarchy: decides what is true of an image.
    extra: probability that a class other than the largest object's is
      labelled.
    noise: probability that a label is wrong.
    neighbour_noise: share of the wrong labels that name a sibling or cousin
      of the true class; the others are drawn from all classes.
    coarse: share of the right labels that name an ancestor instead.
  """

  frequency: Frequency
  hierarchy: Hierarchy
  extra: float
  noise: float
  neighbour_noise: float
  coarse: float

  def annotate(self, shown: list[int], rng: np.random.Generator) -> np.ndarray:
    """Raw labels of an image.

    Args:
      shown: distinct leaf labels, the largest object's first.
      rng: the image's own generator for labels.

    Returns:
      int32 [n], distinct, ascending, n >= 1.
    """
    true = set(self.hierarchy.close(np.array(shown, np.int32)).tolist())
    u = rng.random((len(shown), 4)).tolist()
    labels: set[int] = set()
    for i, (label, (pick, vague, wrong, near)) in enumerate(zip(shown, u)):
      if i and pick >= self.extra:
        continue
      given: int | None = None
      if wrong < self.noise:
        neighbour = near < self.neighbour_noise
        given = self._wrong(label, true | labels, neighbour, rng)
      if given is None:
        given = label
        if vague < self.coarse:
          given = self._coarse(label, labels, rng)
      labels.add(given)
    return np.array(sorted(labels), np.int32)

  def _coarse(
    self, label: int, taken: set[int], rng: np.random.Generator
  ) -> int:
    """An ancestor of the label not yet given, or the label itself."""
    above = self.frequency.taxonomy.ancestors(label)
    if above:
      chosen = above[int(rng.integers(len(above)))]
      if chosen not in taken:
        return chosen
    return label

  def _wrong(
    self,
    label: int,
    excluded: set[int],
    neighbour: bool,
    rng: np.random.Generator,
  ) -> int | None:
    """A leaf that the image does not show; None if it shows all of them."""
    above = self.frequency.taxonomy.ancestors(label)
    if neighbour:
      # A sibling for seven in ten, else a cousin; wider if there is none.
      skip = 1 if len(above) > 1 and rng.random() > 1 - COUSIN else 0
      circles = [*above[skip:], -1]
    else:
      circles = [-1]
    tree = self.frequency.taxonomy
    for circle in circles:
      drawn = self.frequency.draw(rng.random(TRIES), circle)
      for found in tree.leaves[drawn].tolist():
        if found not in excluded:
          return found
      # The true classes are all but the whole circle: list the others.
      inside = slice(tree.first_leaf[circle], tree.last_leaf[circle])
      left = np.setdiff1d(tree.leaves[inside], np.fromiter(excluded, np.int64))
      if len(left):
        return int(left[rng.integers(len(left))])
    return None
