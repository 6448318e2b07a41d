"""What records say beyond their labels: absent, unknown, how sure.

A record with `negatives` divides the vocabulary in three: its labels are
present, its negatives are absent, all else is unknown (docs/label-states.md).
After fill-in, ancestors of what is present are present, and what lies below
something absent is absent; a negative that contradicts a label is dropped.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from input_pipeline.labels.hierarchy import Hierarchy
from input_pipeline.labels.states import Negatives

BINS = 10  # of the histogram of confidences


class States:
  """Counts label states over records; `add` takes one example after another."""

  def __init__(self, num_labels: int, hierarchy: Hierarchy | None):
    self._hierarchy = hierarchy
    self._resolver = Negatives(hierarchy, fill_in=hierarchy is not None)
    self._num_records = 0  # with negatives, even an empty list
    self._num_contradicted = 0
    kinds = ['raw'] if hierarchy is None else ['raw', 'filled']
    self._present = {k: np.zeros(num_labels, np.int64) for k in kinds}
    self._absent = {k: np.zeros(num_labels, np.int64) for k in kinds}
    self._confidences = np.zeros(BINS, np.int64)
    self._confidence_sum = 0.0
    self._num_sure = 0

  def add(self, example: Mapping[str, Any]) -> np.ndarray:
    """Counts one example; returns its labels."""
    labels = np.asarray(example['labels'], np.int32)
    if 'label_conf' in example:
      sure = np.asarray(example['label_conf'], np.float64)
      bins = np.minimum((sure * BINS).astype(np.int64), BINS - 1)
      self._confidences += np.bincount(bins, minlength=BINS)
      self._confidence_sum += float(sure.sum())
      self._num_sure += int((sure == 1).sum())
    if 'negatives' in example:
      negatives = np.asarray(example['negatives'], np.int32)
      self._add_negatives(labels, negatives)
    return labels

  def _add_negatives(self, labels: np.ndarray, negatives: np.ndarray) -> None:
    self._num_records += 1
    self._present['raw'][np.unique(labels)] += 1
    self._absent['raw'][np.unique(negatives)] += 1
    if self._hierarchy is None:
      return
    closed = self._hierarchy.close(labels)
    absent, num_dropped = self._resolver.resolve(negatives, closed)
    self._num_contradicted += num_dropped
    self._present['filled'][closed] += 1
    self._absent['filled'][absent] += 1

  def summary(self, names: Sequence[str]) -> dict[str, Any]:
    """Plain data: means per image, counts per class, confidences.

    `per_class` lists have one entry a class, in the order of `names` there.
    """
    out: dict[str, Any] = {}
    num = self._num_records
    if num:
      out['images_with_negatives_recorded'] = num
      out['negatives_contradicted'] = self._num_contradicted
      per_image: dict[str, Any] = {}
      per_class: dict[str, Any] = {'names': list(names)}
      for kind, present in self._present.items():
        absent = self._absent[kind]
        counts = {
          'positive': present,
          'negative': absent,
          'unknown': num - present - absent,
        }
        per_image[kind] = {
          state: float(c.sum() / num) for state, c in counts.items()
        }
        per_class[kind] = {s: c.tolist() for s, c in counts.items()}
      out |= {'per_image': per_image, 'per_class': per_class}
    total = int(self._confidences.sum())
    if total:
      out['confidence'] = {
        'labels': total,
        'mean': self._confidence_sum / total,
        'exactly_1': self._num_sure,
        'bin_edges': [i / BINS for i in range(BINS + 1)],
        'labels_by_bin': self._confidences.tolist(),
      }
    return out
