"""mAP@k against a worked example, scikit-learn and a brute-force reference."""

import itertools
import math
from typing import get_args

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from big_vision_like.metrics import average_precision as ap
from big_vision_like.metrics import ranking
from big_vision_like.metrics.average_precision import RankingOptions

# The worked example of docs/map-at-100.md: classes A, B, C, and D, which is
# not annotated; images 1, 2, 3.
_SCORES = np.array(
  [[0.90, 0.80, 0.10, 0.20], [0.70, 0.60, 0.65, 0.05], [0.30, 0.95, 0.50, 0.60]]
)
_LABELS = np.array([[0, 2], [0, 1], [1, -1]])
_ANNOTATED = np.array([True, True, True, False])
_FILE = np.array([0.5, 0.3, 0.2, np.nan])


def _worked(weights, **options):
  return ranking.mean_average_precision(
    _SCORES,
    _LABELS,
    RankingOptions(k=2, **options),
    weights=weights,
    annotated=_ANNOTATED,
  )


@pytest.mark.parametrize(
  ('weights', 'options', 'expected'),
  [
    (_FILE, {}, 0.65),
    ('uniform', {}, 0.5),
    (_FILE, {'cut': 'none'}, 0.81667),
    ('uniform', {'axis': 'image', 'denominator': 'min_n_k'}, 0.66667),
    (_FILE, {'axis': 'image'}, 0.77976),
    ('uniform', {'axis': 'pooled'}, 0.55),
  ],
)
def test_worked_example(weights, options, expected):
  assert _worked(weights, **options) == pytest.approx(100 * expected, abs=5e-4)


def test_worked_example_per_class():
  accumulator = ranking.RankingAccumulator(
    4, RankingOptions(k=2), weights=_FILE, annotated=_ANNOTATED
  )
  accumulator.add_full(_SCORES, _LABELS, np.arange(3))
  result = accumulator.result()
  np.testing.assert_allclose(
    result.average_precision, [1, 0.5, 0, np.nan], rtol=1e-12
  )
  np.testing.assert_array_equal(result.class_counts, [2, 2, 1, 0])
  assert (result.num_images, result.num_labels, result.num_classes) == (3, 5, 3)
  assert result.over(np.array([False, True, True, True])) == pytest.approx(30)
  assert result.over(np.array([False, False, False, True])) is None


def _reference(scores, truth, vocabulary, options, weights):
  """The definition, literally, in Python floats; quadratic."""
  images = range(len(truth))
  truth = [t & vocabulary for t in truth]
  if options.cut == 'per_image':
    kept = {
      (i, c)
      for i in images
      for c in sorted(vocabulary, key=lambda c: (-scores[i][c], c))[: options.k]
    }
  elif options.cut == 'per_class':
    kept = {
      (i, c)
      for c in vocabulary
      for i in sorted(images, key=lambda i: (-scores[i][c], i))[: options.k]
    }
  else:
    kept = {(i, c) for i in images for c in vocabulary}
  positives = {(i, c) for i in images for c in truth[i]}
  counts = {c: sum(c in t for t in truth) for c in vocabulary}
  if not isinstance(weights, str):
    weight = {c: float(weights[c]) for c in vocabulary}
  elif weights == 'uniform':
    weight = dict.fromkeys(vocabulary, 1.0)
  elif weights == 'gt_frequency':
    weight = {c: counts[c] / len(truth) for c in vocabulary}
  else:
    weight = {c: math.log(1 + counts[c]) for c in vocabulary}

  def before(a, b):  # entry a ranks at or before entry b
    return (-scores[a[0]][a[1]], *a) <= (-scores[b[0]][b[1]], *b)

  def group_value(entries, wanted, gain, unit):
    hits = entries & wanted
    numerator = 0.0
    for hit in hits:
      ahead = [e for e in entries if before(e, hit)]
      numerator += gain(hit) * len(wanted & set(ahead)) / len(ahead)
    by_limit = {}
    for i, c in wanted:
      limit = 0
      if options.axis == 'pooled':
        limit = i if options.cut == 'per_image' else c
      by_limit.setdefault(limit, []).append(unit((i, c)))
    if options.denominator == 'all_positives':
      bottom = sum(map(unit, wanted))
    elif options.denominator == 'retrieved':
      bottom = sum(map(unit, hits))
    else:
      bottom = sum(
        sum(sorted(g, reverse=True)[: options.k]) for g in by_limit.values()
      )
    return numerator / bottom if bottom else 0.0

  def gain(entry):
    return weight[entry[1]]

  one = lambda entry: 1.0
  if options.axis == 'class':
    values = {
      c: group_value(
        {e for e in kept if e[1] == c},
        {e for e in positives if e[1] == c},
        one,
        one,
      )
      for c in vocabulary
      if counts[c]
    }
    total = sum(weight[c] * v for c, v in values.items())
    norm = sum(weight[c] for c in values) if options.normalise_weights else 1
    return 100 * total / norm
  unit = gain if options.normalise_weights else one
  if options.axis == 'pooled':
    return 100 * group_value(kept, positives, gain, unit)
  values = [
    group_value(
      {e for e in kept if e[0] == i},
      {e for e in positives if e[0] == i},
      gain,
      unit,
    )
    for i in images
    if truth[i]
  ]
  return 100 * sum(values) / len(values)


