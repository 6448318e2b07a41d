"""Hierarchy: closure by hand and against networkx, files, and mistakes."""

import gzip
import itertools
import json
import pickle

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from input_pipeline.labels import hierarchy, vocabulary
from input_pipeline.labels.hierarchy import Hierarchy
from input_pipeline.labels.vocabulary import Vocabulary

# entity <- plant <- fruit <- apple; entity <- food <- fruit (two parents)
NAMES = ('apple', 'entity', 'food', 'fruit', 'plant', 'rock')
EDGES = [
  ('apple', 'fruit'),
  ('fruit', 'plant'),
  ('fruit', 'food'),
  ('plant', 'entity'),
  ('food', 'entity'),
]


def rows(indptr, values):
  return [values[a:b].tolist() for a, b in itertools.pairwise(indptr)]


def test_small_dag_by_hand():
  dag = Hierarchy.from_edges(NAMES, EDGES)
  assert dag.num_labels == 6
  assert rows(dag.ancestors.ends, dag.ancestors.values) == [
    [1, 2, 3, 4],  # apple: entity, food, fruit, plant
    [],
    [1],
    [1, 2, 4],
    [1],
    [],
  ]
  assert rows(dag.parents.ends, dag.parents.values) == [
    [3],
    [],
    [1],
    [2, 4],
    [1],
    [],
  ]
  assert dag.depth.tolist() == [3, 0, 1, 2, 1, 0]
  assert dag.ancestors.ends.dtype == dag.parents.ends.dtype == np.int64
  assert dag.ancestors.values.dtype == dag.parents.values.dtype == np.int32
  assert dag.depth.dtype == np.int32


def test_statistics_by_hand():
  seen = Hierarchy.from_edges(NAMES, EDGES).statistics
  assert (seen.num_labels, seen.num_unlisted, seen.num_edges) == (6, 0, 5)
  assert (seen.num_roots, seen.num_leaves, seen.num_isolated) == (2, 2, 1)
  assert (seen.num_multi_parent, seen.max_parents, seen.max_depth) == (1, 2, 3)
  assert (seen.max_children, seen.max_children_node) == (2, 'entity')
  assert (seen.max_ancestors, seen.mean_ancestors) == (4, 9 / 6)
  assert seen.nodes_by_depth == (2, 2, 1, 1)
  assert seen.nodes_by_children == {0: 2, 1: 3, 2: 1}


def test_close_by_hand():
  dag = Hierarchy.from_edges(NAMES, EDGES)

  def close(*ids):
    closed = dag.close(np.array(ids, np.int32))
    assert closed.dtype == np.int32
    return closed.tolist()

  assert close() == []
  assert close(5) == [5]
  assert close(0) == [0, 1, 2, 3, 4]
  assert close(5, 3, 3) == [1, 2, 3, 4, 5]
  assert close(2, 4) == [1, 2, 4]
  closed = dag.close(np.array([0]))
  closed[:] = -7  # a caller may change what it got
  assert close(0) == [0, 1, 2, 3, 4]
  for wrong in ([6], [-1], [0, 6], [0, -1]):
    with pytest.raises(ValueError, match=r'not all in 0\.\.5'):
      close(*wrong)


@st.composite
def dags(draw):
  """(number of labels, edges to smaller numbers), names shuffled."""
  n = draw(st.integers(1, 12))
  pairs = st.tuples(st.integers(0, n - 1), st.integers(0, n - 1))
  edges = draw(st.lists(pairs, max_size=30))
  order = draw(st.permutations(range(n)))
  kept = {(order[max(e)], order[min(e)]) for e in edges if e[0] != e[1]}
  return n, draw(st.permutations(sorted(kept)))


