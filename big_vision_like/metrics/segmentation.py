"""Figures of a confusion matrix of pixels (Everingham et al. 2015, section 4).

Rows are true classes, columns predicted ones. Sums are exact: int64.
"""

import numpy as np


def iou(confusion: np.ndarray) -> np.ndarray:
  """Intersection over union of every class: TP / (true + predicted - TP).

  Args:
    confusion: int [C, C].

  Returns:
    float64 [C]; NaN for a class without a true or predicted pixel.
  """
  hits = np.diagonal(confusion)
  union = confusion.sum(axis=0) + confusion.sum(axis=1) - hits
  return _ratio(hits, union)


def recall(confusion: np.ndarray) -> np.ndarray:
  """Share of each class's pixels that are found: float64 [C], NaN without."""
  return _ratio(np.diagonal(confusion), confusion.sum(axis=1))


def figures(confusion: np.ndarray) -> dict[str, float]:
  """'miou', 'pixel_accuracy' and 'mean_accuracy' in percent.

  Means over classes leave out those that have no value: without a true or a
  predicted pixel for 'miou', without a true one for 'mean_accuracy'.

  Raises:
    ValueError: no pixel at all.
  """
  if not confusion.sum():
    raise ValueError('no pixel counts: all are void')
  return {
    'miou': float(100 * np.nanmean(iou(confusion))),
    'pixel_accuracy': float(
      100 * np.diagonal(confusion).sum() / confusion.sum()
    ),
    'mean_accuracy': float(100 * np.nanmean(recall(confusion))),
  }


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
  ratio = np.full(len(whole), np.nan)
  return np.divide(part, whole, out=ratio, where=whole > 0)
