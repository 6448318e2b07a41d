"""Label noise: rates, targets, and what it must not depend on."""

import collections
import math
import pickle

import numpy as np
import pytest
from scipy import stats

from configs import noise_study
from input_pipeline import ops as example_ops
from input_pipeline import pipeline
from input_pipeline.labels import subset
from input_pipeline.labels.hierarchy import Hierarchy
from input_pipeline.labels.vocabulary import Vocabulary
from input_pipeline.ops.context import OpContext
from input_pipeline.sources.synthetic import Source

# Two families of siblings; the kiwi is a fruit and a bird; car has no parent.
NAMES = (
  'food', 'fruit', 'apple', 'pear', 'plum', 'kiwi',
  'bird', 'crow', 'robin', 'car',
)  # fmt: skip
EDGES = [
  ('fruit', 'food'),
  *((child, 'fruit') for child in ('apple', 'pear', 'plum', 'kiwi')),
  *((child, 'bird') for child in ('kiwi', 'crow', 'robin')),
]
ID = {name: i for i, name in enumerate(NAMES)}
KINDS = ('symmetric', 'neighbour', 'missing')


def build(kind, rate, hierarchy=True, **options):
  context = OpContext(
    vocabulary=Vocabulary(names=NAMES),
    hierarchy=Hierarchy.from_edges(NAMES, EDGES) if hierarchy else None,
  )
  spec = dict(op='label_noise', kind=kind, rate=rate, **options)
  (op,) = example_ops.build([spec], context)
  return op


def run(op, names, key='k', seed=0, **extra):
  """Names of the labels that come out, in their order."""
  labels = np.array([ID[name] for name in names], np.int32)
  example = {'labels': labels, 'key': key, **extra}
  out = op(example, np.random.default_rng(seed))
  assert out['labels'].dtype == np.int32
  return [NAMES[i] for i in out['labels']]


def many(op, names, num=20_000):
  return [run(op, names, f'image {i}') for i in range(num)]


def within_chance(count, num, rate, sigmas=4.5):
  """Whether a binomial count is as far off as one in 10^5 at most."""
  return abs(count - num * rate) <= sigmas * math.sqrt(num * rate * (1 - rate))


def equally_likely(counts, expected):
  """Chi-square test of counts by name over the names expected."""
  assert set(counts) == set(expected)
  return stats.chisquare(list(counts.values())).pvalue > 1e-5


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('rate', [0.02, 0.2, 0.7])
def test_each_label_is_hit_at_the_rate_independently(kind, rate):
  outs = many(build(kind, rate), ['apple', 'crow'], 10_000)
  hit = np.array([[n not in out for n in ('apple', 'crow')] for out in outs])
  assert within_chance(hit[:, 0].sum(), len(hit), rate)
  assert within_chance(hit[:, 1].sum(), len(hit), rate)
  assert within_chance(hit.all(1).sum(), len(hit), rate**2)


def test_rate_0_and_1():
  for kind in KINDS:
    assert run(build(kind, 0), ['apple', 'car']) == ['apple', 'car']
  assert run(build('missing', 1), ['apple', 'car']) == []
  assert not {'apple', 'car'} & set(run(build('symmetric', 1.0), ['apple']))


def test_symmetric_is_any_label_that_the_image_is_not_known_to_show():
  outs = many(build('symmetric', 1), ['apple'])
  found = collections.Counter(out for (out,) in outs)
  assert equally_likely(found, set(NAMES) - {'apple', 'fruit', 'food'})


@pytest.mark.parametrize(
  'label, targets',
  [
    ('apple', {'pear', 'plum', 'kiwi'}),
    ('crow', {'kiwi', 'robin'}),
    ('kiwi', {'apple', 'pear', 'plum', 'crow', 'robin'}),  # of both parents
    ('fruit', set(NAMES) - {'fruit', 'food'}),  # an only child
    ('car', set(NAMES) - {'car'}),  # no parent
  ],
)
def test_neighbour_is_a_sibling_or_else_any(label, targets):
  outs = many(build('neighbour', 1), [label], 10_000)
  assert equally_likely(collections.Counter(out for (out,) in outs), targets)