@hypothesis.given(dags(), st.data())
@hypothesis.settings(max_examples=150, deadline=None)
def test_closure_agrees_with_networkx_and_is_a_closure(dag, data):
  networkx = pytest.importorskip('networkx')
  n, edges = dag
  names = [f'c{i}' for i in range(n)]
  ours = Hierarchy.from_edges(names, [(names[c], names[p]) for c, p in edges])
  graph = networkx.DiGraph(edges)
  graph.add_nodes_from(range(n))
  assert rows(ours.ancestors.ends, ours.ancestors.values) == [
    sorted(networkx.descendants(graph, i)) for i in range(n)
  ]
  for i in range(n):
    lengths = [
      networkx.dag_longest_path_length(
        graph.subgraph({i, *networkx.descendants(graph, i)})
      )
    ]
    assert ours.depth[i] == max(lengths)
  ids = np.array(data.draw(st.lists(st.integers(0, n - 1))), np.int32)
  closed = ours.close(ids)
  assert set(ids.tolist()) <= set(closed.tolist())
  assert closed.tolist() == sorted(set(closed.tolist()))
  np.testing.assert_array_equal(ours.close(closed), closed)  # idempotent
  each = [ours.close(ids[i : i + 1]) for i in range(len(ids))]
  union = set(np.concatenate([*each, []]).tolist())
  assert union == set(closed.tolist())  # monotone, transitive


# --- nodes without an output id -----------------------------------------


def test_unlisted_nodes_are_an_error_unless_asked_for():
  labels = ('apple', 'entity', 'food')
  with pytest.raises(ValueError, match=r"edge 1: parent 'fruit'.*and 1 more"):
    Hierarchy.from_edges(labels, EDGES)
  dag = Hierarchy.from_edges(labels, EDGES, unlisted='traverse')
  assert rows(dag.ancestors.ends, dag.ancestors.values) == [[1, 2], [], [1]]
  assert rows(dag.parents.ends, dag.parents.values) == [[], [], [1]]
  assert dag.depth.tolist() == [3, 0, 1]  # through nodes without an id
  assert dag.statistics.num_unlisted == 2
  with pytest.raises(
    ValueError, match="unlisted='add'; valid: error, traverse"
  ):
    Hierarchy.from_edges(labels, EDGES, unlisted='add')


def test_traverse_leaves_out_what_lies_beside_the_labels():
  edges = [*EDGES, ('granite', 'stone'), ('pear', 'fruit')]
  seen = Hierarchy.from_edges(NAMES, edges, unlisted='traverse').statistics
  assert (seen.num_unlisted, seen.num_edges, seen.max_children) == (0, 5, 2)


def test_attach_adds_ancestors_as_labels(tmp_path):
  path = tmp_path / 'edges.tsv'
  path.write_text('\n'.join('\t'.join(e) for e in [*EDGES, ('x', 'y')]))
  labels = Vocabulary(
    ('apple', 'food'), counts=[3, 4], descriptions=('an apple', None)
  )
  extended, dag = hierarchy.attach(labels, str(path), unlisted='add')
  assert extended.names == ('apple', 'food', 'entity', 'fruit', 'plant')
  assert extended.counts.tolist() == [3, 4, 0, 0, 0]
  assert extended.descriptions == ('an apple', None, None, None, None)
  assert dag.num_labels == 5 and dag.statistics.num_unlisted == 0
  assert dag.close(np.array([0])).tolist() == [0, 1, 2, 3, 4]
  weighted = Vocabulary(('apple', 'food'), weights=[3.0, 4.0])
  with pytest.raises(ValueError, match=r"popularity weights.*'entity'"):
    hierarchy.attach(weighted, str(path), unlisted='add')
  with pytest.raises(ValueError, match='error, traverse, add'):
    hierarchy.attach(labels, str(path), unlisted='ignore')


def test_attach_without_a_file_uses_the_vocabulary():
  assert hierarchy.attach(Vocabulary(('a', 'b')), None)[1] is None
  labels = Vocabulary(('a', 'b'), parents=((), ('a',)))
  same, dag = hierarchy.attach(labels, None)
  assert same is labels and dag is not None
  assert dag.close(np.array([1])).tolist() == [0, 1]
  flat = hierarchy.attach(Vocabulary(('a', 'b'), parents=((), ())), None)[1]
  assert flat is not None and flat.statistics.num_isolated == 2


