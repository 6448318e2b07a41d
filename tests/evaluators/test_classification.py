"""Top-1, top-5 and loss against scikit-learn, on several meshes."""

import numpy as np
import pytest
from sklearn.metrics import log_loss, top_k_accuracy_score

from tests.evaluators import harness

_NUM_CLASSES = 7


def _entry(labels, num_classes, **options):
  return (
    dict(
      type='classification',
      data=dict(
        type=harness.SOURCE,
        labels=[[i] for i in labels],
        names=[str(i) for i in range(num_classes)],
      ),
      ops=[*harness.IMAGE_OPS, dict(op='single_label')],
      batch_size=8,
    )
    | options
  )


def _random(num_images=21, num_classes=_NUM_CLASSES):
  rng = np.random.default_rng(1)
  scores = rng.standard_normal((num_images, num_classes)).astype(np.float32)
  return scores, rng.integers(0, num_classes, num_images)


@pytest.mark.parametrize('shape', [None, (8, 1), (2, 4)])
@pytest.mark.parametrize('batch_size', [8, 32])
def test_scikit_learn(shape, batch_size):
  scores, labels = _random()
  mesh = shape and harness.mesh(*shape)
  evaluator = harness.build(
    _entry(labels.tolist(), _NUM_CLASSES, batch_size=batch_size),
    harness.context(_NUM_CLASSES, mesh=mesh),
  )
  figures = evaluator.run(harness.pad_classes(scores, 8))
  probability = np.exp(scores.astype(float))
  probability /= probability.sum(1, keepdims=True)
  classes = np.arange(_NUM_CLASSES)
  for k in (1, 5):
    expected = top_k_accuracy_score(labels, scores, k=k, labels=classes)
    assert figures[f'top{k}'] == pytest.approx(100 * expected)
  assert figures['loss'] == pytest.approx(
    log_loss(labels, probability, labels=classes), rel=1e-6
  )
  assert figures['num_images'] == 21


def test_fewer_than_five_classes():
  scores, labels = _random(num_classes=3)
  evaluator = harness.build(_entry(labels.tolist(), 3), harness.context(3))
  figures = evaluator.run(scores)
  assert figures['top5'] == 100
  assert figures['top1'] == pytest.approx(
    100 * (scores.argmax(1) == labels).mean()
  )


def test_ties_rank_the_lower_id_first():
  scores = np.zeros((3, 2), np.float32)
  evaluator = harness.build(_entry([0, 1, 1], 2), harness.context(2))
  assert evaluator.run(scores)['top1'] == pytest.approx(100 / 3)


@pytest.mark.parametrize('value', [np.nan, np.inf])
def test_broken_logits_name_the_record(value):
  scores, labels = _random(5)
  scores[3, 2] = value
  evaluator = harness.build(
    _entry(labels.tolist(), _NUM_CLASSES), harness.context(_NUM_CLASSES)
  )
  with pytest.raises(ValueError, match=r'is not finite: record-3$'):
    evaluator.run(scores)


def test_a_record_with_two_labels_is_refused():
  entry = _entry([0, 1], 2)
  entry['data']['labels'] = [[0], [0, 1]]
  evaluator = harness.build(entry, harness.context(2))
  with pytest.raises(ValueError, match='record-1 cannot be used: 2 labels'):
    evaluator.run(np.zeros((2, 2), np.float32))


def test_the_label_op_is_required():
  entry = _entry([0], 2)
  with pytest.raises(ValueError, match=r'evals\.fasteval\.ops: no op makes'):
    harness.build(entry | dict(ops=harness.IMAGE_OPS), harness.context(2))


def test_excluded_records_give_second_figures(tmp_path):
  """Both sets of figures against scikit-learn, for every way to name them."""
  scores, labels = _random()
  path = tmp_path / 'drop_ids.txt'
  path.write_text('record-3\n\nrecord-20 \n')
  keep = np.setdiff1d(np.arange(21), [3, 20])
  classes = np.arange(_NUM_CLASSES)
  probability = np.exp(scores.astype(float))
  probability /= probability.sum(1, keepdims=True)
  for exclude in (str(path), ['record-3', 20], [3, 20, 3]):
    entry = _entry(labels.tolist(), _NUM_CLASSES, exclude_ids=exclude)
    figures = harness.build(entry, harness.context(_NUM_CLASSES)).run(scores)
    for suffix, rows in (('', np.arange(21)), ('/dedup', keep)):
      for k in (1, 5):
        expected = top_k_accuracy_score(
          labels[rows], scores[rows], k=k, labels=classes
        )
        assert figures[f'top{k}{suffix}'] == pytest.approx(100 * expected)
      assert figures[f'loss{suffix}'] == pytest.approx(
        log_loss(labels[rows], probability[rows], labels=classes), rel=1e-6
      )
      assert figures[f'num_images{suffix}'] == len(rows)
    assert figures['loss'] != figures['loss/dedup']
  plain = harness.build(
    _entry(labels.tolist(), _NUM_CLASSES), harness.context(_NUM_CLASSES)
  ).run(scores)
  assert not any(name.endswith('/dedup') for name in plain)


@pytest.mark.parametrize(
  ('exclude', 'message'),
  [
    (['record-9'], r"exclude_ids: no record 'record-9' among the 5 .*record-0"),
    ([5], r'exclude_ids: no record 5'),
    ([-1], r'exclude_ids: no record -1'),
    ([True], r'exclude_ids=\[True\] must be str or list of str or int'),
    ([0, 1, 2, 3, 4], r'exclude_ids excludes every record'),
    ('no.txt', r'no\.txt: no such file'),
  ],
)
def test_bad_exclusions_are_refused_at_construction(exclude, message):
  entry = _entry([0, 1, 2, 3, 4], _NUM_CLASSES, exclude_ids=exclude)
  with pytest.raises((ValueError, FileNotFoundError), match=message):
    harness.build(entry, harness.context(_NUM_CLASSES))


def test_an_empty_list_is_said(tmp_path, capsys):
  path = tmp_path / 'drop_ids.txt'
  path.write_text('\n')
  entry = _entry([0, 1, 2], _NUM_CLASSES, exclude_ids=str(path))
  harness.build(entry, harness.context(_NUM_CLASSES))
  said = capsys.readouterr().out
  assert "drop_ids.txt' names no record: nothing is excluded" in said
  assert said.count('\n') == 1


def test_unknown_keys_in_a_file_name_the_line(tmp_path):
  path = tmp_path / 'drop_ids.txt'
  path.write_text('record-1\nrecord-7\n')
  entry = _entry([0, 1, 2], _NUM_CLASSES, exclude_ids=str(path))
  with pytest.raises(
    ValueError, match=r"drop_ids\.txt:2: no record 'record-7'"
  ):
    harness.build(entry, harness.context(_NUM_CLASSES))