def test_neighbour_without_a_hierarchy_is_symmetric():
  labels = ['apple', 'crow']
  outs = many(build('neighbour', 0.5, hierarchy=False), labels, 500)
  assert outs == many(build('symmetric', 0.5, hierarchy=False), labels, 500)
  assert {name for out in outs for name in out} == set(NAMES)


def test_number_of_labels_stays_and_no_label_is_right():
  given = ['apple', 'pear', 'crow']
  right = {*given, 'fruit', 'food', 'bird'}
  for kind in ('symmetric', 'neighbour'):
    for out in many(build(kind, 1), given, 2_000):
      assert len(set(out)) == 3
      assert not right & set(out), out


def test_where_every_label_is_right_it_stays():
  (op,) = example_ops.build(
    [dict(op='label_noise', kind='symmetric', rate=1.0)],
    OpContext(vocabulary=Vocabulary(names=('one', 'two'))),
  )
  out = op({'labels': np.array([0, 1]), 'key': 'k'}, np.random.default_rng(0))
  assert out['labels'].tolist() == [0, 1]


def test_a_higher_rate_and_another_kind_hit_the_same_labels():
  given = ['apple', 'crow', 'car']
  hits = {}
  for kind in KINDS:
    for rate in (0.1, 0.4):
      hits[kind, rate] = {
        (i, name)
        for i, out in enumerate(many(build(kind, rate), given, 500))
        for name in given
        if name not in out
      }
  for rate in (0.1, 0.4):
    assert len({frozenset(hits[kind, rate]) for kind in KINDS}) == 1
  assert hits['missing', 0.1] < hits['missing', 0.4]
  low = many(build('symmetric', 0.1), ['crow'], 500)
  high = many(build('symmetric', 0.4), ['crow'], 500)
  assert all(a == b for a, b in zip(low, high) if a != ['crow'])


def test_seeds_hit_other_labels():
  one, two = (
    [out == [] for out in many(build('missing', 0.3, seed=s), ['car'])]
    for s in (0, 1)
  )
  assert within_chance(np.logical_and(one, two).sum(), len(one), 0.09)


def test_only_the_key_matters_not_the_epoch_nor_the_process():
  op = build('neighbour', 0.5)
  again = pickle.loads(pickle.dumps(op))  # noqa: S301
  for i in range(50):
    key = f'dir/{i}.jpg'
    assert run(op, ['apple', 'car'], key) == run(
      again, ['apple', 'car'], key, seed=i
    )
  assert run(op, ['car'], 'not \udcff text')  # a file name that is not UTF-8


