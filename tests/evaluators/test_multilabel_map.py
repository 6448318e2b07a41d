"""The mAP@k evaluator: from config entry to figures, on several meshes."""

import json

import numpy as np
import pytest

from big_vision_like.metrics import ranking
from big_vision_like.metrics.average_precision import RankingOptions
from input_pipeline.labels.hierarchy import Hierarchy
from input_pipeline.labels.vocabulary import Vocabulary
from tests.evaluators import harness

_WORKED_SCORES = np.array(
  [
    [0.90, 0.80, 0.10, 0.20],
    [0.70, 0.60, 0.65, 0.05],
    [0.30, 0.95, 0.50, 0.60],
  ],
  np.float32,
)
_NUM_CLASSES = 9
_NAMES = [f'class {i}' for i in range(_NUM_CLASSES)]


def _labels_op(**options):
  return dict(op='labels', max_labels=8, **options)


def _entry(source, **options):
  entry = dict(
    type='multilabel_map',
    every_steps=10,
    at_start=True,
    data=dict(type=harness.SOURCE, **source),
    ops=[*harness.IMAGE_OPS, _labels_op()],
    batch_size=8,
  )
  return entry | options


def _worked(**options):
  source = dict(labels=[[0, 2], [0, 1], [1]], names=['A', 'B', 'C', 'D'])
  return _entry(source, k=2, annotated=['A', 'B', 'C'], **options)


def _run(entry, num_classes, scores, **context):
  ctx = harness.context(num_classes, **context)
  return harness.build(entry, ctx).run(scores)


def test_worked_example(tmp_path):
  weights = tmp_path / 'weights.csv'
  weights.write_text('name,weight\nA,0.5\nB,0.3\nC,0.2\n')
  figures = _run(_worked(weights=str(weights)), 4, _WORKED_SCORES)
  assert figures == {
    'map@2': pytest.approx(65),
    'num_images': 3,
    'num_classes_evaluated': 3,
  }
  rows = [dict(name=n, weight=w) for n, w in (('A', 1), ('B', 1), ('C', 1))]
  weights = tmp_path / 'weights.jsonl'
  weights.write_text('\n'.join(map(json.dumps, rows)))
  figures = _run(_worked(weights=str(weights)), 4, _WORKED_SCORES)
  assert figures['map@2'] == pytest.approx(50)


@pytest.mark.parametrize(
  ('options', 'expected'),
  [
    (dict(weights='uniform'), 0.5),
    (dict(axis='image', denominator='min_n_k', weights='uniform'), 0.66667),
    (dict(axis='pooled', weights='uniform'), 0.55),
  ],
)
def test_worked_example_alternatives(options, expected):
  figures = _run(_worked(**options), 4, _WORKED_SCORES)
  assert figures['map@2'] == pytest.approx(100 * expected, abs=5e-4)


def test_worked_example_without_a_cut():
  entry = _worked(cut='none', weights='uniform')
  figures = _run(entry, 4, _WORKED_SCORES)
  assert figures['map'] == pytest.approx(100 * (1 + 5 / 6 + 1 / 3) / 3)


def _random(num_images=21):
  rng = np.random.default_rng(0)
  scores = np.round(rng.standard_normal((num_images, _NUM_CLASSES)), 1)
  labels = [
    rng.choice(_NUM_CLASSES - 2, rng.integers(0, 5), replace=False).tolist()
    for _ in range(num_images)
  ]
  padded = np.full((num_images, 8), -1)
  for row, ids in zip(padded, labels):
    row[: len(ids)] = ids
  return scores.astype(np.float32), labels, padded


@pytest.mark.parametrize('cut', ['per_image', 'per_class'])
@pytest.mark.parametrize('shape', [None, (8, 1), (4, 2), (1, 8)])
def test_devices_and_batches_do_not_matter(shape, cut):
  scores, labels, padded = _random()
  expected = ranking.mean_average_precision(
    scores, padded, RankingOptions(k=3, cut=cut)
  )
  logits = harness.pad_classes(scores, 8)
  mesh = shape and harness.mesh(*shape)
  for batch_size in (8, 24):
    entry = _entry(
      dict(labels=labels, names=_NAMES), k=3, cut=cut, batch_size=batch_size
    )
    evaluator = harness.build(entry, harness.context(_NUM_CLASSES, mesh=mesh))
    for _ in range(2):  # the same again: nothing is left over
      figures = evaluator.run(logits)
      assert figures['map@3'] == pytest.approx(expected, rel=1e-12)
      assert figures['num_images'] == 21


