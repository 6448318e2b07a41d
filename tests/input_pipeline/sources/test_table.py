"""Table source: CSV, TSV, JSONL; labels, splits, paths, and all mistakes."""

import gzip
import os
import pickle

import numpy as np
import pytest

from big_vision_like.config import plugins
from input_pipeline import pipeline
from input_pipeline.examples.errors import BadExample
from input_pipeline.sources import table

CSV = """path,labels,split
b.jpg,dog; cat ;,train
a b/ä.jpg,"=> '$(x)'",train
c.jpg,,train
v.jpg,cat;cat,val
"""
JSONL = """{"path": "b.jpg", "labels": ["dog", "cat"], "split": "train"}
{"path": "a b/ä.jpg", "labels": "=> '$(x)'", "split": "train"}

{"path": "c.jpg", "labels": [], "split": "train"}
{"path": "v.jpg", "labels": ["cat", "cat"], "split": "val"}
"""
TABLES = {
  't.csv': CSV,
  't.csv.gz': CSV,
  't.tsv': CSV.replace('"', '').replace(',', '\t'),
  't.jsonl': JSONL,
}


@pytest.fixture
def root(tmp_path):
  (tmp_path / 'a b').mkdir()
  for name in ('b.jpg', 'a b/ä.jpg', 'c.jpg', 'v.jpg'):
    (tmp_path / name).write_bytes(name.encode())
  return tmp_path


def write(root, text, name='t.csv'):
  data = text if isinstance(text, bytes) else text.encode()
  path = root / name
  path.write_bytes(gzip.compress(data) if name.endswith('.gz') else data)
  return str(path)


def contents(source):
  names = source.vocabulary.names
  return [
    (source.key(i), [names[j] for j in source[i]['labels']])
    for i in range(len(source))
  ]


@pytest.mark.parametrize('name', TABLES)
def test_formats_agree(root, name):
  source = table.Source(path=write(root, TABLES[name], name))
  assert source.vocabulary.names == ("=> '$(x)'", 'cat', 'dog')
  assert source.vocabulary.counts.tolist() == [1, 1, 1]
  assert contents(source) == [
    ('b.jpg', ['cat', 'dog']),
    ('a b/ä.jpg', ["=> '$(x)'"]),
    ('c.jpg', []),
  ]
  assert source[1]['image'] == 'a b/ä.jpg'.encode()
  assert source.labels(0).dtype == np.int32 and len(source.labels(2)) == 0
  val = table.Source(path=write(root, TABLES[name], name), split='val')
  assert contents(val) == [('v.jpg', ['cat'])]
  assert val.vocabulary.names == source.vocabulary.names
  assert val.vocabulary.counts is None
  everything = table.Source(path=write(root, TABLES[name], name), split='all')
  assert len(everything) == 4
  for index in (-1, 3):
    with pytest.raises(IndexError):
      source[index]


def test_columns_separator_and_root(root):
  path = write(
    root / 'a b', 'id,file,wnid,part\n1,b.jpg,a;b,train\n2,c.jpg,c|d,test\n'
  )
  options = dict(
    path=path,
    root=str(root),
    image_column='file',
    labels_column='wnid',
    split_column='part',
  )
  source = table.Source(**options, label_separator=None)
  assert contents(source) == [('b.jpg', ['a;b'])]
  source = table.Source(**options, label_separator='|')
  assert source.vocabulary.names == ('a;b',)


def test_table_without_splits(root):
  text = 'path,labels\n' + ''.join(f'{i}.jpg,x{i % 2}\n' for i in range(400))
  path = write(root, text)
  for split in ('train', 'all'):
    assert len(table.Source(path=path, split=split, check_files=0)) == 400
  with pytest.raises(ValueError, match=r"'val': the table has no column 'spli"):
    table.Source(path=path, split='val', check_files=0)

  def keys(split):
    source = table.Source(
      path=path, split=split, holdout_percent=25, check_files=0
    )
    return {source.key(i) for i in range(len(source))}

  assert not keys('train') & keys('val')
  assert keys('train') | keys('val') == keys('all')
  assert 60 < len(keys('val')) < 140  # 100 expected, standard deviation 8.7
  with pytest.raises(ValueError, match='cannot be divided by holdout_percent'):
    table.Source(path=write(root, CSV), holdout_percent=25)


def test_rows_of_one_image(root):
  text = 'path,labels\nb.jpg,cat\nc.jpg,dog\nb.jpg,dog;cat\n'
  path = write(root, text)
  with pytest.raises(
    ValueError, match=r":4: image 'b\.jpg' is already at li.*2"
  ):
    table.Source(path=path)
  source = table.Source(path=path, merge_rows=True)
  assert contents(source) == [('b.jpg', ['cat', 'dog']), ('c.jpg', ['dog'])]
  assert source.vocabulary.counts.tolist() == [1, 2]


