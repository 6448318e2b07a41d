"""Vocabulary files: round trips, and every mistake named with its line."""

import gzip
import json
import pickle

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from input_pipeline.labels import vocabulary
from input_pipeline.labels.vocabulary import Vocabulary

# No '=', '+', '-', '@' at the start: some of those are formulas (see below).
NAMES = st.text(
  st.characters(exclude_categories=('Cc', 'Cs', 'Zl', 'Zp')), min_size=1
).filter(lambda name: name == name.strip() and name[0] not in '=+-@')


def write(tmp_path, text, name='labels.jsonl'):
  path = tmp_path / name
  data = text.encode() if isinstance(text, str) else text
  path.write_bytes(gzip.compress(data) if name.endswith('.gz') else data)
  return str(path)


def test_reads_every_field(tmp_path):
  path = write(
    tmp_path,
    '{"id": 0, "name": "fruit", "parents": [], "n_images": 5, '
    '"imagenet_id": "n13134947", "popularity_weight": 0.5}\n'
    '{"id": 1, "name": "apple", "parents": ["fruit"], "n_images": 0, '
    '"imagenet_id": null, "popularity_weight": 2}\n'
    '{"id": 2, "name": "Äpfel 苹果", "parents": [1, 0], "n_images": 7, '
    '"popularity_weight": 0}\n',
  )
  labels = vocabulary.load(path)
  assert labels.names == ('fruit', 'apple', 'Äpfel 苹果')
  assert labels.parents == ((), ('fruit',), ('apple', 'fruit'))
  assert labels.imagenet_ids == ('n13134947', None, None)
  np.testing.assert_array_equal(labels.counts, [5, 0, 7])
  assert labels.counts.dtype == np.int64
  np.testing.assert_array_equal(labels.weights, [0.5, 2.0, 0.0])
  assert labels.where(2) == f'{path}:3'
  assert 'apple' in labels and 'pear' not in labels and len(labels) == 3


@pytest.mark.parametrize('name', ['a.txt', 'a.txt.gz', 'a.jsonl.gz'])
def test_plain_text_crlf_bom_and_gzip(tmp_path, name):
  lines = ['=> cmd|calc', '+1', '@x', '$\\frac{1}{0}$']
  if 'jsonl' in name:
    lines = [json.dumps({'name': line}) for line in lines]
  path = write(tmp_path, '\ufeff' + '\r\n'.join(lines) + '\r\n', name)
  labels = vocabulary.load(path)
  # Formula-like names are data, kept as they are.
  assert labels.names == ('=> cmd|calc', '+1', '@x', '$\\frac{1}{0}$')
  assert labels.counts is labels.weights is labels.parents is None


def test_index_names_the_near_ones():
  labels = Vocabulary(('tabby cat', 'tiger cat', 'school bus'))
  assert labels.index('tiger cat') == 1
  with pytest.raises(ValueError, match=r"'tigre cat'.*near: 'tiger cat'"):
    labels.index('tigre cat')
  with pytest.raises(ValueError, match="near: 'school bus'"):
    labels.index('School Bus')


def test_near_names_of_a_huge_vocabulary():
  names = [f'n{i:08d}' for i in range(30_000)] + ['zebra']
  assert "'zebra'" in vocabulary.suggestion('zebre', names)