def test_only_the_top_k_leave_the_device():
  scores, labels, _ = _random()
  entry = _entry(dict(labels=labels, names=_NAMES), k=3)
  evaluator = harness.build(entry, harness.context(_NUM_CLASSES))
  evaluator.run(scores)
  image = np.zeros((8, 4, 4, 3), np.uint8)
  outputs = evaluator._outputs(scores, {'image': image})
  assert {k: v.shape for k, v in outputs.items()} == {
    'scores': (8, 3),
    'classes': (8, 3),
    'nan': (8,),
  }


def test_the_vocabulary_is_found_without_reading_images():
  scores, labels, _ = _random()
  entry = _entry(dict(labels=labels, names=_NAMES), k=3)
  evaluator = harness.build(entry, harness.context(_NUM_CLASSES))
  source = evaluator._data.source
  assert source.num_reads == 0
  evaluator.run(scores)
  assert source.num_reads == 21
  used = {i for ids in labels for i in ids}
  np.testing.assert_array_equal(
    np.flatnonzero(evaluator._allowed), sorted(used)
  )


def test_fill_in_equals_closing_the_ground_truth():
  scores, labels, _ = _random()
  edges = [(_NAMES[0], _NAMES[7]), (_NAMES[1], _NAMES[7])]
  source = dict(labels=labels, names=_NAMES, edges=edges)
  plain = _run(_entry(source, k=3), _NUM_CLASSES, scores)
  closed = _run(
    _entry(source, k=3, close_ground_truth=True), _NUM_CLASSES, scores
  )
  filled = _entry(
    source, k=3, ops=[*harness.IMAGE_OPS, _labels_op(fill_in=True)]
  )
  assert closed == _run(filled, _NUM_CLASSES, scores)
  assert closed['num_classes_evaluated'] == plain['num_classes_evaluated'] + 1


class _Trained:
  """What the training source tells: names and counts."""

  def __init__(self, names, counts, edges=None):
    counts = None if counts is None else np.array(counts)
    self.vocabulary = Vocabulary(tuple(names), counts=counts)
    self.hierarchy = None
    if edges is not None:
      self.hierarchy = Hierarchy.from_edges(names, edges)


def test_buckets_by_training_frequency(tmp_path):
  scores = _WORKED_SCORES
  counts = [20_000, 500, 3, 0]
  train = lambda: _Trained('ABCD', counts)
  figures = _run(_worked(weights='uniform'), 4, scores, train_source=train)
  buckets = {'map@2_head': 100, 'map@2_torso': 50, 'map@2_tail': 0}
  assert {k: figures[k] for k in buckets} == buckets
  entry = _worked(weights='uniform', tail_below=1, head_from=500)
  figures = _run(entry, 4, scores, train_source=train)
  assert figures['map@2_head'] == 75 and figures['map@2_torso'] == 0
  assert 'map@2_tail' not in figures  # D has no positives
  path = tmp_path / 'counts.csv'
  path.write_text('name,count\nA,1\nB,2\nC,100\nD,5\n')
  entry = _worked(weights='uniform', train_counts=str(path))
  figures = _run(entry, 4, scores)
  assert figures['map@2_tail'] == 75 and figures['map@2_torso'] == 0


def test_an_ancestor_is_as_frequent_as_its_descendants_together():
  train = lambda: _Trained('ABCD', [0, 60, 50, 5], [('B', 'A'), ('C', 'A')])
  entry = _worked(weights='uniform', tail_below=20, head_from=100)
  figures = _run(entry, 4, _WORKED_SCORES, train_source=train)
  assert figures['map@2_head'] == 100  # A: 110 images, none of its own
  assert figures['map@2_torso'] == 25  # B and C


