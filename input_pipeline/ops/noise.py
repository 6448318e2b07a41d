"""Label noise put on clean labels, to study what noise costs.

Labels of JFT-300M are wrong in about 20% of the cases and incomplete (Sun et
al. 2017, section 3.1). This op makes such labels out of right ones, before
`labels` completes them: wrong at random, mistaken for a sibling, or missing.
"""

import bisect
import hashlib
from collections.abc import Collection
from typing import Any, Literal

import numpy as np

from big_vision_like.config.option_types import Fraction, Seed
from input_pipeline.labels.hierarchy import Hierarchy
from input_pipeline.ops.context import OpContext
from input_pipeline.ops.declared import Declared

Kind = Literal['symmetric', 'neighbour', 'missing']
_BITS = 53  # of a random number: those of a float64


class LabelNoise(Declared):
  """Corrupts each of the raw 'labels' with a probability, for good.

  Whether a label is hit follows from the seed, the key of the record and the
  name of the label; what becomes of it, from these and the other labels of the
  image. Epochs, workers, subsets and the order of records change nothing, so
  the arms of a study share their noise: a label that is hit at one rate is hit
  at every higher one, and by every kind.

  A wrong label never names what the image is known to show: none of its
  labels, and no ancestor of one. Two labels do not become the same, so that
  wrong labels leave their number as it was. 'label_conf' keeps to its label;
  a wrong label is taken out of 'negatives'.

  Args (options):
    kind: 'symmetric', another label, each equally likely; 'neighbour', a
      sibling (a label with a parent in common), each equally likely; or
      'missing', no label. A label that has no sibling to become (data without
      a hierarchy, a top-level label) is treated as 'symmetric'.
    rate: probability of each label to be hit, in [0, 1].
    seed: another one hits other labels.
  """

  reads = frozenset({'labels', 'key'})  # the record's own
  makes = frozenset({'labels'})

  def __init__(
    self, context: OpContext, *, kind: Kind, rate: Fraction, seed: Seed = 0
  ):
    if context.vocabulary is None:
      raise ValueError(f'{context.where}: the data source has no vocabulary')
    self._where = context.where
    self._kind = kind
    self._rate = float(rate)
    self._salt = int(seed).to_bytes(16, 'little')
    self._names = context.vocabulary.names
    self._hierarchy: Hierarchy | None = context.hierarchy
    self._children = None
    if kind == 'neighbour' and context.hierarchy is not None:
      self._children = _children(context.hierarchy)

  def __call__(self, example: dict, rng: np.random.Generator) -> dict:
    if 'label_ids' in example or 'label' in example:
      raise ValueError(
        f'{self._where}: put it before the op that makes label ids, which '
        'would not see the noise'
      )
    labels = np.asarray(example['labels'])
    given = labels.reshape(-1).tolist()
    # The blank that the shapes of a batch are found on has no key.
    new = self._corrupted(given, example.get('key', ''))
    if not new:
      return example
    noisy = [new.get(label, label) for label in given]
    kept = [i for i, label in enumerate(noisy) if label is not None]
    ids = np.array([noisy[i] for i in kept], np.int32)
    changed = {'labels': ids}
    if 'label_conf' in example:
      changed['label_conf'] = np.asarray(example['label_conf'])[kept]
    if 'negatives' in example:
      negatives = np.asarray(example['negatives'])
      changed['negatives'] = negatives[~np.isin(negatives, ids)]
    return example | changed

  def _corrupted(self, labels: list[int], key: str) -> dict[int, int | None]:
    """What becomes of the labels that are hit; None: missing."""
    seeded = hashlib.blake2b(
      f'{key}\0'.encode(errors='surrogateescape'),
      digest_size=16,
      salt=self._salt,
    )
    new: dict[int, int | None] = {}
    taken: set[int] | None = None
    for label in dict.fromkeys(labels):
      chance, choice = self._draw(seeded.copy(), label)
      if chance >= self._rate:
        continue
      if self._kind == 'missing':
        new[label] = None
        continue
      if taken is None:
        taken = self._shown(labels)
      wrong = self._wrong(label, taken, choice)
      if wrong is not None:  # else every label of the vocabulary is right
        new[label] = wrong
        taken.add(wrong)
    return new

  def _draw(self, seeded: Any, label: int) -> tuple[float, int]:
    """Uniform numbers in [0, 1) and in 0 .. 2**53 - 1, from hash and name."""
    if not 0 <= label < len(self._names):
      raise ValueError(
        f'{self._where}: label {label} is outside the vocabulary of '
        f'{len(self._names)} names'
      )
    seeded.update(self._names[label].encode())
    bits = int.from_bytes(seeded.digest(), 'little')
    return (bits >> 75) * 2.0**-_BITS, bits & (2**_BITS - 1)

  def _shown(self, labels: list[int]) -> set[int]:
    """The labels and their ancestors: what the image is known to show."""
    if self._hierarchy is None:
      return set(labels)
    return set(self._hierarchy.close(np.array(labels, np.int64)).tolist())

  def _wrong(self, label: int, taken: set[int], choice: int) -> int | None:
    """The wrong label that a number chooses; None: every label is right."""
    if self._children is not None:
      siblings = self._siblings(label)
      places = (bisect.bisect_left(siblings, other) for other in taken)
      known = [
        place
        for place, other in zip(places, taken)
        if place < len(siblings) and siblings[place] == other
      ]
      place = _free(len(siblings), known, choice)
      if place is not None:
        return siblings[place]
    return _free(len(self._names), taken, choice)

  def _siblings(self, label: int) -> list[int]:
    """Children of the label's parents, ascending, the label among them."""
    assert self._children is not None and self._hierarchy is not None
    parents = self._hierarchy.parents[label].tolist()
    families = [self._children[parent] for parent in parents]
    if len(families) == 1:
      return families[0]
    return sorted({child for family in families for child in family})


def _free(num: int, known: Collection[int], choice: int) -> int | None:
  """One of 0 .. num - 1 that is not known, each equally likely, or None."""
  num_free = num - len(known)
  if not num_free:
    return None
  found = (choice * num_free) >> _BITS
  for other in sorted(known):
    if found < other:
      break
    found += 1
  return found


def _children(hierarchy: Hierarchy) -> dict[int, list[int]]:
  """Parent -> its children, ascending."""
  children: dict[int, list[int]] = {}
  for child, parents in enumerate(hierarchy.parents):
    for parent in parents.tolist():
      children.setdefault(parent, []).append(child)
  return children
