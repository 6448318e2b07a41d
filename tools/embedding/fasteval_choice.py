"""Which classes and images make a dense evaluation set: `make_fasteval`.

One pass over a pool of labelled images keeps their label ids (4 bytes each)
and a hash of each key, never an image. Classes are chosen by how many images
show them, images by how much is known of them; then the classes that the
chosen images do not bear out are left out again.
"""

import array
import dataclasses
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from input_pipeline.examples.errors import BadExample
from input_pipeline.labels import hash_order
from input_pipeline.labels.hierarchy import Hierarchy
from input_pipeline.labels.states import Negatives
from input_pipeline.prepared.records import Record
from input_pipeline.sources.records import Source

CHOICES = ('most_labels', 'random')


class _Rows:
  """Lists of ids, one an image, as one array."""

  def __init__(self) -> None:
    self._ids = array.array('i')
    self._ends = array.array('q', [0])

  def append(self, ids: np.ndarray) -> None:
    self._ids.extend(ids.tolist())
    self._ends.append(len(self._ids))

  def __getitem__(self, row: int) -> np.ndarray:
    part = self._ids[self._ends[row] : self._ends[row + 1]]
    return np.array(part, np.int32)


class Pool:
  """The label states of all usable images of some splits.

  Attributes:
    split, index: int32 [n], int64 [n]: where each image is.
    hashes: uint64 [n] of the keys.
    verified: whether absence is recorded label by label; if not, all that is
      not labelled is absent.
    bad: key -> reason, of records that cannot be used.
    num_unsure: labels dropped for their confidence.
  """

  def __init__(
    self,
    sources: Sequence[Source],
    *,
    min_confidence: float,
    fill_in: bool,
    seed: int,
    tick: Callable[[], object],
  ):
    """Reads all records once.

    Args:
      sources: record sources of one vocabulary.
      min_confidence: labels that are less sure are unknown.
      fill_in: complete labels and negatives through the hierarchy.
      seed: of the hashes.
      tick: called after each record.

    Raises:
      ValueError: some records have negatives and others have none.
    """
    self.num_classes = len(sources[0].vocabulary)
    hierarchy: Hierarchy | None = sources[0].hierarchy if fill_in else None
    self._hierarchy = hierarchy
    self._negatives = Negatives(hierarchy, fill_in=hierarchy is not None)
    self._min_confidence = min_confidence
    self._labels, self._absent = _Rows(), _Rows()
    self.bad: dict[str, str] = {}
    self.num_unsure = 0
    places, hashes, verified = [], [], {}
    for split, source in enumerate(sources):
      for index in range(len(source)):
        try:
          record = source.read(index)
        except BadExample as bad:
          self.bad[source.key(index)] = bad.reason
          continue
        finally:
          tick()
        verified.setdefault(record.negatives is not None, record.key)
        kept = trusted(record, min_confidence)
        self.num_unsure += len(record.labels) - len(kept.labels)
        self._labels.append(kept.labels)
        self._absent.append(_or_none(record.negatives))
        places.append((split, index))
        hashes.append(hash_order.key_hash(record.key, seed))
    if len(verified) > 1:
      raise ValueError(
        f'--input: {verified[True]!r} records negatives and {verified[False]!r}'
        ' does not; what is not labelled must be unknown in all images or none'
      )
    self.verified = True in verified
    self.split, self.index = np.array(places, np.int64).reshape(-1, 2).T
    self.hashes = np.array(hashes, np.uint64)

  def __len__(self) -> int:
    return len(self.hashes)

  def raw(self, row: int) -> np.ndarray:
    """Labels of an image as recorded, without the unsure ones."""
    return np.unique(self._labels[row])

  def states(
    self, rows: Sequence[int] | np.ndarray
  ) -> Iterator[tuple[np.ndarray, np.ndarray, int]]:
    """(labels, verified negatives, contradictions) of images, completed.

    Ids are ascending; a contradiction is a negative above a label.
    """
    for row in rows:
      labels = self.raw(row)
      if self._hierarchy is not None:
        labels = self._hierarchy.close(labels)
      absent, dropped = self._negatives.resolve(self._absent[row], labels)
      yield labels, absent, dropped


def trusted(record: Record, min_confidence: float) -> Record:
  """The record without the labels that are less sure."""
  if record.label_conf is None:
    return record
  kept = record.label_conf >= np.float32(min_confidence)
  return dataclasses.replace(
    record, labels=record.labels[kept], label_conf=record.label_conf[kept]
  )


@dataclasses.dataclass(frozen=True)
class Counts:
  """Images that show each class, and images known not to; int64 [C] each.

  `num_contradicted` negatives stood above a label of their image.
  """

  positives: np.ndarray
  negatives: np.ndarray
  num_contradicted: int = 0


def count(pool: Pool, rows: np.ndarray) -> Counts:
  """Counts over images of a pool."""
  positives = np.zeros(pool.num_classes, np.int64)
  negatives = np.zeros(pool.num_classes, np.int64)
  num_contradicted = 0
  for labels, absent, dropped in pool.states(rows):
    positives[labels] += 1
    negatives[absent] += 1
    num_contradicted += dropped
  if not pool.verified:
    negatives = len(rows) - positives
  return Counts(positives, negatives, num_contradicted)


@dataclasses.dataclass(frozen=True)
class Limits:
  """What a class needs to be evaluated.

  Attributes:
    min_positives, min_negatives: images that show it, and that do not.
    max_classes: the most frequent ones, or None for all.
    allowed: bool [C], a choice of the user's, or None.
  """

  min_positives: int
  min_negatives: int
  max_classes: int | None = None
  allowed: np.ndarray | None = None

  def fulfilled(self, counts: Counts) -> np.ndarray:
    """bool [C]."""
    enough = (counts.positives >= self.min_positives) & (
      counts.negatives >= self.min_negatives
    )
    return enough if self.allowed is None else enough & self.allowed

  def choose(self, counts: Counts) -> np.ndarray:
    """bool [C]: the classes to look for images of."""
    chosen = self.fulfilled(counts)
    if self.max_classes is not None:
      frequency = np.where(chosen, counts.positives, -1)
      order = np.argsort(-frequency, kind='stable')
      chosen[order[self.max_classes :]] = False
    return chosen


def choose_images(
  pool: Pool, classes: np.ndarray, num_images: int, by: str
) -> np.ndarray:
  """Rows of the pool, in the order of their hashes.

  Args:
    pool: the images.
    classes: bool [C] that count.
    num_images: how many, at most.
    by: 'most_labels', those with the most labels and verified negatives among
      the classes, of equal ones by hash; or 'random', by hash.
  """
  order = np.argsort(pool.hashes, kind='stable')
  if by == 'most_labels':
    known = np.array(
      [
        classes[labels].sum() + classes[absent].sum()
        for labels, absent, _ in pool.states(order)
      ]
    )
    order = order[np.argsort(-known, kind='stable')]
  chosen = order[:num_images]
  return chosen[np.argsort(pool.hashes[chosen], kind='stable')]


def _or_none(ids: np.ndarray | None) -> np.ndarray:
  return np.zeros(0, np.int32) if ids is None else ids