def test_a_subset_has_the_noise_of_the_whole():
  """Labels of the batches by key: whole set, a third of it, other workers."""
  source = Source(num_images=60, num_classes=20, image_size=16, noise=0.0)
  specs = [
    dict(op='decode'),
    dict(op='resize', size=8),
    dict(op='label_noise', kind='symmetric', rate=0.5),
    dict(op='labels', max_labels=8),
  ]

  def labels_by_key(source, seed):
    found = {}
    ops = pipeline.build_ops(specs, source)
    batches = pipeline.train(source, ops, batch_size=10, seed=seed)
    for _ in range(2 * len(source) // 10):  # two epochs
      batch = next(batches)
      for index, ids in zip(batch['_id'], batch['label_ids']):
        row = tuple(ids[ids >= 0])
        assert found.setdefault(source.key(int(index)), row) == row
    batches.close()
    return found

  whole = labels_by_key(source, seed=0)
  part = labels_by_key(subset.take(source, 1 / 3), seed=5)
  assert (len(whole), len(part)) == (60, 20)
  assert part.items() <= whole.items()
  clean = {source.key(i): tuple(source.labels(i)) for i in range(60)}
  assert 0.3 < np.mean([clean[key] != whole[key] for key in clean]) < 0.9


def test_order_confidences_and_negatives_keep_to_their_labels():
  given = ['crow', 'apple', 'car']
  conf = np.array([0.1, 0.2, 0.3], np.float32)
  negatives = np.array([ID['robin'], ID['plum'], ID['bird']], np.int32)
  labels = np.array([ID[n] for n in given], np.int32)
  hits = 0
  for i in range(200):
    example = {
      'labels': labels, 'label_conf': conf, 'negatives': negatives,
      'key': str(i),
    }  # fmt: skip
    out = build('symmetric', 0.4)(example, np.random.default_rng(0))
    np.testing.assert_array_equal(out['label_conf'], conf)
    same = out['labels'] == labels
    hits += (~same).sum()
    wrong = set(out['labels'][~same].tolist())
    assert out['negatives'].tolist() == [
      n for n in negatives.tolist() if n not in wrong
    ]
    out = build('missing', 0.4)(example, np.random.default_rng(0))
    np.testing.assert_array_equal(out['labels'], labels[same])
    np.testing.assert_array_equal(out['label_conf'], conf[same])
    np.testing.assert_array_equal(out['negatives'], negatives)
  assert within_chance(hits, 600, 0.4)
  np.testing.assert_array_equal(example['label_conf'], conf)  # not changed


def test_a_label_given_twice_stays_one_label():
  for i in range(20):
    first, second = run(build('symmetric', 1), ['apple', 'apple'], str(i))
    assert first == second != 'apple'


@pytest.mark.parametrize('noise', [*KINDS, 'none'])
def test_arms_of_the_study_spoil_a_clean_world(noise):
  config = noise_study.get_config(f'noise={noise},rate=0.3,images=800')
  source = pipeline.open_source(config.input.source.to_dict())
  world = config.input.source.to_dict() | {'split': 'train_clean'}
  truth = pipeline.open_source(world)
  specs = [s for s in config.input.ops if s['op'] == 'label_noise']
  ops = pipeline.build_ops(specs, source)
  num = right = 0
  for i in range(len(source)):
    example = {'labels': source.labels(i), 'key': source.key(i)}
    # All that is shown is given: its closure is all that is true.
    np.testing.assert_array_equal(
      source.hierarchy.close(example['labels']), truth.labels(i)
    )
    num += len(example['labels'])
    for op in ops:
      example = op(example, np.random.default_rng(0))
    right += np.isin(example['labels'], truth.labels(i)).sum()
  rate = 0.0 if noise == 'none' else 0.3
  assert within_chance(num - right, num, rate)


@pytest.mark.parametrize(
  'options, words',
  [
    (dict(kind='wrong', rate=0.1), r"kind='wrong'; valid: symmetric, neigh"),
    (dict(kind='missing', rate=1.5), r'rate=1\.5 must be float in \[0, 1\]'),
    (dict(kind='missing', rate=-0.1), r'rate=-0\.1 must be float in \[0, 1\]'),
    (
      dict(kind='missing', rate=0.1, seed=-1),
      r'seed=-1 must be int in \[0, 2\*\*63\)',
    ),
    (dict(kind='missing'), 'missing option'),
  ],
)
def test_mistakes(options, words):
  with pytest.raises(ValueError, match=words) as info:
    example_ops.build(
      [dict(op='label_noise', **options)],
      OpContext(vocabulary=Vocabulary(names=NAMES)),
    )
  assert 'input.ops[0] (label_noise)' in str(info.value)


def test_wrong_place_and_wrong_label():
  op = build('symmetric', 1)
  labels = np.zeros(3, np.int32)
  for field in ('label_ids', 'label'):
    with pytest.raises(ValueError, match='before the op that makes label ids'):
      op({'labels': labels, field: labels, 'key': 'k'}, None)
  with pytest.raises(ValueError, match='label 10 is outside the vocabulary'):
    op({'labels': np.array([10]), 'key': 'k'}, None)
  with pytest.raises(ValueError, match='no vocabulary'):
    example_ops.build(
      [dict(op='label_noise', kind='missing', rate=0.5)], OpContext()
    )