OBJECT = '{"name": "a"}\n'
BAD = {
  'empty file': ('', 'no labels'),
  'empty line': (OBJECT + '\n' + OBJECT, ':2: empty line'),
  'duplicate name': (
    OBJECT + '{"name": "b"}\n' + OBJECT,
    r":3: name 'a' is already at .*:1$",
  ),
  'duplicate id': (
    '{"id": 0, "name": "a"}\n{"id": 0, "name": "b"}\n',
    ':2: id 0 is not the position 1; line 1 has that id already',
  ),
  'bool id': (OBJECT + '{"id": true, "name": "b"}', ':2: id True'),
  'id gap': ('{"id": 1, "name": "a"}', ':1: id 1 is not the position 0$'),
  'unknown key': ('{"name": "a", "nimages": 1}', ":1: unknown key 'nimages'"),
  'no name': (OBJECT + '{"id": 1}', ':2: not an object with a "name"'),
  'null name': ('{"name": null}', ':1: "name" is null'),
  'not an object': (OBJECT + '3', ':2: not an object'),
  'number as name': ('{"name": 3}', ':1: a name must be a string, got 3'),
  'blank name': ('{"name": " "}', ':1: a name must not be empty'),
  'not JSON': (OBJECT + '{"name": "b"', ':2: not JSON'),
  'repeated key': ('{"name": "a", "name": "b"}', ':1: a repeated key'),
  'NaN': (
    '{"name": "a", "popularity_weight": NaN}',
    ':1: NaN is not a JSON number',
  ),
  'infinity by overflow': (
    '{"name": "a", "popularity_weight": 1e999}',
    ':1: popularity_weight must be a finite number',
  ),
  'huge weight': (
    '{"name": "a", "popularity_weight": 1' + '0' * 400 + '}',
    ':1: popularity_weight',
  ),
  'negative count': ('{"name": "a", "n_images": -1}', ':1: n_images'),
  'fractional count': ('{"name": "a", "n_images": 1.5}', ':1: n_images'),
  'huge count': ('{"name": "a", "n_images": 9223372036854775808}', ':1: n_im'),
  'endless count': ('{"name": "a", "n_images": ' + '9' * 5000 + '}', ':1: '),
  'some counts': (
    '{"name": "a", "n_images": 1}\n{"name": "b"}\n',
    ':2: no n_images, which other lines have',
  ),
  'lone surrogate': (
    OBJECT + '{"name": "\\ud800"}',
    r":2: character '\\ud800' is not allowed",
  ),
  'newline in name': ('{"name": "a\\nb"}', r":1: character '\\n'"),
  'deep JSON': (OBJECT + '[' * 100_000, ':2: '),
  'not UTF-8': (OBJECT.encode() + b'{"name": "\xff"}', ':2: not UTF-8'),
  'huge line': ('{"name": "a"}\n' + 'x' * (1 << 21), ':2: longer than'),
  'parents no list': ('{"name": "a", "parents": "b"}', ':1: parents must be'),
  'parent id': ('{"name": "a", "parents": [1]}', r':1: parent id 1 .*0\.\.0'),
  'parent null': ('{"name": "a", "parents": [null]}', ':1: parents: a name'),
  'imagenet_id': ('{"name": "a", "imagenet_id": 3}', ':1: imagenet_id'),
}


@pytest.mark.parametrize('case', BAD)
def test_mistakes_are_named_with_their_line(tmp_path, case):
  text, message = BAD[case]
  path = write(tmp_path, text)
  with pytest.raises(ValueError, match=message) as raised:
    vocabulary.load(path)
  assert str(raised.value).startswith(path)
  assert len(str(raised.value)) < 500


def test_mistakes_about_the_file_itself(tmp_path):
  with pytest.raises(FileNotFoundError, match=r'none\.txt: no such file'):
    vocabulary.load(str(tmp_path / 'none.txt'))
  with pytest.raises(ValueError, match=r'is \.jsonl or \.txt'):
    vocabulary.load(write(tmp_path, 'a\n', 'labels.csv'))
  (tmp_path / 'folder.txt').mkdir()
  with pytest.raises(ValueError, match=r'folder\.txt: cannot be read'):
    vocabulary.load(str(tmp_path / 'folder.txt'))
  broken = tmp_path / 'broken.txt.gz'
  broken.write_bytes(gzip.compress(b'a\nb\n')[:-6])
  with pytest.raises(ValueError, match=r'broken\.txt\.gz: cannot be read'):
    vocabulary.load(str(broken))
  with pytest.raises(ValueError, match=r'labels\.txt:2: a name must not be'):
    vocabulary.load(write(tmp_path, 'a\n\nb\n', 'labels.txt'))


