"""mAP over known pairs only: scikit-learn on the known images, brute force."""

import itertools
from typing import get_args

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from big_vision_like.metrics import ranking
from big_vision_like.metrics.average_precision import Axis, Cut, RankingOptions

IMAGES, CLASSES = 60, 12


def problem(seed=0, ties=False):
  """scores [n, C]; labels [n, 4], negatives [n, 5] padded; state [n, C]."""
  rng = np.random.default_rng(seed)
  scores = rng.permutation(IMAGES * CLASSES).reshape(IMAGES, CLASSES) / 100 - 2
  if ties:
    scores = np.round(scores)
  labels = np.full((IMAGES, 4), -1)
  negatives = np.full((IMAGES, 5), -1)
  state = np.zeros((IMAGES, CLASSES), int)  # 1 present, -1 absent, 0 unknown
  for i in range(IMAGES):
    order = rng.permutation(CLASSES - 1)  # nothing is known of the last class
    p, n = rng.integers(0, 5), rng.integers(0, 6)
    labels[i, :p], negatives[i, :n] = order[:p], order[p : p + n]
    state[i, order[:p]], state[i, order[p : p + n]] = 1, -1
  return scores, labels, negatives, state


def test_without_a_cut_it_is_scikit_learn_on_the_known_images():
  scores, labels, negatives, state = problem()
  accumulator = ranking.RankingAccumulator(
    CLASSES,
    RankingOptions(cut='none', unknown='ignore'),
    weights='uniform',
    annotated=np.ones(CLASSES, bool),
  )
  known = np.concatenate([negatives, labels], axis=1)
  picked = np.take_along_axis(scores, np.maximum(known, 0), 1)
  ids = np.arange(IMAGES)
  for part in (slice(0, 7), slice(7, IMAGES)):
    accumulator.add_known(picked[part], known[part], labels[part], ids[part])
  result = accumulator.result()
  expected = []
  for c in range(CLASSES - 1):
    rows = state[:, c] != 0
    expected.append(
      average_precision_score(state[rows, c] == 1, scores[rows, c])
    )
  np.testing.assert_allclose(
    result.average_precision[:-1], expected, rtol=1e-12
  )
  assert np.isnan(result.average_precision[-1])
  assert result.value == pytest.approx(100 * np.mean(expected), rel=1e-12)
  assert result.num_negatives == (state < 0).sum()
  rest = accumulator.result(exclude=[0, 59])
  assert rest.num_negatives == (state[1:-1] < 0).sum()
  by_hand = ranking.mean_average_precision(
    scores[1:-1], labels[1:-1], accumulator.options, weights='uniform',
    negative_ids=negatives[1:-1],
  )  # fmt: skip
  assert rest.value == pytest.approx(by_hand, rel=1e-12)


def brute_force(scores, state, k, axis, cut):
  """Uniform weights, all positives count; loops over pairs."""
  pairs = [
    (i, c)
    for i, c in itertools.product(range(IMAGES), range(CLASSES))
    if state[i, c]
  ]
  if cut == 'per_image':
    kept = []
    for i in range(IMAGES):
      mine = sorted((-scores[i, c], c) for j, c in pairs if j == i)
      kept += [(i, c) for _, c in mine[:k]]
  elif cut == 'per_class':
    kept = []
    for c in range(CLASSES):
      mine = sorted((-scores[i, c], i) for i, d in pairs if d == c)
      kept += [(i, c) for _, i in mine[:k]]
  else:
    kept = pairs
  group = {'class': lambda i, c: c, 'image': lambda i, c: i}.get(
    axis, lambda i, c: 0
  )
  values = []
  for g in sorted({group(i, c) for i, c in pairs if state[i, c] == 1}):
    total = sum(state[i, c] == 1 for i, c in pairs if group(i, c) == g)
    ranked = sorted((-scores[i, c], i, c) for i, c in kept if group(i, c) == g)
    hits, value = 0, 0.0
    for rank, (_, i, c) in enumerate(ranked, 1):
      if state[i, c] == 1:
        hits += 1
        value += hits / rank
    values.append(value / total)
  return 100 * np.mean(values)


