"""Fewer labels: records, ids, confidences, boxes, counts, by brute force."""

import json
import os

import numpy as np
import pytest

from big_vision_like import train
from big_vision_like.checkpoints import folders, reading
from big_vision_like.runtime import writers
from input_pipeline import pipeline
from input_pipeline.labels import arrays, hierarchy, subset, vocabulary
from input_pipeline.labels.hierarchy import Hierarchy
from input_pipeline.labels.restriction import Restriction
from input_pipeline.labels.vocabulary import Vocabulary
from tests import tiny
from tests.fixtures.tiny_source import Source as TinySource

# entity <- food <- fruit <- apple, pear; rock alone
NAMES = ('apple', 'entity', 'food', 'fruit', 'pear', 'rock')
EDGES = [
  ('apple', 'fruit'),
  ('pear', 'fruit'),
  ('fruit', 'food'),
  ('food', 'entity'),
]
APPLE, ENTITY, FOOD, FRUIT, PEAR, ROCK = range(6)
RECORDS = [[APPLE], [PEAR, ROCK], [FOOD], [ROCK], [], [PEAR, FRUIT], [ENTITY]]


def select(**options):
  source = TinySource(
    labels=RECORDS, names=list(NAMES), edges=EDGES, counts=[0] * 6
  )
  return subset.select(source, options, 'x.subset')


def seen(part):
  """Number of the record -> its labels, by name."""
  names = part.vocabulary.names
  return {
    int(part.key(i).removeprefix('record-')): {names[j] for j in part.labels(i)}
    for i in range(len(part))
  }


def test_records_and_labels_by_hand():
  part = select(labels=['pear', 'food', 'apple'])
  assert part.vocabulary.names == ('apple', 'food', 'pear')  # the old order
  assert seen(part) == {0: {'apple'}, 1: {'pear'}, 2: {'food'}, 5: {'pear'}}
  assert part.vocabulary.counts.tolist() == [1, 1, 2]
  # Fruit is gone, and an apple is still food.
  assert part.hierarchy.close(np.array([0])).tolist() == [0, 1]
  assert part.description == '4 of 7 records, 3 of 6 labels'


def test_dropped_labels_count_as_their_kept_ancestors():
  part = select(labels=['food', 'rock'], fill_in=True)
  assert seen(part) == {
    0: {'food'},
    1: {'food', 'rock'},
    2: {'food'},
    3: {'rock'},
    5: {'food'},
  }
  assert part.vocabulary.counts.tolist() == [4, 2]
  raw = select(labels=['food', 'rock'])
  assert seen(raw) == {1: {'rock'}, 2: {'food'}, 3: {'rock'}}


def test_evaluation_sets_may_keep_the_others():
  part = select(labels=['pear'], unlabelled='keep')
  found = seen(part)
  assert len(found) == 7 and found[0] == set() and found[5] == {'pear'}
  assert part[3]['labels'].tolist() == [] and part[3]['labels'].dtype == 'int32'


def test_all_ids_may_stay():
  part = select(labels=['food', 'apple', 'rock'], keep_ids=True)
  assert part.vocabulary.names == NAMES
  assert part.labels(1).tolist() == [ROCK]
  # The fill-in never gives a label that was dropped.
  assert part.hierarchy.close(np.array([APPLE])).tolist() == [APPLE, FOOD]
  assert part.vocabulary.counts.tolist() == [1, 0, 1, 0, 0, 2]


def test_then_chance_takes_its_part():
  rng = np.random.default_rng(0)
  labels = [rng.choice(6, 2, replace=False).tolist() for _ in range(500)]
  source = TinySource(labels=labels, names=list(NAMES), counts=[0] * 6)
  carrying = {i for i, row in enumerate(labels) if PEAR in row or ROCK in row}
  for num in (1, 50, len(carrying)):
    part = subset.select(
      source, dict(labels=['pear', 'rock'], num_images=num), 'x'
    )
    found = seen(part)
    assert len(found) == num and found.keys() <= carrying
    per_label = [
      sum(n in row for row in found.values()) for n in ('pear', 'rock')
    ]
    assert part.vocabulary.counts.tolist() == per_label
  with pytest.raises(ValueError, match=f'{len(carrying)} records with one of'):
    subset.select(source, dict(labels=['pear', 'rock'], num_images=450), 'x')


