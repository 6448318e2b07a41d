"""The mAP evaluator with unknown='ignore': from config entry to figures."""

from typing import get_args

import numpy as np
import pytest

from big_vision_like.metrics import ranking
from big_vision_like.metrics.average_precision import Cut, RankingOptions
from tests.evaluators import harness

NUM_CLASSES, NUM_IMAGES = 9, 21
NAMES = [f'class {i}' for i in range(NUM_CLASSES)]


def problem():
  """scores [n, C], labels and negatives as lists and padded [n, 8]."""
  rng = np.random.default_rng(0)
  scores = rng.standard_normal((NUM_IMAGES, NUM_CLASSES)).astype(np.float32)
  labels, negatives = [], []
  for _ in range(NUM_IMAGES):
    order = rng.permutation(NUM_CLASSES)
    p, n = rng.integers(0, 5, 2)
    labels.append(order[:p].tolist())
    negatives.append(order[p : p + n].tolist())
  padded = [np.full((NUM_IMAGES, 8), -1) for _ in range(2)]
  for array, lists in zip(padded, (labels, negatives)):
    for row, ids in zip(array, lists):
      row[: len(ids)] = ids
  return scores, dict(labels=labels, negatives=negatives), padded


def entry(source, op=None, **options):
  label = dict(op='labels', max_labels=8, max_negatives=8, **(op or {}))
  return dict(
    type='multilabel_map',
    data=dict(type=harness.SOURCE, names=NAMES, **source),
    ops=[*harness.IMAGE_OPS, label],
    batch_size=8,
    unknown='ignore',
    **options,
  )


@pytest.mark.parametrize('cut', get_args(Cut))
@pytest.mark.parametrize('shape', [None, (2, 4)])
def test_figures_are_those_of_the_metric(shape, cut):
  scores, source, (labels, negatives) = problem()
  expected = ranking.mean_average_precision(
    scores,
    labels,
    RankingOptions(k=2, cut=cut, unknown='ignore'),
    negative_ids=negatives,
  )
  context = harness.context(NUM_CLASSES, mesh=shape and harness.mesh(*shape))
  evaluator = harness.build(entry(source, k=2, cut=cut), context)
  figures = evaluator.run(harness.pad_classes(scores, 8))
  name = 'map' if cut == 'none' else 'map@2'
  assert figures[name] == pytest.approx(expected, rel=1e-12)
  assert figures['num_negatives'] == (negatives >= 0).sum()
  assert figures['num_images'] == NUM_IMAGES


def test_only_scores_of_known_classes_leave_the_device():
  scores, source, _ = problem()
  evaluator = harness.build(
    entry(source, cut='none'), harness.context(NUM_CLASSES)
  )
  evaluator.run(scores)
  batch = {
    'image': np.zeros((8, 4, 4, 3), np.uint8),
    'label_ids': np.zeros((8, 8), np.int32),
    'negative_ids': np.ones((8, 8), np.int32),
  }
  outputs = evaluator._outputs(scores, batch)
  assert {k: v.shape for k, v in outputs.items()} == {
    'scores': (8, 16),
    'known': (8, 16),
    'nan': (8,),
  }


def test_what_is_unknown_is_no_mistake():
  """The class scored highest is unknown, then verified as absent."""
  scores = np.array([[3, 2, 1]], np.float32)
  data = lambda negatives: dict(
    type=harness.SOURCE, names=list('abc'), labels=[[1]], negatives=[negatives]
  )
  figures = {}
  for case, negatives, unknown in (
    ('unknown', [2], 'ignore'),
    ('absent', [0, 2], 'ignore'),
    ('closed world', [2], 'negative'),
  ):
    changed = entry({}, axis='image', annotated=list('abc'))
    changed |= dict(data=data(negatives), unknown=unknown)
    evaluator = harness.build(changed, harness.context(3))
    figures[case] = evaluator.run(scores)['map@100']
  assert figures == {'unknown': 100, 'absent': 50, 'closed world': 50}


def test_labels_dropped_for_their_confidence_are_not_annotated():
  scores, _, _ = problem()
  source = dict(
    labels=[[0, 1]] * NUM_IMAGES,
    label_conf=[[0.9, 0.2]] * NUM_IMAGES,
    negatives=[[2]] * NUM_IMAGES,
  )
  op = dict(min_confidence=0.5)
  evaluator = harness.build(
    entry(source, op, weights='uniform'), harness.context(NUM_CLASSES)
  )
  assert evaluator.run(scores)['num_classes_evaluated'] == 1
  assert np.flatnonzero(evaluator._allowed).tolist() == [0]


@pytest.mark.parametrize(
  'change, message',
  [
    (dict(unknown='drop'), r"evals\.fasteval\.unknown='drop'; valid: negative"),
    (
      dict(ops=[*harness.IMAGE_OPS, dict(op='labels', max_labels=8)]),
      r"makes the field 'negative_ids' \(set max_negatives of the op 'labels'",
    ),
    (
      dict(close_ground_truth=True),
      r"close_ground_truth: with unknown='ignore' the op",
    ),
  ],
)
def test_bad_options_are_refused_at_construction(change, message):
  source = dict(labels=[[0]], negatives=[[1]], edges=[(NAMES[0], NAMES[1])])
  with pytest.raises(ValueError, match=message):
    harness.build(entry(source) | change, harness.context(NUM_CLASSES))