@pytest.mark.parametrize(
  'fields, message',
  [
    ({'counts': [1]}, r'counts has shape \(1,\) for 2 labels'),
    ({'counts': [1, -1]}, "counts of 'b' must be finite and not negative"),
    ({'weights': [np.nan, 1]}, "weights of 'a' must be finite"),
    ({'parents': ((),)}, '1 parents for 2 labels'),
    ({'descriptions': ('x',)}, '1 descriptions for 2 labels'),
    ({'descriptions': (None, ' x')}, 'label 1: description: a name must not'),
  ],
)
def test_fields_must_fit_the_names(fields, message):
  with pytest.raises(ValueError, match=message):
    Vocabulary(('a', 'b'), **fields)


@pytest.mark.parametrize(
  'fields',
  [
    dict(parents=((), ('=1',))),
    dict(imagenet_ids=(None, '=1+2')),
    dict(descriptions=(None, '=cmd|x')),
  ],
)
def test_what_no_file_may_hold_is_not_made(fields):
  with pytest.raises(ValueError, match='formula'):
    Vocabulary(('a', 'b'), **fields)


@hypothesis.given(
  st.lists(NAMES, min_size=1, max_size=8, unique=True), st.data()
)
@hypothesis.settings(
  max_examples=60,
  suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
)
def test_save_and_load_agree(tmp_path, names, data):
  n = len(names)

  def column(values):
    lists = st.lists(values, min_size=n, max_size=n)
    return data.draw(st.none() | lists)

  saved = Vocabulary(
    tuple(names),
    counts=column(st.integers(0, 2**63 - 1)),
    weights=column(st.floats(0, allow_infinity=False, width=64)),
    parents=column(st.lists(NAMES, max_size=2).map(tuple)),
    imagenet_ids=column(st.none() | NAMES),
    descriptions=column(st.none() | NAMES),
  )
  path = tmp_path / 'labels.jsonl'
  saved.save(path)
  loaded = vocabulary.load(path)
  assert loaded.names == saved.names
  np.testing.assert_array_equal(loaded.counts, saved.counts)
  np.testing.assert_array_equal(loaded.weights, saved.weights)
  if saved.parents is not None and any(saved.parents):
    assert loaded.parents == tuple(saved.parents)
  for field in ('imagenet_ids', 'descriptions'):
    values = getattr(saved, field)
    if values is not None and any(values):
      assert getattr(loaded, field) == tuple(values)
  assert loaded.fingerprint() == saved.fingerprint()
  saved.save(tmp_path / 'labels.txt')
  assert vocabulary.load(tmp_path / 'labels.txt').names == saved.names
  assert sorted(p.name for p in tmp_path.iterdir()) == [
    'labels.jsonl',
    'labels.txt',
  ]


def test_descriptions_are_what_people_see(tmp_path):
  lines = [
    {'name': 'n01440764', 'description': 'tench, Tinca tinca'},
    {'name': 'n01443537', 'description': None},
    {'name': 'dog'},
  ]
  text = '\n'.join(json.dumps(line) for line in lines)
  labels = vocabulary.load(write(tmp_path, text, 'v.jsonl'))
  assert labels.descriptions == ('tench, Tinca tinca', None, None)
  shown = [labels.readable_name(i) for i in range(3)]
  assert shown == ['tench, Tinca tinca', 'n01443537', 'dog']
  assert Vocabulary(('a',)).readable_name(0) == 'a'
  # They are no part of what makes two label sets the same.
  assert labels.fingerprint() == Vocabulary(labels.names).fingerprint()
  wrong = write(tmp_path, '{"name": "a", "description": 3}', 'w.jsonl')
  with pytest.raises(ValueError, match=r'w\.jsonl:1: description: a name must'):
    vocabulary.load(wrong)


def test_is_picklable_and_read_only():
  labels = Vocabulary(('a', 'b'), counts=np.array([1, 2]))
  copy = pickle.loads(pickle.dumps(labels))  # noqa: S301
  assert copy.names == labels.names and copy.index('b') == 1
  with pytest.raises(ValueError, match='read-only'):
    labels.counts[0] = 3
  assert labels.fingerprint() != Vocabulary(('b', 'a')).fingerprint()