def test_every_field_with_label_ids_follows():
  example = {
    'image': b'',
    'labels': np.array([ROCK, APPLE, FRUIT], np.int32),
    'label_conf': np.array([0.5, 0.25, 0.75], np.float32),
    'negatives': np.array([PEAR, ENTITY], np.int32),
    'boxes': np.arange(12, dtype=np.float32).reshape(3, 4),
    'box_labels': np.array([FRUIT, APPLE, ROCK], np.int32),
    'box_crowd': np.array([False, True, False]),
    'box_outlines': ['first', 'second', 'third'],
    'keypoints': np.arange(18, dtype=np.float32).reshape(3, 2, 3),
    'instance_map': np.array([[0, 1, 2], [3, 3, 1]], np.int16),
    'original_size': np.array([4, 5], np.int32),
  }
  names = Vocabulary(NAMES)
  dag = Hierarchy.from_edges(NAMES, EDGES)
  kept = np.array([APPLE, PEAR, ROCK])
  out = Restriction(names, dag, kept).example(example, 'a.jpg')
  assert out['labels'].tolist() == [2, 0]  # rock, apple: as they were
  assert out['label_conf'].tolist() == [0.5, 0.25]
  assert out['negatives'].tolist() == [1]
  assert out['box_labels'].tolist() == [0, 2]
  assert out['boxes'][:, 0].tolist() == [4, 8]
  assert out['box_crowd'].tolist() == [True, False]
  assert out['box_outlines'] == ['second', 'third']
  assert out['keypoints'][:, 0, 0].tolist() == [6, 12]
  assert out['instance_map'].tolist() == [[0, 0, 1], [2, 2, 0]]
  assert out['original_size'].tolist() == [4, 5]
  assert example['box_outlines'] == ['first', 'second', 'third']  # untouched
  # Filled in: food is there as surely as the surest of what shows it. That
  # there is no entity is contradicted by the apple.
  kept = np.array([FOOD, PEAR, ROCK])
  filled = Restriction(names, dag, kept, fill_in=True)
  out = filled.example(example, 'a.jpg')
  assert out['labels'].tolist() == [0, 2]
  assert out['label_conf'].tolist() == [0.75, 0.5]
  assert out['negatives'].tolist() == [1]
  # Where there is no fruit there is no pear; food may be.
  without = {'labels': np.array([ROCK]), 'negatives': np.array([FRUIT])}
  out = filled.example(without, 'a.jpg')
  assert (out['labels'].tolist(), out['negatives'].tolist()) == ([2], [1])
  with pytest.raises(
    ValueError, match=r"label 9 of 'a\.jpg' is outside.* 6 nam"
  ):
    Restriction(names, dag, kept).example({'labels': np.array([9])}, 'a.jpg')


def random_dag(rng, num):
  names = tuple(f'n{i}' for i in rng.permutation(num))
  edges = [
    (names[child], names[parent])
    for child in range(1, num)
    for parent in rng.choice(child, min(child, rng.integers(3)), replace=False)
  ]
  return names, edges


@pytest.mark.parametrize('seed', range(6))
def test_reachability_through_dropped_nodes(seed):
  networkx = pytest.importorskip('networkx')
  rng = np.random.default_rng(seed)
  names, edges = random_dag(rng, 40)
  labels, outside = names[:32], names[32:]  # some nodes have no output
  del outside
  whole = Hierarchy.from_edges(labels, edges, unlisted='traverse')
  kept = np.sort(rng.choice(32, 12, replace=False))
  old = Vocabulary(labels, parents=[()] * 32, counts=range(32))
  new, restricted = hierarchy.restrict(old, whole, kept)
  assert new.names == tuple(labels[i] for i in kept)
  assert new.counts.tolist() == kept.tolist()
  graph = networkx.DiGraph((parent, child) for child, parent in edges)
  graph.add_nodes_from(names)
  for i, name in enumerate(new.names):
    above = {new.names[j] for j in restricted.close(np.array([i]))}
    expected = networkx.ancestors(graph, name) & set(new.names) | {name}
    assert above == expected
    # The parents alone give the same closure, and none is superfluous but
    # those that were parents before.
    parents = set(new.parents[i])
    reach = networkx.ancestors(graph, name)
    for p in parents:
      between = networkx.descendants(graph, p) & reach & set(new.names)
      assert not between or graph.has_edge(p, name)
  again = Hierarchy.from_edges(
    new.names, [(n, p) for n, row in zip(new.names, new.parents) for p in row]
  )
  np.testing.assert_array_equal(
    again.ancestors.values, restricted.ancestors.values
  )


