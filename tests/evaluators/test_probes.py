"""Linear, few-shot and k-NN probes against scikit-learn, by records."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import softmax
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import log_loss, top_k_accuracy_score
from sklearn.neighbors import KNeighborsClassifier

from big_vision_like.ops import logistic_regression
from evaluators import fewshot
from evaluators.harness import building
from tests.evaluators import harness

NUM_CLASSES = 6
NUM_TRAIN, NUM_DATA, DIM = 150, 61, 12


def features_of(state, batch):
  """Features of record i are state[i]; its pixels say which record it is."""
  return {'features': state[batch['image'][:, 0, 0, 0].astype(jnp.int32)]}


def world():
  """(features [n, D], labels [n]): classes overlap, columns differ in scale."""
  rng = np.random.default_rng(3)
  num = NUM_TRAIN + NUM_DATA
  label = rng.integers(0, NUM_CLASSES, num)
  centres = rng.standard_normal((NUM_CLASSES, DIM))
  x = centres[label] + 1.2 * rng.standard_normal((num, DIM))
  return (x * np.geomspace(0.1, 10, DIM) + 5).astype(np.float32), label


def entry(kind, label, **options):
  names = [str(i) for i in range(NUM_CLASSES)]
  source = lambda part, first: dict(
    type=harness.SOURCE, labels=[[int(i)] for i in part], names=names,
    first=first,
  )  # fmt: skip
  return (
    dict(
      type=kind,
      train=source(label[:NUM_TRAIN], 0),
      data=source(label[NUM_TRAIN:], NUM_TRAIN),
      ops=[*harness.IMAGE_OPS, dict(op='single_label')],
      batch_size=16,
    )
    | options
  )


def build(kind, label, mesh=None, **options):
  ctx = harness.context(999, mesh=mesh)  # the model's classes do not matter
  made = building.from_config(
    {ctx.name: entry(kind, label, **options)},
    {'features': features_of},
    lambda name: ctx,
  )
  return made[ctx.name]


def split(x, label):
  return x[:NUM_TRAIN], label[:NUM_TRAIN], x[NUM_TRAIN:], label[NUM_TRAIN:]


@pytest.mark.parametrize('standardise', [True, False])
@pytest.mark.parametrize('shape', [None, (4, 2)])
def test_linear_probe_is_logistic_regression(shape, standardise):
  x, label = world()
  mesh = shape and harness.mesh(*shape)
  l2 = 0.01
  probe = build(
    'linear_probe', label, mesh, l2=l2, standardise=standardise,
    exclude_ids=[0, 7],
  )  # fmt: skip
  figures = probe.run(x)
  known, classes, asked, truth = split(x.astype(float), label)
  if standardise:
    mean, std = known.mean(0), known.std(0) + 1e-5
    known, asked = (known - mean) / std, (asked - mean) / std
  model = LogisticRegression(C=1 / (NUM_TRAIN * l2), max_iter=20_000, tol=1e-8)
  probability = model.fit(known, classes).predict_proba(asked)
  rest = np.delete(np.arange(NUM_DATA), [0, 7])
  for chosen, suffix in ((np.arange(NUM_DATA), ''), (rest, '/dedup')):
    for k in (1, 5):
      assert figures[f'top{k}{suffix}'] == pytest.approx(
        100 * top_k_accuracy_score(truth[chosen], probability[chosen], k=k)
      )
    assert figures[f'loss{suffix}'] == pytest.approx(
      log_loss(truth[chosen], probability[chosen]), rel=2e-4
    )
    assert figures[f'num_images{suffix}'] == len(chosen)
  assert figures['l2'] == l2


@pytest.mark.parametrize(
  ('scale', 'l2'),
  [(0.01, 0.1), (0.01, 1e-3), (1, 0.1), (1, 1e-3), (10, 0.1), (1, 1e-5)],
)
def test_objective_of_real_features_is_within_its_gap_of_the_least(scale, l2):
  """Handwritten digits, against scikit-learn in float64."""
  x, label = load_digits(return_X_y=True)
  x, label = scale * x[:600] / 16, label[:600]
  fit = logistic_regression.fit(logistic_regression.basis(x), label, 10, l2)
  peer = LogisticRegression(C=1 / (600 * l2), max_iter=50_000, tol=1e-8)
  peer.fit(x, label)

  def objective(kernel, bias):
    probability = softmax(x @ kernel + bias, axis=1)
    return log_loss(label, probability) + l2 / 2 * np.sum(kernel**2)

  ours, least = (
    objective(np.asarray(kernel, np.float64), np.asarray(bias, np.float64))
    for kernel, bias in (
      (fit.kernel, fit.bias),
      (peer.coef_.T, peer.intercept_),
    )
  )
  assert float(fit.gap) <= 1e-7
  assert -1e-6 * least <= ours - least <= 1e-6 * least
  assert float(fit.loss) == pytest.approx(ours, rel=1e-5)


def test_linear_probe_takes_the_l2_with_the_least_held_out_loss(capsys):
  x, label = world()
  path = (10.0, 1e-2, 1e-6)
  known, classes, _, _ = split(x.astype(float), label)
  known = (known - known.mean(0)) / (known.std(0) + 1e-5)
  probe = build('linear_probe', label, l2=path, holdout_percent=30)
  out = probe._sets.held_out('train', 30)
  assert 20 < out.sum() < 70
  losses = []
  for l2 in path:
    model = LogisticRegression(
      C=1 / ((~out).sum() * l2), max_iter=20_000, tol=1e-8
    ).fit(known[~out], classes[~out])
    losses.append(log_loss(classes[out], model.predict_proba(known[out])))
  assert probe.run(x)['l2'] == path[int(np.argmin(losses))] == 1e-2
  stopped = [n for n in capsys.readouterr().out.splitlines() if 'stopped' in n]
  assert not stopped  # where float32 gets no nearer, float64 does
  build('linear_probe', label, l2=1e-6, max_steps=2).run(x)
  assert (
    'l2=1e-06: the solver stopped at max_steps=2' in capsys.readouterr().out
  )


@pytest.mark.parametrize('shape', [None, (2, 4)])
def test_fewshot_is_ridge_regression(shape, capsys):
  x, label = world()
  mesh = shape and harness.mesh(*shape)
  probe = build(
    'fewshot', label, mesh, shots=(1, 5, 40), num_seeds=2, l2=16.0,
    exclude_ids=['record-3'],
  )  # fmt: skip
  figures = probe.run(x)
  known, classes, asked, truth = split(x.astype(float), label)
  for k in (1, 5, 40):
    top1 = []
    for seed in range(2):
      drawn = fewshot.rank_in_class(classes, seed) < k
      mean, std = known[drawn].mean(0), known[drawn].std(0) + 1e-5
      model = Ridge(alpha=16.0).fit(
        (known[drawn] - mean) / std, 2 * np.eye(NUM_CLASSES)[classes[drawn]] - 1
      )
      hits = model.predict((asked - mean) / std).argmax(1) == truth
      top1.append([100 * hits.mean(), 100 * np.delete(hits, 3).mean()])
    for suffix, values in zip(('', '/dedup'), np.transpose(top1)):
      assert figures[f'{k}shot{suffix}'] == pytest.approx(np.mean(values))
      assert figures[f'{k}shot_std{suffix}'] == pytest.approx(np.std(values))
  assert 'of 6 classes have fewer than 40 images' in capsys.readouterr().out


def test_shots_are_nested_random_and_k_a_class():
  label = np.random.default_rng(0).integers(0, 9, 500)
  counts = np.bincount(label)
  draws = []
  for seed in range(3):
    ranks = fewshot.rank_in_class(label, seed)
    for k in (1, 5, 400):
      drawn = np.bincount(label[ranks < k], minlength=9)
      np.testing.assert_array_equal(drawn, np.minimum(counts, k))
    draws.append(np.flatnonzero(ranks < 5))
  assert not np.array_equal(draws[0], draws[1])


@pytest.mark.parametrize('shape', [None, (8, 1)])
def test_knn_votes_as_scikit_learn(shape):
  x, label = world()
  x -= x.mean(0)
  mesh = shape and harness.mesh(*shape)
  probe = build('knn', label, mesh, k=(1, 7, 30), exclude_ids=[1])
  figures = probe.run(x)
  known, classes, asked, truth = split(x.astype(float), label)
  for k in (1, 7, 30):
    model = KNeighborsClassifier(
      k, metric='cosine', weights=lambda d: np.exp((1 - d) / 0.07)
    )
    hits = model.fit(known, classes).predict(asked) == truth
    assert figures[f'{k}nn'] == pytest.approx(100 * hits.mean())
    assert figures[f'{k}nn/dedup'] == pytest.approx(
      100 * np.delete(hits, 1).mean()
    )


@pytest.mark.parametrize(
  'kind,options,message',
  [
    ('linear_probe', dict(l2=0.0), 'evals.fasteval.l2=0.0 must be float above'),
    (
      'linear_probe',
      dict(l2=[]),
      r'evals.fasteval.l2=\[\] must be .*not empty',
    ),
    ('linear_probe', dict(holdout_percent=100), 'holdout_percent=100'),
    ('linear_probe', dict(max_steps=0), 'max_steps=0'),
    (
      'fewshot',
      dict(shots=[0]),
      r'fasteval.shots=\[0\] must be list of int of',
    ),
    ('fewshot', dict(l2=-1), 'l2=-1'),
    ('knn', dict(k=[]), r'evals.fasteval.k=\[\] must be .*, not empty'),
    ('knn', dict(k=[151]), 'k=151 is more than the 150 images of train'),
    ('knn', dict(temperature=0), 'temperature=0 must be float above 0'),
  ],
)
def test_mistakes_are_named_at_the_start(kind, options, message):
  with pytest.raises(ValueError, match=message):
    build(kind, world()[1], **options)


@pytest.mark.parametrize('kind', ['linear_probe', 'fewshot', 'knn'])
def test_both_sets_have_the_same_classes_and_finite_features(kind):
  x, label = world()
  bad = entry(kind, label)
  bad['data']['names'] = [*bad['data']['names'][:-1], 'other']
  ctx = harness.context(999)
  with pytest.raises(ValueError, match='train and data have different classes'):
    building.from_config(
      {ctx.name: bad}, {'features': features_of}, lambda name: ctx
    )
  x[4, 2] = np.nan
  with pytest.raises(ValueError, match=r'not finite: record-4$'):
    build(kind, label).run(x)