# --- files ----------------------------------------------------------------

TSV = '# made by hand\n# second comment\nchild\tparent\n' + '\n'.join(
  '\t'.join(edge) for edge in EDGES
)


def tree(name):
  below = [tree(child) for child, parent in EDGES if parent == name]
  part = {'Part': [{'LabelName': 'core'}]} if name == 'apple' else {}
  return {
    'LabelName': name,
    **({'Subcategory': below} if below else {}),
    **part,
  }


FILES = {
  'edges.tsv': TSV,
  'wordnet.is_a.txt': '\n'.join(f'{p} {c}' for c, p in EDGES) + '\n',
  'crlf.tsv': TSV.replace('\n', '\r\n') + '\r\n',
  'edges.tsv.gz': TSV,
  'edges.csv': 'Child,Parent\n' + '\n'.join(f'"{a}",{b}' for a, b in EDGES),
  'edges.json': json.dumps({'classes': {'is_a': 1}, 'is_a': EDGES}),
  'pretty.json.gz': json.dumps({'is_a': EDGES}, indent=1),
  'open_images.json': json.dumps(tree('entity')),
  'labels.jsonl': '\n'.join(
    json.dumps({'name': n, 'parents': [p for c, p in EDGES if c == n]})
    for n in NAMES
  ),
}


def write(tmp_path, name, text):
  data = text if isinstance(text, bytes) else text.encode()
  path = tmp_path / name
  path.write_bytes(gzip.compress(data) if name.endswith('.gz') else data)
  return str(path)


@pytest.mark.parametrize('name', FILES)
def test_every_format_gives_the_same(tmp_path, name):
  path = write(tmp_path, name, FILES[name])
  dag = hierarchy.load(path, Vocabulary(NAMES))
  expected = Hierarchy.from_edges(NAMES, EDGES)
  np.testing.assert_array_equal(dag.ancestors.ends, expected.ancestors.ends)
  np.testing.assert_array_equal(dag.ancestors.values, expected.ancestors.values)
  np.testing.assert_array_equal(dag.parents.values, expected.parents.values)


def test_names_are_data(tmp_path):
  names = ('=', 'a, b', '#hash', '"q"', '@home')
  edges = list(zip(names[1:], names[:-1], strict=True))
  text = '\n'.join(f'{c}\t{p}' for c, p in edges[::-1])
  dag = hierarchy.load(write(tmp_path, 'e.tsv', text), Vocabulary(names))
  assert dag.depth.tolist() == [0, 1, 2, 3, 4]