def _average_precision(scores, labels, k):
  """AP of each class by the definition of docs/map-at-100.md, float64."""
  num_images, num_classes = scores.shape
  truth = np.zeros(scores.shape, bool)
  for image, ids in enumerate(labels):
    truth[image, ids] = True
  found = np.full(num_classes, np.nan)
  kept = np.zeros(scores.shape, bool)
  competing = np.flatnonzero(truth.any(axis=0))
  for image in range(num_images):
    best = sorted(competing, key=lambda c: (-scores[image, c], c))[:k]
    kept[image, best] = True
  for c in competing:
    ranked = sorted(
      np.flatnonzero(kept[:, c]), key=lambda i: (-scores[i, c], i)
    )
    hits = [truth[i, c] for i in ranked]
    precision = [sum(hits[: n + 1]) / (n + 1) for n in range(len(hits))]
    found[c] = np.dot(precision, hits) / truth[:, c].sum()
  return found, truth.sum(axis=0)


def test_figures_by_depth_and_of_leaves():
  """0 above 1 and 2, 1 above 3, 3 and 4 above 5; 6 alone, 7 and 8 unseen."""
  scores, labels, _ = _random(40)
  edges = [(1, 0), (2, 0), (3, 1), (5, 3), (5, 4), (8, 7)]
  source = dict(
    labels=labels,
    names=_NAMES,
    edges=[(_NAMES[a], _NAMES[b]) for a, b in edges],
  )
  figures = _run(_entry(source, k=3), _NUM_CLASSES, scores)
  precision, weight = _average_precision(scores, labels, 3)
  groups = {
    'map@3': [0, 1, 2, 3, 4, 5, 6], 'map@3/leaves': [2, 5, 6],
    'map@3/inner': [0, 1, 3, 4], 'map@3/depth0': [0, 4, 6],
    'map@3/depth1': [1, 2], 'map@3/depth2': [3], 'map@3/depth3': [5],
  }  # fmt: skip
  for name, classes in groups.items():
    expected = np.average(precision[classes], weights=weight[classes])
    assert figures.pop(name) == pytest.approx(100 * expected, rel=1e-9), name
  assert not [name for name in figures if '/' in name]
  plain = _run(_entry(source | dict(edges=None), k=3), _NUM_CLASSES, scores)
  assert not [name for name in plain if '/' in name]


def test_near_duplicates_are_scored_apart(tmp_path):
  scores, labels, padded = _random()
  path = tmp_path / 'dup.txt'
  path.write_text('record-3\nrecord-20\n')
  keep = np.setdiff1d(np.arange(21), [3, 20])
  vocabulary = np.zeros(_NUM_CLASSES, bool)
  vocabulary[padded[padded >= 0]] = True
  expected = ranking.mean_average_precision(
    scores[keep], padded[keep], RankingOptions(k=3), annotated=vocabulary
  )
  source = dict(labels=labels, names=_NAMES)
  for exclude in (str(path), ['record-3', 20], [3, 20]):
    entry = _entry(source, k=3, exclude_ids=exclude)
    figures = _run(entry, _NUM_CLASSES, scores)
    assert figures['map@3/dedup'] == pytest.approx(expected, rel=1e-12)
    assert (figures['num_images'], figures['num_images/dedup']) == (21, 19)
    assert figures['map@3'] != figures['map@3/dedup']


def test_says_once_that_the_weights_stand_in(capsys):
  ctx = harness.context(4)
  evaluator = harness.build(_worked(), ctx)
  evaluator.run(_WORKED_SCORES)
  evaluator.run(_WORKED_SCORES)
  printed = capsys.readouterr().out
  assert printed.count('a stand-in for the private popularity weights') == 1
  harness.build(_worked(weights='uniform'), ctx).run(_WORKED_SCORES)
  assert 'stand-in' not in capsys.readouterr().out


def test_source_weights():
  entry = _worked(weights='source')
  entry['data']['weights'] = [0.5, 0.3, 0.2, 7]
  figures = _run(entry, 4, _WORKED_SCORES)
  assert figures['map@2'] == pytest.approx(65)


