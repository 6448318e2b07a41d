"""Real hierarchies: published sizes, agreement with networkx, speed."""

import csv
import json
import time

import numpy as np
import pytest

from input_pipeline.labels import edge_files, hierarchy
from input_pipeline.labels.vocabulary import Vocabulary
from input_pipeline.sources import folder, table

pytestmark = pytest.mark.real_data

FILES = {
  'imagenet22k_is_a.tsv': dict(labels=23_524, edges=24_161, leaves=17_223),
  'wordnet_noun_is_a.tsv.gz': dict(labels=71_873, depth=19, multi_parent=2_316),
}


def read(path):
  edges = edge_files.read(path)
  names = sorted({name for pair in edges.pairs for name in pair})
  return Vocabulary(tuple(names)), edges


@pytest.mark.parametrize('name', FILES)
def test_sizes_and_time(real_data, name):
  path = real_data / 'hierarchy' / name
  vocabulary, _ = read(path)
  start = time.perf_counter()
  dag = hierarchy.load(path, vocabulary)
  seconds = time.perf_counter() - start
  seen = dag.statistics
  ours = dict(
    labels=seen.num_labels,
    edges=seen.num_edges,
    leaves=seen.num_leaves,
    depth=seen.max_depth,
    multi_parent=seen.num_multi_parent,
  )
  assert FILES[name].items() <= ours.items()
  assert seconds < 3


@pytest.mark.parametrize('name', FILES)
def test_closure_agrees_with_networkx(real_data, name):
  networkx = pytest.importorskip('networkx')
  vocabulary, edges = read(real_data / 'hierarchy' / name)
  dag = hierarchy.load(real_data / 'hierarchy' / name, vocabulary)
  graph = networkx.DiGraph((parent, child) for child, parent in edges.pairs)
  ids = np.random.default_rng(0).permutation(len(vocabulary))[:3000]
  for i in ids.tolist():
    ancestors = networkx.ancestors(graph, vocabulary.names[i])
    mine = dag.ancestors[i].tolist()
    assert mine == sorted(map(vocabulary.index, ancestors))
  levels = networkx.topological_generations(graph)
  for depth, level in enumerate(levels):
    assert {int(dag.depth[vocabulary.index(n)]) for n in level} == {depth}


def test_tree_of_open_images(real_data):
  path = real_data / 'hierarchy' / 'openimages_bbox_labels_600_hierarchy.json'
  vocabulary, _ = read(path)
  dag = hierarchy.load(path, vocabulary)
  # As a recursive count over the parsed file has them.
  assert (dag.num_labels, dag.statistics.num_edges) == (602, 647)
  assert dag.statistics.num_roots == 1
  (root,) = np.flatnonzero(dag.depth == 0)
  assert vocabulary.names[root] == '/m/0bl9f'
  tortoise = vocabulary.index('/m/011k07')
  above = {vocabulary.names[i] for i in dag.close(np.array([tortoise]))}
  # Turtle, reptile, animal, entity.
  assert above == {'/m/011k07', '/m/09dzg', '/m/06bt6', '/m/0jbk', '/m/0bl9f'}


def test_imagenet_labels_under_wordnet(real_data):
  folder = real_data / 'hierarchy'
  synsets = (folder / 'imagenet_synsets.txt').read_text().split()
  path = folder / 'wordnet_noun_is_a.tsv.gz'
  with pytest.raises(ValueError, match=r"not in the vocabulary.*='traverse'"):
    hierarchy.load(path, Vocabulary(tuple(synsets)))
  dag = hierarchy.load(path, Vocabulary(tuple(synsets)), unlisted='traverse')
  assert dag.num_labels == 1000 and dag.statistics.num_unlisted > 500
  extended, full = hierarchy.attach(
    Vocabulary(tuple(synsets)), path, unlisted='add'
  )
  assert extended.names[:1000] == tuple(synsets)
  assert len(extended) == 1000 + dag.statistics.num_unlisted
  tench = full.close(np.array([synsets.index('n01440764')]))
  names = {extended.names[i] for i in tench}
  assert {'n01440764', 'n02512053', 'n00015388', 'n00001740'} <= names
  # tench, fish, animal, entity


def test_tiny_imagenet_slice(real_data):
  networkx = pytest.importorskip('networkx')
  folder = real_data / 'tiny_imagenet_slice'
  content = json.loads((folder / 'hierarchy.json').read_text())
  with open(folder / 'labels.csv', newline='') as file:
    present = sorted({row['wnid'] for row in csv.DictReader(file)})
  assert len(present) == 40 and len(content['classes']) == 60
  classes = Vocabulary(tuple(content['classes']))
  extended, dag = hierarchy.attach(
    classes, folder / 'hierarchy.json', unlisted='add'
  )
  graph = networkx.DiGraph((parent, child) for child, parent in content['is_a'])
  assert len(extended) == graph.number_of_nodes()
  for i in range(60):
    closed = {extended.names[j] for j in dag.close(np.array([i]))}
    name = extended.names[i]
    assert closed == {name} | networkx.ancestors(graph, name)


def test_folder_and_table_sources_agree(real_data):
  root = real_data / 'tiny_imagenet_slice'
  shared = dict(
    hierarchy=str(root / 'hierarchy.json'), hierarchy_unlisted='add'
  )
  columns = dict(image_column='file', labels_column='wnid')
  folders = folder.Source(path=str(root), **shared)
  rows = table.Source(path=str(root / 'labels.csv'), **columns, **shared)
  assert len(folders) == len(rows) == 4000
  assert folders.vocabulary.names == rows.vocabulary.names
  labels = {f'train/{folders.key(i)}': i for i in range(4000)}
  for i in range(0, 4000, 7):
    other = labels[rows.key(i)]
    np.testing.assert_array_equal(rows.labels(i), folders.labels(other))
    assert rows[i]['image'] == folders[other]['image']
    assert rows[i]['image'][:2] == b'\xff\xd8'
  counts = folders.vocabulary.counts
  np.testing.assert_array_equal(counts, rows.vocabulary.counts)
  assert counts[:40].tolist() == [100] * 40 and not counts[40:].any()
  # Its validation images lie in one folder; their labels are in the table.
  with pytest.raises(ValueError, match='use the table source'):
    folder.Source(path=str(root), split='val', **shared)
  val = table.Source(
    path=str(root / 'labels.csv'), split='val', **columns, **shared
  )
  assert len(val) == 1000 and val.vocabulary.names == rows.vocabulary.names
  per_class = np.bincount([val.labels(i)[0] for i in range(1000)])
  assert per_class.tolist() == [25] * 40