BAD = {
  'unknown parent': (
    'e.tsv',
    'apple\tfruit\nfruit\tplnat\n',
    r"e\.tsv:2: parent 'plnat' is not in the vocabulary; near: 'plant'",
  ),
  'unknown child': ('e.tsv', 'aple\tfruit\n', "e.tsv:1: child 'aple'.*'apple'"),
  'says the ways out': ('e.tsv', 'x\tfruit\n', "='traverse'.*or 'add'"),
  'self-loop': (
    'e.tsv',
    '# c\napple\tfruit\nfood\tfood\n',
    r":3: 'food' is its own parent",
  ),
  'duplicate edge': (
    'e.csv',
    'child,parent\napple,fruit\nfruit,food\napple,fruit\n',
    r":4: edge 'apple' -> 'fruit' is already at .*e\.csv:2",
  ),
  'cycle': (
    'e.tsv',
    'apple\tfruit\nfruit\tplant\nplant\tfood\nfood\tfruit\nrock\tfood\n',
    r":2: cycle of 3 edges: 'fruit' -> 'plant' \(.*:2\), 'plant' -> 'food' "
    r"\(.*:3\), 'food' -> 'fruit' \(.*:4\)",
  ),
  'cycle in JSON': (
    'e.json',
    '{"x": [1, {"is_a": [2]}], "is_a": [\n["apple", "food"],\n'
    '["food", "fruit"], ["fruit",\n"apple"]\n]}',
    r'e\.json:2: cycle .*\(.*:3\), .*\(.*:3\)',
  ),
  'cycle in a vocabulary': (
    'e.jsonl',
    '{"name": "apple", "parents": ["food"]}\n'
    '{"name": "food", "parents": ["apple"]}\n',
    r'e\.jsonl:1: cycle of 2 edges',
  ),
  'three fields': ('e.tsv', 'apple\tfruit\tx\n', ':1: expected child.*3 fiel'),
  'one field': ('e.csv', 'apple,fruit\nfruit\tfood\n', ':2: expected child'),
  'open quote': ('e.csv', 'apple,fruit\nfruit,"food\n', ':2: unexpected end'),
  'empty name': ('e.tsv', 'apple\t\n', ':1: a name must not be empty'),
  'control character': ('e.tsv', 'apple\tfr\x00uit\n', ":1: character '.x00'"),
  'not UTF-8': ('e.tsv', b'apple\tfruit\nfruit\t\xed\xa0\x80\n', ':2: not UTF'),
  'huge line': ('e.tsv', 'apple\tfruit\n' + 'x' * 2_000_000, ':2: longer than'),
  'huge CSV field': ('e.csv', 'a,b\nx,' + 'y' * 200_000, ':2: field larger'),
  'is_a with three': ('e.txt', 'fruit apple\na b c\n', r'\.txt:2: .*3 fields'),
  'is_a backwards': (
    'e.txt',
    'food fruit\napple fruit\nfood apple\nfruit food\n',
    r'e\.txt:1: cycle of 2 edges',
  ),
  'tree without a name': (
    'e.json',
    '{"LabelName": "food", "Subcategory": [{"LabelName": "fruit"}, {}]}',
    "e.json: Subcategory 2 of 'food': not an object",
  ),
  'tree with a wrong list': (
    'e.json',
    '{"LabelName": "food", "Subcategory": {"LabelName": "fruit"}}',
    'e.json: Subcategory of the root must be a list',
  ),
  'tree of unknown names': (
    'e.json',
    '{"LabelName": "food", "Subcategory": [{"LabelName": "/m/0x"}]}',
    "Subcategory 1 of 'food': child '/m/0x' is not in the vocabulary",
  ),
  'empty': ('e.tsv', '', r'e\.tsv: no child -> parent edges'),
  'only a header': ('e.tsv', 'child\tparent\n', 'no child -> parent edges'),
  'suffix': ('e.xml', '<a/>', r"'\.xml'; valid suffixes: \.tsv, \.csv, \.txt"),
  'JSON without is_a': ('e.json', '{"isa": []}', 'expected an object .*"is_a"'),
  'JSON list': ('e.json', '[["apple", "fruit"]]', 'expected an object'),
  'JSON triple': (
    'e.json',
    '{"is_a": [["apple", "fruit"],\n["a", "b", "c"]]}',
    r':2: expected \[child, parent\]',
  ),
  'JSON NaN': ('e.json', '{"is_a": [["apple", NaN]]}', 'NaN is not a JSON num'),
  'JSON number': ('e.json', '{"is_a": [[\n1, "apple"]]}', ':1: a name must be'),
  'JSON surrogate': (
    'e.json',
    '{"is_a": [["apple", "fruit"],\n ["food", "\\udfff"]]}',
    r":2: character '\\udfff'",
  ),
  'JSON too deep': ('e.json', '{"is_a": ' + '[' * 100_000, 'nested too deeply'),
  'other names': (
    'e.tsv',
    'n01\tn02\n',
    r":1: child 'n01' \(and 1 more\) is not in the vocabulary",
  ),
}


