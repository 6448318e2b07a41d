"""Confidences and verified negatives, on a hierarchy closed by hand.

food <- fruit <- apple, pear      plant <- apple      car
"""

import pickle

import numpy as np
import pytest

from input_pipeline import ops as example_ops
from input_pipeline import pipeline
from input_pipeline.examples.errors import BadExample
from input_pipeline.labels import states
from input_pipeline.labels.hierarchy import Hierarchy
from input_pipeline.labels.vocabulary import Vocabulary
from input_pipeline.ops.context import OpContext
from tests.fixtures import tiny_source

NAMES = ('food', 'fruit', 'apple', 'plant', 'car', 'pear')
FOOD, FRUIT, APPLE, PLANT, CAR, PEAR = range(6)
EDGES = [
  ('fruit', 'food'),
  ('apple', 'fruit'),
  ('apple', 'plant'),
  ('pear', 'fruit'),
]


def build(hierarchy=True, max_labels=5, **options):
  context = OpContext(
    vocabulary=Vocabulary(names=NAMES),
    hierarchy=Hierarchy.from_edges(NAMES, EDGES) if hierarchy else None,
  )
  spec = dict(op='labels', max_labels=max_labels, **options)
  (op,) = example_ops.build([spec], context)
  return op


def run(op, labels, **fields):
  example = {'labels': np.asarray(labels, np.int32), 'key': 'a.jpg', **fields}
  return op(example, np.random.default_rng(0))


@pytest.mark.parametrize(
  'labels, given, fill_in, expected',
  [
    ([APPLE], [0.5], True, {FOOD: 0.5, FRUIT: 0.5, APPLE: 0.5, PLANT: 0.5}),
    # The surest label below an ancestor counts, or the ancestor's own.
    (
      [PEAR, APPLE, FRUIT], [0.25, 0.5, 0.75], True,
      {FOOD: 0.75, FRUIT: 0.75, APPLE: 0.5, PLANT: 0.5, PEAR: 0.25},
    ),
    ([PEAR, FRUIT], [0.9, 0.1], True, {FOOD: 0.9, FRUIT: 0.9, PEAR: 0.9}),
    ([CAR, APPLE], [0.25, 1], False, {APPLE: 1, CAR: 0.25}),
    ([CAR, CAR], [0.25, 0.5], False, {CAR: 0.5}),
    ([CAR, APPLE], None, False, {APPLE: 1, CAR: 1}),
    ([], [], True, {}),
    ([], [], False, {}),
  ],
)  # fmt: skip
def test_confidences(labels, given, fill_in, expected):
  op = build(confidence=True, fill_in=fill_in)
  fields = {} if given is None else {'label_conf': np.array(given, np.float32)}
  out = run(op, labels, **fields)
  padding = 5 - len(expected)
  assert out['label_ids'].tolist() == [*expected, *[-1] * padding]
  np.testing.assert_allclose(
    out['label_conf'], [*expected.values(), *[0] * padding], rtol=1e-7
  )
  assert out['label_conf'].dtype == np.float32


@pytest.mark.parametrize('confidence', [False, True])
def test_unsure_labels_are_dropped_with_what_only_they_imply(confidence):
  op = build(confidence=confidence, min_confidence=0.5, fill_in=True)
  given = np.array([0.5, 0.499], np.float32)
  out = run(op, [PEAR, APPLE], label_conf=given)
  assert out['label_ids'].tolist() == [FOOD, FRUIT, PEAR, -1, -1]
  assert ('label_conf' in out) == confidence
  # Without confidences labels are certain.
  assert run(op, [CAR])['label_ids'].tolist() == [CAR, -1, -1, -1, -1]


@pytest.mark.parametrize('spec', [dict(max_labels=2), None])
def test_raw_confidences_never_reach_the_batch(spec):
  context = OpContext(vocabulary=Vocabulary(names=NAMES))
  spec = dict(op='labels', **spec) if spec else dict(op='single_label')
  (op,) = example_ops.build([spec], context)
  assert 'label_conf' not in run(op, [CAR], label_conf=np.ones(1))


@pytest.mark.parametrize(
  'labels, negatives, fill_in_negatives, expected',
  [
    ([], [CAR, FOOD], False, [FOOD, CAR]),
    ([], [FRUIT], True, [FRUIT, APPLE, PEAR]),
    ([], [FOOD, PLANT], True, [FOOD, FRUIT, APPLE, PLANT, PEAR]),
    ([], [CAR], True, [CAR]),
    ([CAR], [], True, []),
    # An apple is a plant: that it is none is not believed, whatever is
    # filled in; nor that what else is a fruit is absent.
    ([APPLE], [PLANT], True, []),
    ([APPLE], [FRUIT, CAR], True, [CAR]),
    ([APPLE], [APPLE], False, []),
    # A sibling of a positive may be absent; so may all below a leaf's cousin.
    ([APPLE], [PEAR], True, [PEAR]),
    ([PLANT], [FOOD], True, [FOOD, FRUIT, APPLE, PEAR]),
  ],
)
@pytest.mark.parametrize('fill_in', [False, True])
def test_negatives(labels, negatives, fill_in_negatives, expected, fill_in):
  op = build(
    max_negatives=6, fill_in=fill_in, fill_in_negatives=fill_in_negatives
  )
  out = run(op, labels, negatives=np.array(negatives, np.int32))
  ids = out['negative_ids']
  assert ids.dtype == np.int32
  assert ids.tolist() == expected + [-1] * (6 - len(expected))
  assert set(ids[ids >= 0]).isdisjoint(out['label_ids'].tolist())