def test_vocabulary_and_hierarchy(root):
  path = write(root, CSV)
  labels = write(
    root,
    '{"name": "dog", "parents": ["pet"]}\n{"name": "pet"}\n'
    '{"name": "cat", "parents": ["pet"]}\n{"name": "=> \'$(x)\'"}\n',
    'labels.jsonl',
  )
  source = table.Source(path=path, vocabulary=labels)
  assert contents(source)[0] == ('b.jpg', ['dog', 'cat'])
  assert source.vocabulary.counts.tolist() == [1, 0, 1, 1]
  assert source.hierarchy.close(source.labels(0)).tolist() == [0, 1, 2]
  small = write(root, 'cat\ndog\n', 'small.txt')
  with pytest.raises(ValueError, match=r't\.csv:3: label "=> .*small\.txt'):
    table.Source(path=path, vocabulary=small)


def test_missing_files(root):
  path = write(root, 'path,labels\nb.jpg,x\nc.jpg,x\nnone.jpg,x\n')
  with pytest.raises(FileNotFoundError, match=r't\.csv:4: no image .*none\.jp'):
    table.Source(path=path)
  source = table.Source(path=path, check_files=2)
  assert source[1]['image'] == b'c.jpg'
  with pytest.raises(BadExample, match='No such file'):
    source[2]
  folder = table.Source(path=write(root, 'path,labels\na b,x\n'))
  with pytest.raises(BadExample, match='Is a directory'):
    folder[0]
  long = table.Source(
    path=write(root, f'path,labels\n{"x" * 5000},x\n'), check_files=0
  )
  with pytest.raises(BadExample, match='File name too long'):
    long[0]


def test_paths_stay_inside_the_root(root):
  inside = 'path,labels\na b/../b.jpg,x\n./c.jpg,x\nx..y.jpg,x\n'
  path = write(root, f'{inside}{root}/v.jpg,x\n', 'in.csv')
  source = table.Source(path=path, check_files=0)
  assert [source.key(i) for i in range(4)] == [
    'b.jpg',
    'c.jpg',
    'x..y.jpg',
    'v.jpg',
  ]
  for out in ('../x.jpg', 'a/../../x.jpg', '/etc/passwd', '..', f'{root}x/y'):
    path = write(root, f'path,labels\nb.jpg,x\n{out},x\n')
    with pytest.raises(ValueError, match=r't\.csv:3: the path .* leads out of'):
      table.Source(path=path, check_files=0)
  assert len(table.Source(path=path, root='/', check_files=0)) == 2


def test_shell_characters_are_literal(root):
  name = '$(touch pwned);rm -rf x & `id`.jpg'
  (root / name).write_bytes(b'here')
  source = table.Source(path=write(root, f'path,labels\n{name},x\n'))
  assert source[0]['image'] == b'here' and source.key(0) == name
  assert not os.path.exists('pwned')


HEAD = 'path,labels,split\n'
BAD = {
  'no rows': (HEAD, 'no rows'),
  'empty file': ('', ':1: no column .*columns: none'),
  'no image column': ('file,labels\nx,y\n', r":1: no column 'path'.*image_col"),
  'near column': ('path,label\nx,y\n', "'labels' .did you mean 'label'"),
  'column twice': ('path,labels,path\n', ":1: column 'path' occurs twice"),
  'fields': (f'{HEAD}b.jpg,x\n', ':2: 2 fields, but the header has 3'),
  'unknown split': (f'{HEAD}b.jpg,x,trian\n', r"did you mean 'trian'.*1 rows"),
  'empty split': (f'{HEAD}b.jpg,x,\n', ":2: the column 'split' is empty"),
  'empty path': (f'{HEAD},x,train\n', ":2: not a path: ''"),
  'NUL': (f'{HEAD}b\0.jpg,x,train\n', ':2: '),
  'open quote': (f'{HEAD}"b.jpg,x,train\n', ':2: unexpected end of data'),
  'control character': (f'{HEAD}b.jpg,x\x07y,train\n', ":2: character '.x07'"),
  'not UTF-8': (HEAD.encode() + b'\xff.jpg,x,train\n', ':2: not UTF-8'),
  'no labels at all': (f'{HEAD}b.jpg,,train\n', 'no train row has a label'),
}
JSON_BAD = {
  'not JSON': ('{"path": "b.jpg"', ':1: not JSON'),
  'no object': ('[]', ':1: not a JSON object'),
  'no labels': ('{"path": "b.jpg"}', ":1: no 'labels'"),
  'path is a number': ('{"path": 3, "labels": []}', ':1: path is no string'),
  'label is a float': (
    '{"path": "b.jpg", "labels": [1.5]}',
    r':1: a label must be a string or a whole number, got 1\.5',
  ),
  'label is null': ('{"path": "b.jpg", "labels": null}', ':1: a label must'),
  'label is true': ('{"path": "b.jpg", "labels": true}', ':1: a label must'),
  'NaN': ('{"path": "b.jpg", "labels": [NaN]}', ':1: NaN'),
  'surrogate label': (
    '{"path": "b.jpg", "labels": ["\\ud800"]}',
    r":1: character '\\ud800'",
  ),
  'surrogate path': (
    '{"path": "\\ud800", "labels": ["a"]}',
    r":1: not a path: '\\ud800'",
  ),
  'split in some rows': (
    '{"path": "b.jpg", "labels": "x"}\n'
    '{"path": "c.jpg", "labels": "x", "split": "val"}',
    ":2: 'split' .* must be in every row or in none",
  ),
  'split is no name': (
    '{"path": "b.jpg", "labels": "x", "split": 3}',
    ':1: split is no name: 3',
  ),
}


