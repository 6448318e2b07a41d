"""An evaluator of the user's own package, and the contract it must keep."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from big_vision_like.protocols import Prediction
from evaluators.harness import building
from tests.evaluators import harness


@pytest.fixture
def my_package(project_root, monkeypatch):
  monkeypatch.syspath_prepend(str(project_root / 'tests' / 'fixtures'))


def _entry(**options):
  return (
    dict(
      type='my_package.my_evaluator',
      every_steps=5,
      data=dict(type=harness.SOURCE, labels=[[0]] * 11, names=['a', 'b', 'c']),
      ops=harness.IMAGE_OPS,
      batch_size=8,
    )
    | options
  )


_SCORES = np.random.default_rng(2).standard_normal((11, 3)).astype(np.float32)


@pytest.mark.parametrize('shape', [None, (4, 2)])
def test_own_evaluator(my_package, shape):
  ctx = harness.context(3, name='own', mesh=shape and harness.mesh(*shape))
  evals = ConfigDict(dict(own=_entry(temperature=2.0)))  # as the trainer does
  built = building.from_config(
    evals, {'logits': harness.predict}, lambda name: ctx
  )
  figures = built['own'].run(harness.pad_classes(_SCORES, 8))
  power = np.exp(_SCORES / 2)
  expected = 100 * (power / power.sum(1, keepdims=True)).max(1).mean()
  assert figures == {'confidence': pytest.approx(expected, rel=1e-6)}
  assert building.check_result('own', figures) == figures


PREDICTIONS = {
  name: Prediction(lambda state, batch: {}, kind)
  for name, kind in dict(
    logits='classes', features='vectors', scenes='mask', detections='boxes'
  ).items()
}


@pytest.mark.parametrize(
  ('kind', 'asked', 'fitting'),
  [
    ('multilabel_map', 'features', "'classes'; the task's that do: logits"),
    ('classification', 'detections', "'classes'; the task's that do: logits"),
    ('semantic_segmentation', 'logits', "'mask'; the task's that do: scenes"),
    ('knn', 'logits', "'vectors'; the task's that do: features"),
    (
      'coco_detection',
      'logits',
      "'boxes' or 'pose'; the task's that do: detections",
    ),
  ],
)
def test_a_prediction_that_cannot_be_scored(kind, asked, fitting):
  entry = _entry(type=kind, predict_fn=asked)
  if kind == 'knn':
    entry['train'] = entry['data']
  ctx = harness.context(3, name='own')
  with pytest.raises(ValueError) as told:
    building.from_config({'own': entry}, PREDICTIONS, lambda name: ctx)
  assert str(told.value) == (
    f'evals.own.predict_fn={asked!r} gives {PREDICTIONS[asked].kind!r}, but '
    f'the evaluator scores {fitting}'
  )


@pytest.mark.parametrize(
  ('entry', 'message'),
  [
    (_entry(temprature=1), r"evals\.own: unknown option 'temprature' \(did"),
    (_entry(temperature=0), r'own\.temperature=0 must be float above 0'),
    (_entry(type='my_package.absent'), r"'my_package\.absent': there is no"),
    (_entry(type=harness.SOURCE), r"does not define 'Evaluator'"),
    (
      _entry(type='accuracy'),
      r'valid: classification, .*, semantic_segmentation, voc_detection, or',
    ),
    ({'batch_size': 8}, r'evals\.own: missing key "type"'),
    ('classification', r"evals\.own must be a dict, got 'classification'"),
    (
      {k: v for k, v in _entry().items() if k != 'data'},
      r"evals\.own: missing option 'data'",
    ),
    (_entry(data=dict(split='x')), r'evals\.own\.data: missing key "type"'),
    (_entry(ops=[dict(op='decod')]), r'evals\.own\.ops\[0\]: unknown op'),
  ],
)
def test_mistakes_are_found_at_construction(my_package, entry, message):
  ctx = harness.context(3, name='own')
  with pytest.raises(ValueError, match=message):
    building.from_config(
      {'own': entry}, {'logits': harness.predict}, lambda _: ctx
    )


def test_an_evaluator_without_run_is_refused(tmp_path, monkeypatch):
  monkeypatch.syspath_prepend(str(tmp_path))
  (tmp_path / 'pack').mkdir()
  (tmp_path / 'pack' / 'no_run.py').write_text('class Evaluator:\n  x = 1\n')
  ctx = harness.context(3, name='own')
  with pytest.raises(ValueError, match=r'has no method run\(self, state\)'):
    building.from_config({'own': {'type': 'pack.no_run'}}, {}, lambda _: ctx)


@pytest.mark.parametrize(
  ('result', 'message'),
  [
    (None, r"evaluator 'own' must return a dict of numbers, got NoneType"),
    (3.0, 'got float'),
    ([('a', 1.0)], 'got list'),
    ({'a': float('nan')}, "'a' is nan"),
    ({'a': np.float32('inf')}, "'a' is inf"),
    ({'a': np.zeros(2)}, "'a' must be a number .* got ndarray"),
    ({'a': np.zeros(())}, "'a' must be a number .* got ndarray"),
    ({'a': jnp.zeros(())}, "'a' must be a number"),
    ({'a': '1'}, "'a' must be a number .* got str"),
    ({'a': None}, 'got NoneType'),
    ({'a': True}, 'got bool'),
    ({'a': {'b': 1.0}}, 'got dict'),
    ({1: 1.0}, 'a metric name is a string'),
    ({'a b': 1.0}, 'a metric name is a string without spaces'),
    ({'': 1.0}, 'a metric name is a string'),
  ],
)
def test_results_that_break_the_contract(result, message):
  with pytest.raises(ValueError, match=message) as caught:
    building.check_result('own', result)
  assert "evaluator 'own'" in str(caught.value)


def test_results_that_keep_it():
  result = {'a': 1, 'b': np.float32(0.5), 'c/d': np.int64(3), 'e@1': 2.5}
  checked = building.check_result('own', result)
  assert checked == {'a': 1.0, 'b': 0.5, 'c/d': 3.0, 'e@1': 2.5}
  assert all(type(v) is float for v in checked.values())


@pytest.mark.parametrize('name', ['my_package/my_evaluator.py', 'my_config.py'])
def test_the_walk_through_shows_these_files(project_root, name):
  page = (project_root / 'docs' / 'add-an-evaluator.md').read_text()
  code = (project_root / 'tests' / 'fixtures' / name).read_text()
  assert f'```python\n{code}```' in page


@pytest.mark.slow
def test_the_command_of_the_walk_through(project_root, tmp_path, command_line):
  fixtures = project_root / 'tests' / 'fixtures'
  done = command_line(
    *('--config', f'{fixtures / "my_config.py"}:tiny'),
    *('--workdir', tmp_path / 'mine'),
    cwd=project_root,
    path=[str(fixtures)],
  )
  assert done['code'] == 0, done['err']
  lines = (tmp_path / 'mine' / 'metrics.jsonl').read_text().splitlines()
  figures = [
    record['confidence/confidence']
    for record in map(json.loads, lines)
    if 'confidence/confidence' in record
  ]
  assert len(figures) >= 2  # at start and at the end
  assert all(0 < figure <= 100 for figure in figures)
