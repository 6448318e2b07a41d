"""Label ops on a hierarchy small enough to close by hand."""

import numpy as np
import pytest

from input_pipeline import ops as example_ops
from input_pipeline.examples.errors import BadExample
from input_pipeline.labels.hierarchy import Hierarchy
from input_pipeline.labels.vocabulary import Vocabulary
from input_pipeline.ops.context import OpContext

NAMES = ('food', 'fruit', 'apple', 'plant', 'car')
EDGES = [('fruit', 'food'), ('apple', 'fruit'), ('apple', 'plant')]


def build(*specs, hierarchy=True):
  context = OpContext(
    vocabulary=Vocabulary(names=NAMES),
    hierarchy=Hierarchy.from_edges(NAMES, EDGES) if hierarchy else None,
  )
  return example_ops.build(specs, context)


def run(op, labels, **extra):
  example = {'labels': np.asarray(labels, np.int32), **extra}
  return op(example, np.random.default_rng(0))


@pytest.mark.parametrize(
  'labels,fill_in,expected',
  [
    ([2], True, [0, 1, 2, 3, -1]),
    ([1], True, [0, 1, -1, -1, -1]),
    ([4, 2], True, [0, 1, 2, 3, 4]),
    ([2], False, [2, -1, -1, -1, -1]),
    ([4, 1, 4, 1], False, [1, 4, -1, -1, -1]),
    ([], True, [-1] * 5),
    ([], False, [-1] * 5),
  ],
)
def test_labels(labels, fill_in, expected):
  (op,) = build(dict(op='labels', max_labels=5, fill_in=fill_in))
  out = run(op, labels)['label_ids']
  assert out.dtype == np.int32 and out.tolist() == expected


def test_too_many_labels_are_a_bad_example_never_cut():
  (op,) = build(dict(op='labels', max_labels=3, fill_in=True))
  with pytest.raises(BadExample, match=r'4 labels after .*max_labels=3'):
    run(op, [2])
  (op,) = build(dict(op='labels', max_labels=1))
  with pytest.raises(BadExample, match='2 labels do not fit'):
    run(op, [2, 3])


@pytest.mark.parametrize('label', [5, -1, 2**31 - 1])
@pytest.mark.parametrize('name', ['labels', 'single_label'])
def test_labels_outside_the_vocabulary_stop_the_run(name, label):
  options = {'max_labels': 3} if name == 'labels' else {}
  (op,) = build(dict(op=name, **options))
  with pytest.raises(ValueError, match=f"label {label} of 'a/b.jpg' is outs"):
    run(op, [label], key='a/b.jpg')
  with pytest.raises(ValueError, match='valid ids: 0 to 4'):
    run(op, [label])


def test_single_label():
  (op,) = build(dict(op='single_label'))
  label = run(op, [3, 3])['label']
  assert label == 3 and label.dtype == np.int32 and np.ndim(label) == 0
  for labels in ([], [1, 2]):
    with pytest.raises(BadExample, match=f'{len(labels)} labels where'):
      run(op, labels)


def test_keep():
  (op,) = build(dict(op='keep', fields=['labels', 'x']))
  assert set(run(op, [1], x=1, y=2)) == {'labels', 'x'}
  with pytest.raises(ValueError, match=r"no field 'x'.*labels"):
    run(op, [1])


@pytest.mark.parametrize(
  'spec,message',
  [
    (dict(op='labels'), "missing option 'max_labels'"),
    (dict(op='labels', max_labels=0), 'max_labels=0 must be int of at least 1'),
    (dict(op='labels', max_labels=True), 'max_labels=True must be int'),
    (
      dict(op='labels', max_labels=2, fill_in='no'),
      "fill_in='no' must be bool",
    ),
    (
      dict(op='labels', max_labels=2, min_confidence=1.5),
      r'min_confidence=1\.5 must be float in \[0, 1\] or None',
    ),
    (dict(op='labels', max_labels=2, fill_in=True), 'needs a hierarchy'),
    (dict(op='keep', fields='image'), "fields='image' must be list of str"),
  ],
)
def test_mistakes_are_named(spec, message):
  with pytest.raises(ValueError, match=message):
    build(spec, hierarchy=False)