@pytest.mark.parametrize('case', BAD)
def test_mistakes_are_named_with_their_line(tmp_path, case):
  name, text, message = BAD[case]
  path = write(tmp_path, name, text)
  with pytest.raises(ValueError, match=message) as raised:
    hierarchy.load(path, Vocabulary(NAMES))
  assert str(raised.value).startswith(path)
  assert '\n' not in str(raised.value) and len(str(raised.value)) < 1000


def test_other_mistakes(tmp_path):
  with pytest.raises(FileNotFoundError, match=r'none\.tsv: no such file'):
    hierarchy.load(str(tmp_path / 'none.tsv'), Vocabulary(NAMES))
  path = write(tmp_path, 'e.tsv', 'n01\tn02\n')
  with pytest.raises(ValueError, match=r"no label .*'apple'.*'n01'"):
    hierarchy.load(path, Vocabulary(NAMES), unlisted='traverse')
  with pytest.raises(ValueError, match='2 repeated label names'):
    Hierarchy.from_edges(['a', 'a', 'b', 'b'], [])


def test_max_depth(tmp_path):
  path = write(tmp_path, 'e.tsv', '\n'.join('\t'.join(e) for e in EDGES))
  assert hierarchy.load(path, Vocabulary(NAMES), max_depth=3).depth.max() == 3
  with pytest.raises(
    ValueError, match=r"e\.tsv:1: 'apple' lies 3 edges below.*allowed: 2"
  ):
    hierarchy.load(path, Vocabulary(NAMES), max_depth=2)
  for wrong in (0, True, 2.0):
    expected = f'max_depth={wrong} must be int of at least 1 or None'
    with pytest.raises(ValueError, match=expected):
      hierarchy.load(path, Vocabulary(NAMES), max_depth=wrong)


def test_a_path_of_200_000_nodes_is_one_message():
  # Ten times the interpreter's recursion limit and more, quick enough here;
  # 10^6 nodes take the same path in 2 s.
  names = [str(i) for i in range(200_000)]
  below = [(names[i], names[i - 1]) for i in range(1, len(names))]
  with pytest.raises(ValueError, match='hierarchy is 199999 deep'):
    Hierarchy.from_edges(names, below)
  with pytest.raises(ValueError, match=r'cycle of 200000 edges.*199990 more'):
    Hierarchy.from_edges(names, [*below, (names[0], names[-1])])


def test_pickle_and_read_only():
  dag = Hierarchy.from_edges(NAMES, EDGES)
  dag.close(np.array([0]))
  copy = pickle.loads(pickle.dumps(dag))  # noqa: S301
  assert copy.close(np.array([2, 4])).tolist() == [1, 2, 4]
  with pytest.raises(ValueError, match='read-only'):
    dag.ancestors.values[0] = 0


def test_parents_by_id_and_by_name_agree(tmp_path):
  text = '{"name": "a"}\n{"name": "b", "parents": [0]}\n'
  by_id = vocabulary.load(write(tmp_path, 'id.jsonl', text))
  text = '{"name": "a"}\n{"name": "b", "parents": ["a"]}\n'
  by_name = vocabulary.load(write(tmp_path, 'name.jsonl', text))
  assert by_id.parents == by_name.parents == ((), ('a',))


def test_counts_go_up_to_all_ancestors_once_each():
  # d has the parents b and c, both below a: its images count for a once.
  names = ('a', 'b', 'c', 'd', 'e')
  edges = [('b', 'a'), ('c', 'a'), ('d', 'b'), ('d', 'c')]
  dag = hierarchy.Hierarchy.from_edges(names, edges)
  counts = np.array([1, 10, 100, 1000, 7])
  np.testing.assert_array_equal(
    dag.close_counts(counts), [1111, 1010, 1100, 1000, 7]
  )
  np.testing.assert_array_equal(counts, [1, 10, 100, 1000, 7])
