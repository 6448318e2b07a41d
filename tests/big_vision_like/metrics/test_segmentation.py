"""IoU of confusion matrices against scikit-learn's Jaccard scores."""

import warnings

import numpy as np
import pytest
from sklearn.metrics import (
  accuracy_score,
  balanced_accuracy_score,
  confusion_matrix,
  jaccard_score,
  recall_score,
)

from big_vision_like.metrics import segmentation


def _pixels(num_classes, seed, absent=()):
  """(true, predicted) classes of 4,000 pixels; neither has `absent` ones."""
  rng = np.random.default_rng(seed)
  present = np.setdiff1d(np.arange(num_classes), absent)
  true, guess = rng.choice(present, (2, 4000))
  predicted = np.where(rng.random(4000) < 0.6, true, guess)
  return true, predicted


def _matrix(true, predicted, num_classes):
  return confusion_matrix(true, predicted, labels=np.arange(num_classes))


@pytest.mark.parametrize(('num_classes', 'seed'), [(2, 0), (21, 1), (150, 2)])
def test_scikit_learn(num_classes, seed):
  true, predicted = _pixels(num_classes, seed)
  counts = _matrix(true, predicted, num_classes)
  np.testing.assert_allclose(
    segmentation.iou(counts), jaccard_score(true, predicted, average=None)
  )
  np.testing.assert_allclose(
    segmentation.recall(counts), recall_score(true, predicted, average=None)
  )
  figures = segmentation.figures(counts)
  assert figures == pytest.approx(
    {
      'miou': 100 * jaccard_score(true, predicted, average='macro'),
      'pixel_accuracy': 100 * accuracy_score(true, predicted),
      'mean_accuracy': 100 * balanced_accuracy_score(true, predicted),
    }
  )


def test_absent_classes_have_no_iou_and_do_not_lower_the_mean():
  absent = [0, 3, 8]
  true, predicted = _pixels(9, 3, absent)
  counts = _matrix(true, predicted, 9)
  iou = segmentation.iou(counts)
  present = np.setdiff1d(np.arange(9), absent)
  assert np.isnan(iou[absent]).all()
  expected = jaccard_score(true, predicted, labels=present, average=None)
  np.testing.assert_allclose(iou[present], expected)
  figures = segmentation.figures(counts)
  assert figures['miou'] == pytest.approx(100 * expected.mean())


def test_classes_only_predicted_or_only_true_have_an_iou_of_zero():
  #         predicted: 0   1  2  3
  counts = np.array(
    [
      [6, 2, 0, 0],
      [0, 0, 0, 0],  # never true, predicted twice
      [1, 0, 0, 0],  # true once, never predicted
      [0, 0, 0, 0],  # neither
    ]
  )
  np.testing.assert_allclose(
    segmentation.iou(counts), [6 / 9, 0, 0, np.nan], rtol=1e-15
  )
  np.testing.assert_allclose(
    segmentation.recall(counts), [6 / 8, np.nan, 0, np.nan]
  )
  figures = segmentation.figures(counts)
  assert figures['miou'] == pytest.approx(100 * (6 / 9) / 3)
  assert figures['mean_accuracy'] == pytest.approx(100 * (6 / 8) / 2)
  assert figures['pixel_accuracy'] == pytest.approx(100 * 6 / 9)


def test_one_class_or_perfect_or_all_wrong():
  assert segmentation.figures(np.diag([3, 1, 7]))['miou'] == 100
  assert segmentation.figures(np.array([[0, 5], [4, 0]])) == {
    'miou': 0, 'pixel_accuracy': 0, 'mean_accuracy': 0,
  }  # fmt: skip
  assert segmentation.iou(np.array([[12]])).tolist() == [1]


def test_counts_of_a_large_set_stay_exact():
  """2^53 + 1 of 2^53 + 1 pixels: float64 would drop the one."""
  counts = np.array([[2**53 + 1, 0], [0, 1]], np.int64)
  with warnings.catch_warnings():
    warnings.simplefilter('error')
    figures = segmentation.figures(counts)
  assert figures['miou'] == 100
  # 10^12 pixels, as of 4 million images; products would overflow int64.
  counts = np.array([[10**12, 1], [1, 10**12]], np.int64)
  expected = 100 * 10**12 / (10**12 + 2)
  assert segmentation.figures(counts)['miou'] == pytest.approx(
    expected, rel=1e-15
  )


def test_without_a_pixel_it_is_refused():
  with pytest.raises(ValueError, match='no pixel counts: all are void'):
    segmentation.figures(np.zeros((3, 3), np.int64))