_NUM_CLASSES = 9


def _random(seed, num_images=17, ties=True, dtype=np.float32):
  """Scores (with ties), padded labels, sets of labels, annotated mask."""
  rng = np.random.default_rng(seed)
  scores = rng.standard_normal((num_images, _NUM_CLASSES))
  if ties:
    scores = np.round(2 * scores) / 2  # -0.0 and 0.0 tie as well
  labels = np.full((num_images, 5), -1)
  for row in labels:
    some = rng.choice(_NUM_CLASSES - 1, rng.integers(0, 6), replace=False)
    row[: len(some)] = some
  labels[0, :2] = [0, 1]
  annotated = np.ones(_NUM_CLASSES, bool)
  annotated[[3, _NUM_CLASSES - 1]] = False
  sets = [set(row[row >= 0].tolist()) for row in labels]
  return scores.astype(dtype), labels, sets, annotated


_COMBINATIONS = [
  dict(vocab=v, axis=a, cut=c, denominator=d, normalise_weights=n)
  for v, a, c, d, n in itertools.product(
    *map(get_args, (ap.Vocab, ap.Axis, ap.Cut, ap.Denominator)), (True, False)
  )
  if (c, d) != ('none', 'min_n_k')
]


@pytest.mark.parametrize('options', _COMBINATIONS, ids=lambda o: str(o))
def test_brute_force(options):
  options = RankingOptions(k=3, **options)
  for seed, weights in enumerate(
    ['uniform', 'gt_frequency', 'log1p_frequency', 'file']
  ):
    scores, labels, sets, annotated = _random(seed)
    if weights == 'file':
      weights = np.random.default_rng(9).random(_NUM_CLASSES)
    vocabulary = set(range(_NUM_CLASSES))
    if options.vocab == 'annotated':
      vocabulary = set(np.flatnonzero(annotated).tolist())
    expected = _reference(
      scores.astype(float).tolist(), sets, vocabulary, options, weights
    )
    actual = ranking.mean_average_precision(
      scores, labels, options, weights=weights, annotated=annotated
    )
    assert actual == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize('axis', get_args(ap.Axis))
def test_scikit_learn(axis):
  rng = np.random.default_rng(3)
  scores = rng.permuted(np.arange(60 * 12.0)).reshape(60, 12)  # no ties
  truth = rng.random((60, 12)) < 0.2
  truth[:, 5] = False  # a class without positives is dropped
  truth[7] = False  # and so is an image
  labels = np.where(truth, np.arange(12), -1)
  options = RankingOptions(axis=axis, cut='none', vocab='all')
  actual = ranking.mean_average_precision(
    scores, labels, options, weights='uniform'
  )
  if axis == 'pooled':
    expected = average_precision_score(truth, scores, average='micro')
  elif axis == 'class':
    used = truth.any(0)
    expected = average_precision_score(truth[:, used], scores[:, used])
  else:
    used = truth.any(1)
    expected = average_precision_score(
      truth[used], scores[used], average='samples'
    )
  assert actual == pytest.approx(100 * expected, rel=1e-12)


@pytest.mark.parametrize('cut', get_args(ap.Cut))
@pytest.mark.parametrize('axis', get_args(ap.Axis))
def test_order_of_batches_is_immaterial(axis, cut, monkeypatch):
  monkeypatch.setattr(ranking, '_SCRATCH_CELLS', 30)  # several chunks a batch
  scores, labels, _, annotated = _random(4, num_images=60)
  options = RankingOptions(k=3, axis=axis, cut=cut)
  expected = ranking.mean_average_precision(
    scores, labels, options, annotated=annotated
  )
  order = np.random.default_rng(5).permutation(60)
  for size in (1, 7, 60):
    accumulator = ranking.RankingAccumulator(
      _NUM_CLASSES, options, annotated=annotated
    )
    for first in range(0, 60, size):
      part = order[first : first + size]
      accumulator.add_full(scores[part], labels[part], part)
    assert accumulator.result().value == pytest.approx(expected, rel=1e-14)


def test_per_class_cut_holds_few_entries():
  rng = np.random.default_rng(6)
  options = RankingOptions(k=2, cut='per_class')
  accumulator = ranking.RankingAccumulator(
    4, options, annotated=np.ones(4, bool)
  )
  accumulator._truth = np.zeros((2, 4), bool)
  for i in range(200):
    accumulator.add_full(
      rng.standard_normal((1, 4)), np.array([[i % 4]]), np.array([i])
    )
    assert accumulator._num_entries <= 2 * 2 * 4 + 8
  assert accumulator.result().num_images == 200