@pytest.mark.parametrize('fill_in', [False, True])
def test_flat_arrays_agree_with_single_records(monkeypatch, fill_in):
  monkeypatch.setattr(arrays, 'BLOCK', 7)
  rng = np.random.default_rng(3)
  names, edges = random_dag(rng, 30)
  labels = [
    rng.integers(0, 30, rng.integers(0, 5)).tolist() for _ in range(100)
  ]
  source = TinySource(
    labels=labels, names=list(names), edges=edges, counts=[0] * 30
  )

  class Indexed(TinySource):
    def label_index(self):
      flat = [i for row in labels for i in row]
      ends = np.cumsum([len(row) for row in labels])
      return ends.astype(np.int64), np.array(flat, np.int32)

  indexed = Indexed(
    labels=labels, names=list(names), edges=edges, counts=[0] * 30
  )
  wanted = names[3:12]
  options = dict(labels=list(wanted), fill_in=fill_in, fraction=0.6)
  part = subset.select(indexed, options, 'x')
  plain = subset.select(source, options, 'x')
  assert part.fingerprint() == plain.fingerprint()
  assert seen(part) == seen(plain)
  ids = {i for i, n in enumerate(names) if n in wanted}
  dag = Hierarchy.from_edges(names, edges)
  expected = {}
  for i, row in enumerate(labels):
    has = set(dag.close(np.array(row, int)).tolist()) if fill_in else set(row)
    if has & ids:
      expected[i] = {names[j] for j in has & ids}
  found = seen(part)
  assert len(found) == round(0.6 * len(expected))
  assert found.items() <= expected.items()
  per_label = [sum(n in row for row in found.values()) for n in wanted]
  assert part.vocabulary.names == wanted
  assert part.vocabulary.counts.tolist() == per_label
  np.testing.assert_array_equal(part.vocabulary.counts, plain.vocabulary.counts)
  index = part.label_index()
  for i, row in enumerate(np.split(index.labels, index.ends[:-1])):
    assert row.tolist() == part.labels(i).tolist()
  # A subset of a subset, by its own index.
  inner = subset.select(part, dict(labels=[wanted[0]]), 'x')
  assert seen(inner) == {
    i: {wanted[0]} for i, row in found.items() if wanted[0] in row
  }


def test_vocabulary_keeps_what_is_known(tmp_path):
  lines = [
    dict(name='n1', description='tench', imagenet_id='n01440764', n_images=4),
    dict(name='n2', parents=['n3'], n_images=5),
    dict(name='n3', parents=['n1'], imagenet_id='n00000003', n_images=6),
  ]
  path = tmp_path / 'v.jsonl'
  path.write_text('\n'.join(json.dumps(line) for line in lines))
  labels, dag = hierarchy.attach(vocabulary.load(path), None)
  new, _ = hierarchy.restrict(labels, dag, np.array([0, 1]))
  assert new.names == ('n1', 'n2') and new.counts.tolist() == [4, 5]
  assert new.imagenet_ids == ('n01440764', None)
  assert new.descriptions == ('tench', None)
  assert new.parents == ((), ('n1',))  # through n3
  weighted = Vocabulary(('a', 'b', 'c'), weights=[1.0, 2.0, 3.0])
  assert weighted.restricted([2, 0]).weights.tolist() == [3.0, 1.0]


def test_labels_with_an_imagenet_counterpart():
  config = dict(type='synthetic', num_images=300, num_classes=50)
  whole = pipeline.open_source(config)
  marked = [
    i for i, synset in enumerate(whole.vocabulary.imagenet_ids) if synset
  ]
  assert 0 < len(marked) < 50
  part = pipeline.open_source(config | dict(subset=dict(labels='imagenet')))
  assert part.vocabulary.names == tuple(
    whole.vocabulary.names[i] for i in marked
  )
  expected = [i for i in range(300) if set(whole.labels(i)) & set(marked)]
  assert [part.key(i) for i in range(len(part))] == list(
    map(whole.key, expected)
  )
  rng = np.random.default_rng(0)
  ops = pipeline.build_ops([dict(op='labels', max_labels=20)], part)
  example = ops[0](part[5], rng)
  kept = [marked.index(i) for i in whole.labels(expected[5]) if i in marked]
  assert example['label_ids'][: len(kept)].tolist() == kept


@pytest.mark.slow
@pytest.mark.nightly
def test_a_head_of_the_chosen_labels_trains_and_is_evaluated(tmp_path):
  """The restricted arm of the paper's study, and a resume it must refuse."""
  chosen = dict(labels='imagenet', fill_in=True)
  config = tiny.config(total_steps=3)
  config.unlock()
  whole = pipeline.open_source(config.input.source)
  kept = sum(i is not None for i in whole.vocabulary.imagenet_ids)
  config.input.source.subset = dict(**chosen, num_images=20)
  config.input.fraction = 0.5
  config.task.num_classes = None  # that of the source
  config.evals.fasteval.data.subset = dict(**chosen, unlabelled='keep')
  workdir = str(tmp_path / 'run')
  state = train.run(config, workdir)
  assert 2 < kept < 13
  assert reading.read_meta(folders.find(workdir))['num_classes'] == kept
  padded = -(-kept // 8) * 8
  assert state.params['head']['kernel'].shape[1] == padded
  scores = [
    m['fasteval/map@100']
    for m in writers.read_metrics(workdir)
    if 'fasteval/map@100' in m
  ]
  assert scores and all(0 < score <= 100 for score in scores)
  config.total_steps = 5
  config.input.source.subset.seed = 1
  config.resume.accept_config_change = True
  with pytest.raises(ValueError, match='accept_data_change'):
    train.run(config, workdir)
  # Evaluated on all classes, it says which differ.
  config.input.source.subset.seed = None
  del config.evals.fasteval.data['subset']
  with pytest.raises(ValueError, match=f'has 13 classes, the model {kept}'):
    train.run(config, str(tmp_path / 'other'))
  assert os.path.exists(workdir)