def test_a_dropped_label_protects_nothing():
  op = build(max_negatives=6, min_confidence=0.5, fill_in_negatives=True)
  fields = dict(label_conf=np.array([0.4]), negatives=np.array([PLANT]))
  assert run(op, [APPLE], **fields)['negative_ids'].tolist() == [
    APPLE, PLANT, -1, -1, -1, -1
  ]  # fmt: skip


def test_contradictions_are_counted():
  hierarchy = Hierarchy.from_edges(NAMES, EDGES)
  negatives = states.Negatives(hierarchy, fill_in=True)
  given = np.array([PLANT, CAR, FOOD, PLANT])
  ids, dropped = negatives.resolve(given, np.array([APPLE]))
  assert (ids.tolist(), dropped) == ([CAR], 2)


def test_filling_in_is_the_definition_on_a_random_dag():
  """Closures by walking the edges, one at a time."""
  rng = np.random.default_rng(0)
  names = [str(i) for i in range(40)]
  edges = {
    (child, int(rng.integers(child))) for child in range(1, 40) for _ in 'ab'
  }
  hierarchy = Hierarchy.from_edges(
    names, [(names[a], names[b]) for a, b in edges]
  )

  def walk(start, down):
    found, todo = set(), [start]
    while todo:
      node = todo.pop()
      if node not in found:
        found.add(node)
        todo += [
          a if down else b for a, b in edges if node == (b if down else a)
        ]
    return found

  negatives = states.Negatives(hierarchy, fill_in=True)
  for _ in range(50):
    true = rng.choice(40, 2, replace=False)
    given = rng.choice(40, 4, replace=False)
    sure = rng.random(2).astype(np.float32)
    above = set.union(*(walk(i, down=False) for i in true))
    expected = [walk(i, down=True) for i in given if i not in above]
    ids, dropped = negatives.resolve(given, true)
    assert ids.tolist() == sorted(set().union(*expected))
    assert dropped == 4 - len(expected)
    closed, confidences = states.close_confidences(hierarchy, true, sure)
    assert closed.tolist() == sorted(above)
    for c, q in zip(closed, confidences):
      assert q == max(s for i, s in zip(true, sure) if c in walk(i, False))


def test_too_many_negatives_are_a_bad_example_never_cut():
  op = build(max_negatives=2, fill_in_negatives=True)
  message = r'3 negatives after fill-in do not fit into max_negatives=2'
  with pytest.raises(BadExample, match=message):
    run(op, [], negatives=[FRUIT])
  op = build(max_labels=2, confidence=True, fill_in=True)
  with pytest.raises(
    BadExample, match=r'4 labels after fill-in .*max_labels=2'
  ):
    run(op, [APPLE])


def test_data_that_record_no_negatives_are_refused():
  op = build(max_negatives=2)
  with pytest.raises(ValueError, match=r"example of 'a.jpg' records no negat"):
    run(op, [CAR])
  source = tiny_source.Source(labels=[[0]], names=list(NAMES))
  specs = [
    dict(op='decode'), dict(op='resize', size=4),
    dict(op='labels', max_labels=2, max_negatives=2),
  ]  # fmt: skip
  ops = pipeline.build_ops(specs, source)
  with pytest.raises(ValueError, match=r'record-0.*records no negatives'):
    next(iter(pipeline.evaluation(source, ops, batch_size=1)))


def test_the_blank_example_has_the_fields():
  op = build(confidence=True, max_negatives=3)
  drop_image = lambda example, rng: {
    k: v for k, v in example.items() if k != 'image'
  }
  spec = pipeline.example_spec([op, drop_image])
  assert spec['negative_ids'].tolist() == [-1] * 3
  assert spec['label_conf'].tolist() == [0] * 5
  assert spec['label_conf'].dtype == np.float32


def test_the_op_travels_to_workers():
  op = build(max_negatives=6, fill_in_negatives=True)
  run(op, [], negatives=[FRUIT])
  copy = pickle.loads(pickle.dumps(op))  # noqa: S301
  assert run(copy, [], negatives=[FRUIT])['negative_ids'][:3].tolist() == [
    FRUIT, APPLE, PEAR
  ]  # fmt: skip


@pytest.mark.parametrize(
  'fields, message',
  [
    (dict(label_conf=[0.5]), 'one number in .0, 1. a label, got .0.5. for 2'),
    (dict(label_conf=[0.5, 1.5]), 'label_conf must be'),
    (dict(label_conf=[0.5, np.nan]), 'label_conf must be'),
    (dict(negatives=[6]), r"in negatives: 6 of 'a.jpg' is outside .* 0 to 5"),
    (dict(negatives=[-1]), 'in negatives: -1'),
  ],
)
def test_wrong_fields_stop_the_run(fields, message):
  op = build(confidence=True, max_negatives=3)
  with pytest.raises(ValueError, match=message):
    run(op, [CAR, PEAR], **{'negatives': [], **fields})


@pytest.mark.parametrize(
  'options, message',
  [
    (dict(max_negatives=0), 'max_negatives=0 must be int of at least 1 or'),
    (dict(max_negatives=1.5), r'max_negatives=1\.5 must be int of at least'),
    (dict(min_confidence=1.5), r'min_confidence=1.5 must be float in \[0, 1\]'),
    (dict(confidence=1), 'confidence=1 must be bool'),
    (dict(fill_in_negatives=True), 'needs max_negatives'),
    (
      dict(fill_in_negatives=True, max_negatives=2, hierarchy=False),
      'fill_in_negatives=True needs a hierarchy',
    ),
  ],
)
def test_mistakes_are_named(options, message):
  with pytest.raises(ValueError, match=message):
    build(**options)