def test_exclude_equals_a_smaller_set():
  scores, labels, _, annotated = _random(7)
  for axis in get_args(ap.Axis):
    options = RankingOptions(k=3, axis=axis)
    accumulator = ranking.RankingAccumulator(
      _NUM_CLASSES, options, annotated=annotated
    )
    accumulator.add_full(scores, labels, 10 + np.arange(17))
    keep = np.ones(17, bool)
    keep[[0, 5, 16]] = False
    result = accumulator.result(exclude=[10, 15, 26])
    assert result.num_images == 14
    assert result.value == ranking.mean_average_precision(
      scores[keep], labels[keep], options, annotated=annotated
    )
    assert accumulator.result().num_images == 17


def test_closing_the_ground_truth():
  ancestors = {0: [4], 1: [4, 8], 2: [5]}
  close = lambda ids: np.unique(
    [x for i in ids.tolist() for x in [i, *ancestors.get(i, [])]]
  ).astype(np.int32)
  scores, labels, _, annotated = _random(8)
  closed = np.full((17, _NUM_CLASSES), -1)
  for row, ids in zip(closed, labels):
    ids = close(ids[ids >= 0])
    row[: len(ids)] = ids
  results = []
  for truth, function in ((labels, close), (closed, None)):
    accumulator = ranking.RankingAccumulator(
      _NUM_CLASSES, annotated=annotated, close=function
    )
    accumulator.add_full(scores, truth, np.arange(17))
    results.append(accumulator.result())
  assert results[0].value == results[1].value
  assert results[0].num_labels == results[1].num_labels
  assert results[0].num_labels > (annotated[labels] & (labels >= 0)).sum()


def test_candidates_from_a_device_top_k():
  """Padding (-1) and classes outside the vocabulary are no candidates."""
  accumulator = ranking.RankingAccumulator(
    4, RankingOptions(k=3), annotated=_ANNOTATED
  )
  accumulator.add(
    np.array([[0.9, 0.8, -np.inf]], np.float32),
    np.array([[0, 3, -1]]),
    np.array([[0, 3, -1]]),
    np.array([0]),
  )
  result = accumulator.result()
  assert (result.value, result.num_labels) == (100, 1)


def _accumulator(**options):
  return ranking.RankingAccumulator(
    4, RankingOptions(k=2, **options), annotated=_ANNOTATED
  )


def test_nan_scores_name_the_images():
  accumulator = _accumulator()
  scores = _SCORES.copy()
  scores[1, 2] = np.nan
  with pytest.raises(ValueError, match=r'scores of 1 images are NaN: ids 42'):
    accumulator.add_full(scores, _LABELS, np.array([41, 42, 43]))


def test_bad_input():
  with pytest.raises(ValueError, match='empty set'):
    _accumulator().result()
  accumulator = _accumulator()
  accumulator.add_full(_SCORES[:1], np.array([[3]]), np.array([0]))
  with pytest.raises(ValueError, match='no image has a label in the voc'):
    accumulator.result()
  accumulator = _accumulator()
  accumulator.add_full(_SCORES, _LABELS, np.array([0, 5, 5]))
  with pytest.raises(ValueError, match='more than once: 5'):
    accumulator.result()
  with pytest.raises(ValueError, match='every image is excluded'):
    accumulator = _accumulator()
    accumulator.add_full(_SCORES, _LABELS, np.arange(3))
    accumulator.result(exclude=range(3))
  for label in (4, -2):
    with pytest.raises(ValueError, match=rf'label ids {label} of images 7'):
      _accumulator().add_full(_SCORES[:1], np.array([[label]]), np.array([7]))
  with pytest.raises(ValueError, match='k=0 must be int of at least 1'):
    RankingOptions(k=0)
  for name, valid in (
    ('vocab', 'annotated, all'),
    ('axis', 'class, image, pooled'),
    ('cut', 'per_image, per_class, none'),
    ('denominator', 'all_positives, min_n_k, retrieved'),
  ):
    with pytest.raises(ValueError, match=f"^{name}='klass'; valid: {valid}$"):
      RankingOptions(**{name: 'klass'})
  with pytest.raises(ValueError, match='needs a cut at k'):
    RankingOptions(cut='none', denominator='min_n_k')


def test_full_scores_have_a_limit(monkeypatch):
  monkeypatch.setattr(ranking, 'MAX_FULL_SCORES', 8)
  with pytest.raises(ValueError, match=r"cut='none' keeps .* 9 here"):
    _accumulator(cut='none').add_full(_SCORES, _LABELS, np.arange(3))


def test_bad_weights():
  def build(weights):
    return ranking.RankingAccumulator(4, weights=weights, annotated=_ANNOTATED)

  with pytest.raises(ValueError, match='weights must be one of uniform'):
    build('frequency')
  with pytest.raises(ValueError, match=r'shape \(4,\)'):
    build(np.ones(3))
  with pytest.raises(ValueError, match='classes 1 are negative'):
    build(np.array([1, -1, 1, 1]))
  accumulator = build(np.array([1, np.nan, 1, 1]))
  accumulator.add_full(_SCORES, _LABELS, np.arange(3))
  with pytest.raises(ValueError, match='no weight for classes 1'):
    accumulator.result()
  accumulator = build(np.array([0, 0, 0, 1]))
  accumulator.add_full(_SCORES, _LABELS, np.arange(3))
  with pytest.raises(ValueError, match='weight above 0'):
    accumulator.result()