def test_nan_scores_name_the_record():
  scores = _WORKED_SCORES.copy()
  scores[1, 3] = np.nan  # of a class that is not annotated
  with pytest.raises(ValueError, match=r'evals\.fasteval: .* NaN: record-1$'):
    _run(_worked(), 4, scores)


def test_full_scores_have_a_limit(monkeypatch):
  monkeypatch.setattr(ranking, 'MAX_FULL_SCORES', 8)
  with pytest.raises(ValueError, match=r"evals\.fasteval: cut='none' keeps"):
    _run(_worked(cut='none'), 4, _WORKED_SCORES)


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    (dict(kk=3), r"evals\.fasteval: unknown option 'kk'"),
    (dict(k=0), r'evals\.fasteval\.k=0 must be int of at least 1'),
    (dict(axis='klass'), r"fasteval\.axis='klass'; valid: class, image, po"),
    (
      dict(weights='freq'),
      r"weights='freq' must be .*uniform.*source or .*\.csv",
    ),
    (dict(weights='no.csv'), r'no\.csv: no such file'),
    (dict(weights='source'), r'has no popularity weights'),
    (dict(close_ground_truth=True), r'the data have no hierarchy'),
    (dict(annotated=['A', 'E']), r"annotated: label 'E' is not among the 4"),
    (dict(annotated=[]), r'annotated: names no class'),
    (dict(annotated='no.txt'), r'no\.txt: no such file'),
    (dict(exclude_ids=['record-3']), r"exclude_ids: no record 'record-3'"),
    (dict(exclude_ids=[3]), r'exclude_ids: no record 3'),
    (dict(exclude_ids=[0, 1, 2]), r'exclude_ids excludes every record'),
    (dict(predict_fn='logit'), r"no prediction 'logit' \(did you mean"),
    (
      dict(tail_below=5, head_from=4),
      r'tail_below=5 must be at most head_from=4',
    ),
    (dict(ops=harness.IMAGE_OPS), r"no op makes the field 'label_ids'"),
    (dict(train_counts='no.jsonl'), r'no\.jsonl: no such file'),
    (dict(type='multilabel_mapp'), r"did you mean 'multilabel_map'"),
  ],
)
def test_bad_options_are_refused_at_construction(options, message):
  with pytest.raises((ValueError, FileNotFoundError), match=message):
    harness.build(_worked() | options, harness.context(4))


@pytest.mark.parametrize(
  ('text', 'message'),
  [
    ('name,weight\nA,1\nE,1\n', r"w\.csv:3: label 'E' is not among"),
    ('name,weight\nA,1\nA,1\n', r"w\.csv:3: class 'A' appears twice"),
    ('name,weight\nA,-1\n', r'w\.csv:2: weight must be a finite number >= 0'),
    ('name,weight\nA,nan\n', r'w\.csv:2: weight must be a finite number >= 0'),
    ('name,weight\nA\n', r'w\.csv:2: 1 fields under the header name,weight'),
    ('name,mass\nA,1\n', r'w\.csv:2: needs "name" and "weight"'),
  ],
)
def test_bad_weight_files_name_the_line(tmp_path, text, message):
  path = tmp_path / 'w.csv'
  path.write_text(text)
  with pytest.raises(ValueError, match=message):
    harness.build(_worked(weights=str(path)), harness.context(4))


def test_a_class_without_a_weight_is_named(tmp_path):
  path = tmp_path / 'w.csv'
  path.write_text('name,weight\nA,1\nC,1\n')
  with pytest.raises(ValueError, match=r'no weight for .*1.* have labels'):
    _run(_worked(weights=str(path)), 4, _WORKED_SCORES)


def test_classes_must_be_those_of_the_model():
  with pytest.raises(ValueError, match=r'data has 4 classes, the model 5'):
    harness.build(_worked(), harness.context(5))
  train = lambda: _Trained('ACBD', None)
  with pytest.raises(ValueError, match=r"class 1 is 'B', but 'C' in the train"):
    harness.build(_worked(), harness.context(4, train_source=train))
  mesh = harness.mesh(8, 1)
  with pytest.raises(ValueError, match=r'evals\.fasteval\.batch_size=12 must'):
    harness.build(_worked(batch_size=12), harness.context(4, mesh=mesh))
