"""Counts of labels over the records of a source, before and after fill-in.

`scan` makes one pass; `summarise` turns what it counted into plain data, the
content of stats.json. Labels come from the source's label index where it has
one (hundreds of millions of records), else from `labels(index)`, else from the
whole records. Images are not decoded. Figures of the paper: Sun et al. 2017,
section 3; `tools/dataset_stats.py` is the command.
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from big_vision_like.protocols import Described, Source
from input_pipeline.examples.errors import BadExample
from input_pipeline.labels import arrays
from input_pipeline.labels.arrays import Block

from .state_statistics import States

TAIL = (20, 100, 1_000, 10_000, 100_000)  # classes with fewer images than
_PROBED = 10  # records looked at to learn what records hold


@dataclasses.dataclass
class LabelCounts:
  """What one pass over the records counts, for one of raw and filled labels.

  Attributes:
    images: int64 [C] images per class.
    per_image: int64 [n] images with 0, 1, 2, ... labels.
  """

  images: np.ndarray
  per_image: np.ndarray

  @classmethod
  def empty(cls, num_labels: int) -> 'LabelCounts':
    return cls(np.zeros(num_labels, np.int64), np.zeros(1, np.int64))

  def add(self, block: Block) -> np.ndarray:
    """Adds records with unique labels each; returns their numbers of labels."""
    self.images += np.bincount(block.labels, minlength=len(self.images))
    sizes = np.bincount(block.rows, minlength=block.num)
    readable = np.delete(sizes, list(block.bad))
    grown = np.bincount(readable, minlength=len(self.per_image))
    grown[: len(self.per_image)] += self.per_image
    self.per_image = grown
    return sizes


@dataclasses.dataclass
class Scan:
  """One pass over (a sample of) the records.

  Attributes:
    raw, filled: labels before and after fill-in; the latter None without a
      hierarchy.
    num_gaining: images with more labels after fill-in.
    bad: key -> reason, of records that cannot be used.
    states: what is known to be absent, and how sure labels are; None where
      records do not say.
  """

  raw: LabelCounts
  filled: LabelCounts | None
  num_gaining: int = 0
  bad: dict[str, str] = dataclasses.field(default_factory=dict)
  states: States | None = None


def scan(
  source: Source,
  chosen: np.ndarray | range,
  advance: Callable[[int], object] = lambda num: None,
) -> Scan:
  """Counts the labels of the chosen records of a source.

  Args:
    source: random-access source.
    chosen: its records.
    advance: called with the number of records done since its last call.
  """
  num_labels = len(source.vocabulary)
  hierarchy = source.hierarchy
  result = Scan(
    LabelCounts.empty(num_labels),
    None if hierarchy is None else LabelCounts.empty(num_labels),
    states=States(num_labels, hierarchy) if has_states(source) else None,
  )
  closure = None if hierarchy is None else hierarchy.closure
  for block in _blocks(source, chosen, result.states):
    for row, reason in block.bad.items():
      result.bad[source.key(int(chosen[block.first + row]))] = reason
    before = result.raw.add(arrays.unique(block, num_labels))
    if result.filled is not None and closure is not None:
      closed = arrays.replaced(block, closure)
      after = result.filled.add(arrays.unique(closed, num_labels))
      result.num_gaining += int((after > before).sum())
    advance(block.num)
  return result


def has_states(source: Source) -> bool:
  """Whether records say what is absent or how sure labels are.

  Decided by the first record that can be read.
  """
  for index in range(min(len(source), _PROBED)):
    try:
      example = source[index]
    except BadExample:
      continue
    return 'negatives' in example or 'label_conf' in example
  return False


def _blocks(
  source: Source, chosen: np.ndarray | range, states: States | None
) -> Iterator[Block]:
  if states is not None:
    return arrays.read(source, chosen, lambda index: states.add(source[index]))
  index = arrays.of(source)
  if index is None:
    return arrays.read(source, chosen)
  arrays.check(index, len(source.vocabulary), 'the label index')
  return arrays.blocks(index, chosen)


def summarise(source: Source, found: Scan, num_read: int) -> dict[str, Any]:
  """Everything that stats.json holds of a scan, as plain data."""
  names = source.vocabulary.names
  labels = {'raw': _summarise_labels(found.raw, names)}
  if found.filled is not None:
    labels['filled'] = _summarise_labels(found.filled, names)
  num_images = num_read - len(found.bad)
  summary = {
    'subset': source.description
    if isinstance(source, Described)
    else f'all {len(source):,} records',
    'records': len(source),
    'records_read': num_read,
    'records_bad': len(found.bad),
    'bad_keys': dict(list(found.bad.items())[:10]),
    'images': num_images,
    'classes': len(names),
    'labels': labels,
    'fingerprint': source.fingerprint(),
  }
  if found.filled is not None:
    summary['images_gaining_labels'] = found.num_gaining
    summary['hierarchy'] = dataclasses.asdict(source.hierarchy.statistics)
  if found.states is not None:
    summary['label_states'] = found.states.summary(names)
  return summary


def _summarise_labels(
  counts: LabelCounts, names: Sequence[str]
) -> dict[str, Any]:
  images, per_image = counts.images, counts.per_image
  total, num_images = int(images.sum()), int(per_image.sum())
  largest = int(images.argmax())
  return {
    'total': total,
    'per_image_mean': total / num_images if num_images else 0.0,
    'per_image_max': len(per_image) - 1,
    'images_without': int(per_image[0]),
    'classes_with_images': int((images > 0).sum()),
    'classes_without_images': int((images == 0).sum()),
    'classes_with_fewer_images_than': {
      str(limit): int((images < limit).sum()) for limit in TAIL
    },
    'largest_class': names[largest],
    'largest_class_images': int(images[largest]),
    'median_class_images': float(np.median(images)),
    'images_by_number_of_labels': per_image.tolist(),
  }