@pytest.mark.parametrize('axis', get_args(Axis))
@pytest.mark.parametrize('cut', get_args(Cut))
@pytest.mark.parametrize('ties', [False, True])
def test_is_brute_force(axis, cut, ties):
  scores, labels, negatives, state = problem(1, ties)
  actual = ranking.mean_average_precision(
    scores,
    labels,
    RankingOptions(k=3, axis=axis, cut=cut, unknown='ignore'),
    weights='uniform',
    negative_ids=negatives,
  )
  expected = brute_force(scores, state, 3, axis, cut)
  assert actual == pytest.approx(expected, rel=1e-12)


def test_unknown_classes_take_no_place_of_the_k():
  """The best score is of a class nobody verified: it is not a mistake."""
  scores = np.array([[0.9, 0.5, 0.1]])
  args = (scores, np.array([[1]]))
  annotated = np.ones(3, bool)
  one = RankingOptions(k=1)
  assert ranking.mean_average_precision(*args, one, annotated=annotated) == 0
  one = RankingOptions(k=1, unknown='ignore')
  value = ranking.mean_average_precision(
    *args, one, annotated=annotated, negative_ids=np.array([[2]])
  )
  assert value == 100


def test_everything_known_is_the_plain_metric():
  scores, labels, _, state = problem(2)
  rest = np.tile(np.arange(CLASSES), (IMAGES, 1))
  rest[state == 1] = -1
  for cut in get_args(Cut):
    plain = ranking.mean_average_precision(
      scores, labels, RankingOptions(k=3, cut=cut),
      annotated=np.ones(CLASSES, bool),
    )  # fmt: skip
    known = ranking.mean_average_precision(
      scores, labels, RankingOptions(k=3, cut=cut, unknown='ignore'),
      annotated=np.ones(CLASSES, bool), negative_ids=rest,
    )  # fmt: skip
    assert known == plain


@pytest.mark.parametrize(
  'call, message',
  [
    (lambda a: a.add(*_ARGS), "takes add_known, 'negative' add and add_full"),
    (lambda a: a.add_full(_ARGS[0], *_ARGS[2:]), 'takes add_known'),
    (
      lambda a: a.add_known(_ARGS[0], np.array([[1, 1]]), *_ARGS[2:]),
      'classes given twice for images 7',
    ),
    (
      lambda a: a.add_known(_ARGS[0], np.array([[1, 3]]), *_ARGS[2:]),
      r'label ids 3 of images 7 are not in 0\.\.2',
    ),
    (
      lambda a: a.add_known(np.array([[0, np.nan]]), *_ARGS[1:]),
      'NaN: ids 7',
    ),
    (lambda a: a.add_known(_ARGS[0][:, :1], *_ARGS[1:]), r'must be \[n, m\]'),
  ],
)
def test_mistakes_are_named(call, message):
  accumulator = ranking.RankingAccumulator(
    3, RankingOptions(unknown='ignore'), annotated=np.ones(3, bool)
  )
  with pytest.raises(ValueError, match=message):
    call(accumulator)


_ARGS = (
  np.array([[0.5, 0.2]]), np.array([[1, 0]]), np.array([[1]]), np.array([7])
)  # fmt: skip


def test_wrong_options_are_named(monkeypatch):
  with pytest.raises(ValueError, match=r"^unknown='drop'; valid: neg"):
    RankingOptions(unknown='drop')
  options = RankingOptions(unknown='ignore')
  with pytest.raises(ValueError, match='close them before'):
    ranking.RankingAccumulator(
      3, options, annotated=np.ones(3, bool), close=lambda ids: ids
    )
  with pytest.raises(ValueError, match='needs negative_ids'):
    ranking.mean_average_precision(_ARGS[0], _ARGS[2], options)
  accumulator = ranking.RankingAccumulator(3, annotated=np.ones(3, bool))
  with pytest.raises(ValueError, match='takes add_known'):
    accumulator.add_known(*_ARGS)
  monkeypatch.setattr(ranking, 'MAX_FULL_SCORES', 1)
  options = RankingOptions(unknown='ignore', cut='none')
  accumulator = ranking.RankingAccumulator(
    3, options, annotated=np.ones(3, bool)
  )
  with pytest.raises(ValueError, match="cut='none' keeps"):
    accumulator.add_known(*_ARGS)
