"""Rates of wrong and missing labels, by hand and against scipy."""

import numpy as np
import pytest
from scipy import stats

from big_vision_like.metrics import label_noise


def ids(*lists):
  return [np.array(labels, np.int32) for labels in lists]


# Four records: all right; 1 for 0; 2 not said; 1 too much.
GIVEN = ids([0], [1], [0], [0, 1])
TRUE = ids([0], [0], [0, 2], [0])


def test_counts_by_hand():
  counts = label_noise.count(GIVEN, TRUE, 4)
  assert counts.given.tolist() == [3, 2, 0, 0]
  assert counts.true.tolist() == [4, 0, 1, 0]
  assert counts.right.tolist() == [3, 0, 0, 0]
  np.testing.assert_array_equal(counts.precision, [1, 0, np.nan, np.nan])
  np.testing.assert_array_equal(counts.recall, [0.75, np.nan, 0, np.nan])


def test_no_record_has_a_label():
  counts = label_noise.count(ids([], []), ids([], []), 2)
  assert counts.given.tolist() == counts.true.tolist() == [0, 0]
  assert np.isnan(counts.precision).all()


def test_wilson_interval_is_scipys():
  for n in (1, 2, 7, 50, 4000):
    for k in sorted({0, 1, n // 3, n - 1, n}):
      expected = stats.binomtest(k, n).proportion_ci(0.95, method='wilson')
      low, high = label_noise.wilson_interval(k, n)
      assert (low, high) == pytest.approx(tuple(expected), abs=1e-12)
      assert 0 <= low <= k / n <= high <= 1


def test_wilson_interval_of_nothing_and_of_arrays():
  low, high = label_noise.wilson_interval(np.array([0, 0, 5]), [0, 5, 5])
  assert (low[0], high[0]) == (0, 1)
  assert (low[1], high[2]) == (0, 1)
  assert high[1] == pytest.approx(1 - low[2])


def test_weighted_precision_by_hand():
  counts = label_noise.LabelCounts(
    given=np.array([10, 10, 0]),
    true=np.array([10, 10, 0]),
    right=np.array([10, 5, 0]),
  )
  found = label_noise.weighted_precision(counts, np.array([100, 300, 100]))
  assert found.rate == pytest.approx(0.25 * 1 + 0.75 * 0.5)
  assert found.covered == pytest.approx(0.8)
  variance = 0.25**2 * (12 / 14) * (2 / 14) / 14 + 0.75**2 * 0.5 * 0.5 / 14
  half = 1.959964 * variance**0.5
  assert found.high - found.rate == pytest.approx(half, rel=1e-6)
  assert found.rate - found.low == pytest.approx(half, rel=1e-6)


def test_weighted_precision_covers_the_truth():
  """95% of the intervals hold it, on classes of very unequal use."""
  rng = np.random.default_rng(0)
  rates = rng.uniform(0.5, 1, 30)
  uses = np.arange(1, 31) ** 2
  truth = (uses * rates).sum() / uses.sum()
  given = np.full(30, 20)
  inside = 0
  for _ in range(1000):
    right = rng.binomial(given, rates)
    counts = label_noise.LabelCounts(given, given, right)
    found = label_noise.weighted_precision(counts, uses)
    inside += found.low <= truth <= found.high
  assert 930 <= inside <= 990


def test_weighted_precision_of_nothing():
  zeros = np.zeros(2, int)
  counts = label_noise.LabelCounts(zeros, zeros, zeros)
  found = label_noise.weighted_precision(counts, np.array([3, 4]))
  assert np.isnan(found.rate) and (found.low, found.high) == (0, 1)
  assert found.covered == 0


def test_confusions_name_what_was_missed():
  found = label_noise.confusions(GIVEN, TRUE, TRUE)
  # Record 2 shows 0 instead; in record 4 all that it shows is given.
  assert found == {1: {0: 1, label_noise.NOTHING: 1}}
  named = ids([], [3], [], [])  # a child of 0, say
  assert label_noise.confusions(GIVEN, TRUE, named)[1][3] == 1