@pytest.mark.parametrize('case', [*BAD, *JSON_BAD])
def test_malformed_tables(root, case):
  text, message = BAD.get(case) or JSON_BAD[case]
  path = write(root, text, 't.csv' if case in BAD else 't.jsonl')
  with pytest.raises(ValueError, match=message) as raised:
    table.Source(path=path)
  assert str(raised.value).startswith(path)


def test_label_only_in_validation(root):
  path = write(root, f'{HEAD}b.jpg,cat,train\nc.jpg,cat,val\nv.jpg,cab,val\n')
  assert len(table.Source(path=path)) == 1
  with pytest.raises(
    ValueError, match=r":4: label 'cab' is in no train.*'cat'"
  ):
    table.Source(path=path, split='val')


@pytest.mark.parametrize(
  'options, message',
  [
    ({'path': '/none.csv'}, r'/none\.csv: no such file'),
    ({'path': 't.xlsx', 'root': '.'}, r"'\.xlsx'; valid suffixes: \.csv, \.ts"),
    ({'root': '/none'}, "root='/none': no such folder"),
    ({'split': 'vla'}, r"'vla' \(did you mean 'val'\?\); there are: train \(3"),
    ({'split_column': 'fold'}, r":1: no column 'fold' \(option split_column"),
    ({'label_separator': ''}, "label_separator='' must be str, not empty or"),
    ({'merge_rows': 1}, 'merge_rows=1 must be bool'),
    ({'check_files': -1}, 'check_files=-1 must be int of at least 0'),
    ({'check_files': True}, 'check_files=True must be int'),
    (
      {'holdout_percent': 100},
      r'holdout_percent=100 must be float in \(0, 100\)',
    ),
  ],
)
def test_bad_options(root, options, message):
  with pytest.raises((ValueError, FileNotFoundError), match=message):
    pipeline.open_source({'type': 'table', 'path': write(root, CSV), **options})


def test_fingerprint_of_files_that_are_missing_or_replaced(root):
  """A table does not look whether they are there; their states are seen."""

  def found(seen):
    options = dict(path=write(root, CSV), check_files=0)
    return table.Source(**options, fingerprint=seen).fingerprint()

  before = {seen: found(seen) for seen in ('names', 'sizes', 'contents')}
  image = root / 'b.jpg'
  image.write_bytes(image.read_bytes()[:-1] + b'!')
  assert found('sizes') == before['sizes']
  assert found('contents') != before['contents']
  image.unlink()
  assert found('sizes') != before['sizes']
  assert found('names') == before['names']


def test_fingerprint_and_pickle(root):
  source = table.Source(path=write(root, CSV))
  again = table.Source(path=write(root, CSV, 'other.csv'))
  assert source.fingerprint() == again.fingerprint()
  relabelled = table.Source(
    path=write(root, CSV.replace('b.jpg,dog', 'b.jpg,'))
  )
  assert relabelled.fingerprint() != source.fingerprint()
  more = table.Source(
    path=write(root, CSV + 'v2.jpg,cat,train\n'), check_files=3
  )
  assert more.fingerprint() != source.fingerprint()
  copy = pickle.loads(pickle.dumps(source))  # noqa: S301
  assert contents(copy) == contents(source)


def test_option_names():
  plugins.check_kwargs('input.source', table.Source, {'path': 'x'})
  with pytest.raises(ValueError, match=r"missing option 'path'"):
    plugins.check_kwargs('input.source', table.Source, {})
