"""Label states as machines and annotators give them: confidences, negatives.

A machine is surer of right labels than of wrong ones; annotators also look at
some of the labels that are not there, half of them near misses, and say so.
"""

import numpy as np

from input_pipeline.synthetic_world.frequency import Frequency

_RIGHT, _WRONG = (5, 2), (2, 5)  # beta distributions: means 0.71 and 0.29
_TRIES = 4  # draws for each label wanted


def confidences(
  labels: np.ndarray, true: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
  """How sure a machine is of each label, float32 [n] in [0, 1].

  Args:
    labels: int [n] labels of an image.
    true: int [m] all that is true of it.
    rng: the image's own generator.
  """
  both = np.stack(
    [rng.beta(*_WRONG, len(labels)), rng.beta(*_RIGHT, len(labels))]
  )
  right = np.isin(labels, true).astype(int)
  return both[right, np.arange(len(labels))].astype(np.float32)


def absent(
  frequency: Frequency,
  shown: list[int],
  taken: np.ndarray,
  number: int,
  rng: np.random.Generator,
) -> np.ndarray:
  """Leaf labels that an image does not show, as an annotator notes them.

  Half are drawn from the siblings of a class that it shows, half from all, by
  frequency.

  Args:
    frequency: of the classes.
    shown: leaf labels of the image's objects.
    taken: int [m] labels that must not be among them.
    number: how many; fewer where the draws repeat themselves.
    rng: the image's own generator.

  Returns:
    int32 [k <= number], distinct, ascending.
  """
  tree = frequency.taxonomy
  uniform = rng.random((_TRIES * number, 2))
  above = [tree.ancestors(label) for label in shown]
  circles = [a[0] if a else -1 for a in above]
  found: list[int] = []
  excluded = set(taken.tolist())
  for i, (near, u) in enumerate(uniform.tolist()):
    circle = circles[i % len(circles)] if near < 0.5 else -1
    label = int(tree.leaves[frequency.draw(u, circle)])
    if label not in excluded:
      excluded.add(label)
      found.append(label)
  return np.array(sorted(found[:number]), np.int32)
