"""webdataset source on shards made here."""

import json
import pathlib
import pickle

import numpy as np
import pytest
import simplejpeg

from input_pipeline import pipeline
from input_pipeline.examples.errors import BadExample
from input_pipeline.files import shard_names
from input_pipeline.sources import detect, records
from input_pipeline.sources.webdataset import Source
from tests.input_pipeline.files.archives_made import tar_bytes
from tools import prepare_images

NAMES = ('cat', 'dog', 'bird')


def jpeg(i: int) -> bytes:
  return simplejpeg.encode_jpeg(np.full((8, 8, 3), i, np.uint8))


def shard(numbers, label=lambda i: {'cls': b'%d' % (i % 3)}) -> bytes:
  content = {}
  for i in numbers:
    content[f'sub.dir/s{i:03}.jpg'] = jpeg(i)
    for suffix, data in label(i).items():
      content[f'sub.dir/s{i:03}.{suffix}'] = data
  return tar_bytes(content)


def write(folder: pathlib.Path, content) -> pathlib.Path:
  for name, data in content.items():
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
  return folder


def by_number(source) -> dict[int, list[str]]:
  """Label names of each image, by the grey value that identifies it."""
  found = {}
  for i in range(len(source)):
    example = source[i]
    assert example['key'] == source.key(i)
    np.testing.assert_array_equal(source.labels(i), example['labels'])
    assert example['labels'].dtype == np.int32
    number = int(simplejpeg.decode_jpeg(example['image'])[0, 0, 0])
    assert example['key'].endswith(f'.tar/sub.dir/s{number:03}')
    found[number] = [source.vocabulary.names[j] for j in example['labels']]
  assert len(found) == len(source)
  return found


@pytest.fixture
def folder(tmp_path):
  """Three shards of train, one of val, named as is the custom."""
  return write(
    tmp_path / 'my shards',
    {
      'pets-train-000000.tar': shard(range(10)),
      'pets-train-000001.tar': shard(range(10, 20)),
      'pets-train-000002.tar': shard(range(20, 30)),
      'pets-val-000000.tar': shard(range(30, 35)),
      'readme.txt': b'pets',
    },
  )


def expected(numbers) -> dict[int, list[str]]:
  return {i: [str(i % 3)] for i in numbers}


def test_splits_by_name_by_folder_and_by_pattern(folder, tmp_path):
  train = Source(path=str(folder))
  assert by_number(train) == expected(range(30))
  assert train.vocabulary.names == ('0', '1', '2')
  assert train.vocabulary.counts.tolist() == [10, 10, 10]
  val = Source(path=str(folder), split='val')
  assert by_number(val) == expected(range(30, 35))
  assert val.vocabulary.names == ('0', '1', '2')
  assert len(Source(path=str(folder), split='all')) == 35
  content = {
    'train/0.tar': shard(range(7)), 'train/1.tar': shard(range(7, 9)),
    'val/0.tar': shard(range(9, 12)),
  }  # fmt: skip
  below = str(write(tmp_path / 'below', content))
  assert by_number(Source(path=below)) == expected(range(9))
  assert by_number(Source(path=below, split='val')) == expected(range(9, 12))
  for pattern, split, numbers in (
    ('pets-{split}-{000000..000002}.tar', 'train', range(30)),
    ('pets-{split}-*.tar', 'val', range(30, 35)),
    ('pets-train-00000[01].tar', 'all', range(20)),
    ('pets-{train-000002,val-000000}.tar', 'all', range(20, 35)),
  ):
    source = Source(path=str(folder / pattern), split=split)
    assert by_number(source) == expected(numbers), pattern
  one = Source(path=str(folder / 'pets-train-000001.tar'), split='all')
  assert by_number(one) == expected(range(10, 20))


def test_labels_as_text_and_as_json(tmp_path):
  def names(i):
    return [NAMES[(i + j) % 3] for j in range(i % 3)]

  forms = {
    'cls': lambda i: NAMES[i % 3].encode(),
    'txt': lambda i: ' ; '.join(names(i)).encode() + b'\n',
    'json': lambda i: json.dumps({'tags': names(i), 'id': i % 3}).encode(),
  }
  data = shard(range(12), lambda i: {k: f(i) for k, f in forms.items()})
  options = dict(path=str(write(tmp_path, {'a.tar': data})), split='all')
  source = Source(**options)
  assert source.vocabulary.names == ('bird', 'cat', 'dog')
  assert by_number(source) == {i: [NAMES[i % 3]] for i in range(12)}
  several = {i: sorted(names(i)) for i in range(12)}
  source = Source(**options, label_suffix='txt', label_separator=';')
  assert by_number(source) == several
  source = Source(**options, label_suffix='json', label_key='tags')
  assert by_number(source) == several
  vocabulary = tmp_path / 'labels.txt'
  vocabulary.write_text('dog\ncat\nbird\n')
  source = Source(
    **options, label_suffix='json', label_key='id', vocabulary=str(vocabulary)
  )
  words = ['dog', 'cat', 'bird']  # a number is a position
  assert by_number(source) == {i: [words[i % 3]] for i in range(12)}
  source = Source(**options, vocabulary=str(vocabulary))
  assert by_number(source) == {i: [NAMES[i % 3]] for i in range(12)}
  assert source.labels(0).tolist() == [1]


def test_numbers_keep_their_order(tmp_path):
  """'10' is behind '2', and a class without images has its place."""
  data = shard(range(4), lambda i: {'cls': b'%d' % [0, 10, 2, 11][i]})
  source = Source(path=str(write(tmp_path, {'a.tar': data})), split='all')
  assert source.vocabulary.names == tuple(map(str, range(12)))
  assert [source.labels(i).tolist() for i in range(4)] == [[0], [10], [2], [11]]


def test_holdout(folder, tmp_path):
  for path in folder.glob('*-val-*'):
    path.unlink()
  plain = write(tmp_path / 'plain', {'0.tar': shard(range(60))})
  parts = [
    by_number(Source(path=str(plain), split=split, holdout_percent=30))
    for split in ('train', 'val')
  ]
  assert parts[0] | parts[1] == expected(range(60))
  assert not parts[0].keys() & parts[1].keys() and 8 < len(parts[1]) < 30
  more = write(tmp_path / 'more', {'0.tar': shard(range(80))})
  source = Source(path=str(more), split='val', holdout_percent=30)
  assert parts[1].keys() <= by_number(source).keys()  # nothing changes sides
  with pytest.raises(ValueError, match='has splits of its own'):
    Source(path=str(folder), holdout_percent=30)


def test_bad_samples_keep_their_place(tmp_path):
  content = {
    'a.jpg': jpeg(1), 'a.cls': b'cat',
    'b.jpg': jpeg(2),  # no label
    'c.cls': b'cat',  # no image
    'd.jpg': jpeg(4), 'd.cls': b'\xff',
    'e.jpg': jpeg(5), 'e.png': jpeg(5), 'e.cls': b'cat',
    'f.jpg': jpeg(6), 'f.cls': b'a\nb',
    'g.jpg': jpeg(7), 'g.cls': b'  ',  # an image on which no label applies
    'h.jpg': jpeg(8), 'h.cls': b'dog', '._h.jpg': b'hidden', 'h.seg.png': b'x',
    'i.jpg': jpeg(9), 'i.cls': b'-1', 'j.jpg': jpeg(9), 'j.cls': b'9' * 5000,
  }  # fmt: skip
  path = write(tmp_path, {'x.tar': tar_bytes(content)})
  source = Source(path=str(path), split='all')
  reasons = {}
  for i in range(len(source)):
    try:
      assert source[i]['labels'].tolist() == source.labels(i).tolist()
    except BadExample as error:
      reasons[source.key(i)] = error.reason
      assert source.labels(i).tolist() == []
  assert len(source) == 10 and list(reasons) == [
    f'x.tar/{name}' for name in 'bcdefij'
  ]
  for name, reason in (
    ('b', 'labels: no cls'), ('c', 'no image'), ('d', 'utf-8'),
    ('e', 'several images'), ('f', 'is not allowed in the name'),
    ('i', '-1 is no label'), ('j', 'is no label: 5,000 digits'),
  ):  # fmt: skip
    assert reason in reasons[f'x.tar/{name}']
  assert source.vocabulary.names == ('cat', 'dog')
  chosen = Source(path=str(path), split='all', image_suffix='seg.png')
  assert [chosen.key(i) for i in range(10) if i not in chosen._bad] == [
    'x.tar/h'
  ]


def test_bad_json(tmp_path):
  labels = [b'{"label": "a"}', b'{', b'[]', b'{"l": 1}', b'{"label": null}']
  labels += [b'{"label": [1.5]}', b'{"label": NaN}', b'{"label": [1, "a"]}']
  data = shard(range(len(labels)), lambda i: {'json': labels[i]})
  path = write(tmp_path, {'x.tar': data})
  source = Source(path=str(path), split='all', label_suffix='json')
  assert sorted(source._bad) == [1, 2, 3, 4, 5, 6]
  assert by_number_of_good(source) == {0: ['a'], 7: ['1', 'a']}
  assert "no key 'label' (label_key); there: l" in source._bad[3]


def by_number_of_good(source):
  return {
    i: [source.vocabulary.names[j] for j in source.labels(i)]
    for i in range(len(source))
    if i not in source._bad
  }


def test_pickle_and_fingerprint(folder):
  source = Source(path=str(folder))
  copy = pickle.loads(pickle.dumps(source))  # noqa: S301
  assert by_number(copy) == by_number(source)
  assert copy.fingerprint() == source.fingerprint()
  others = [
    Source(path=str(folder), split='val'),
    Source(path=str(folder), split='all'),
  ]
  write(folder, {'pets-train-000002.tar': shard(range(20, 31))})
  others.append(Source(path=str(folder)))
  prints = [s.fingerprint() for s in [source, *others]]
  assert len(set(prints)) == 4


def test_hierarchy_and_training_batches(folder, tmp_path):
  """Through the pipeline as a run would read it."""
  tree = tmp_path / 'is_a.tsv'
  tree.write_text('0\tpet\n1\tpet\n')
  spec = dict(
    type='detect', path=str(folder), hierarchy=str(tree),
    hierarchy_unlisted='add',
  )  # fmt: skip
  source = pipeline.open_source(spec)
  assert source.vocabulary.names == ('0', '1', '2', 'pet')
  ops = [
    dict(op='decode'),
    dict(op='labels', max_labels=3, fill_in=True),
  ]
  (op, labels) = pipeline.build_ops(ops, source)
  rng = np.random.default_rng(0)
  example = labels(op(source[4], rng), rng)
  assert example['label_ids'].tolist() == [1, 3, -1]
  assert example['image'].shape == (8, 8, 3)


def test_detect(folder, tmp_path):
  pattern = str(folder / 'pets-{split}-*.tar')
  for path, kind in (
    (folder, 'webdataset'),
    (folder / 'pets-val-000000.tar', 'webdataset'),
    (pattern, 'webdataset'),
  ):
    assert detect.kind_of(str(path)) == kind
  source = detect.Source(path=pattern, split='val')
  assert by_number(source) == expected(range(30, 35))
  below = write(tmp_path / 'below', {'train/0.tar': shard(range(3))})
  assert detect.kind_of(str(below)) == 'webdataset'
  images = write(tmp_path / 'images', {'train/cat/1.jpg': jpeg(1)})
  assert detect.kind_of(str(images)) == 'folder'
  with pytest.raises(FileNotFoundError, match=r'none-\*\.jpg'):
    detect.kind_of(str(tmp_path / 'none-*.jpg'))


@pytest.mark.parametrize(
  'pattern, names',
  [
    ('a.tar', ['a.tar']),
    ('{08..11}', ['08', '09', '10', '11']),
    ('{8..11}', ['8', '9', '10', '11']),
    ('{0..2}', ['0', '1', '2']),
    ('x{a,b}-{0..1}', ['xa-0', 'xa-1', 'xb-0', 'xb-1']),
  ],
)
def test_braces(pattern, names):
  assert shard_names.expand(pattern) == names


@pytest.mark.parametrize(
  'options, message',
  [
    ({'path': 'none'}, 'none: no such file or folder'),
    ({'split': 'test'}, "no shards of split 'test': neither test/\\*.tar nor"),
    ({'split': '../x'}, r"split must be a name, got '\.\./x'"),
    ({'path': 'pets-train-000000.tar'}, r'without splits: use split="all"'),
    ({'path': 'pets-train-*.tar'}, r'write \{split\} into the pattern'),
    ({'path': 'pets-{split}-*.tar', 'split': 'all'}, 'names its splits'),
    (
      {'path': 'pets-{split}-{000001..000004}.tar'},
      r'2 of its shards are missing\n  .*pets-train-000003\.tar',
    ),
    ({'path': 'no-*.tar', 'split': 'all'}, r'no-\*\.tar: all of its shards'),
    ({'path': 'readme.tx?', 'split': 'all'}, r'readme\.txt is no \.tar'),
    ({'path': 'p-{2..1}.tar', 'split': 'all'}, r'\{2\.\.1\} is no range'),
    ({'path': 'p-{x}.tar', 'split': 'all'}, r'\{x\} is neither \{split\}'),
    (
      {'path': 'p-{0..99999}-{0..9}.tar', 'split': 'all'},
      'more than 100,000 shards',
    ),
    ({'label_suffix': 'npy'}, "label_suffix='npy': must be, or end in, one of"),
    ({'label_suffix': 'txt'}, 'no usable sample .*: labels: no txt; parts of'),
    ({'image_suffix': 'webp'}, 'no usable sample in these shards: no webp'),
    (
      {'label_separator': '::'},
      r"label_separator='::'; valid: ',', ';', '\\n'",
    ),
    ({'label_key': ''}, "label_key='' must be str, not empty"),
    ({'holdout_percent': 0}, r'holdout_percent=0 must be float in \(0, 100\)'),
    (
      {'vocabulary': 'two.txt'},
      r"label '2' of pets-train-000000\.tar/.*s002 is",
    ),
    ({'vocabulary': 'none.txt'}, r'none\.txt: no such file'),
    ({'hierarchy': 'none.tsv'}, r'none\.tsv: no such file'),
  ],
)
def test_mistakes(folder, monkeypatch, options, message):
  monkeypatch.chdir(folder)
  write(folder, {'two.txt': b'zero\none\n'})
  with pytest.raises((ValueError, FileNotFoundError), match=message):
    pipeline.open_source({'type': 'webdataset', 'path': '.', **options})


def test_labels_of_val_come_from_train(tmp_path):
  path = write(tmp_path, {'x-val-0.tar': shard(range(3))})
  with pytest.raises(ValueError, match='unless the option vocabulary gives'):
    Source(path=str(path), split='val')
  write(tmp_path, {'x-train-0.tar': shard(range(2))})
  with pytest.raises(
    ValueError, match=r"label '2' of x-val-0.*the split train"
  ):
    Source(path=str(path), split='val')


def test_numbers_without_a_vocabulary_have_a_bound(tmp_path):
  data = shard(range(2), lambda i: {'cls': b'%d' % (10**6 * i)})
  path = write(tmp_path, {'x.tar': data})
  with pytest.raises(ValueError, match='numbers up to 1,000,000, of which 2'):
    Source(path=str(path), split='all')


def test_prepared_as_records(folder, tmp_path, capsys):
  """Through the generic command, which finds out what lies there."""
  write(folder, {'pets-val-000001.tar': shard([40], lambda i: {})})
  argv = ['--input', folder, '--output', tmp_path / 'out', '--workers', 1]
  argv += ['--max_bad_fraction', 0.5]
  assert prepare_images.main(list(map(str, argv))) == 0
  text = capsys.readouterr().out
  assert 'train: 30 images' in text and 'val: 5 images, 5 labels' in text
  (bad,) = (tmp_path / 'out' / 'bad_images.jsonl').read_text().splitlines()
  assert json.loads(bad)['key'] == 'pets-val-000001.tar/sub.dir/s040'
  for split, numbers in (('train', range(30)), ('val', range(30, 35))):
    source = records.Source(path=str(tmp_path / 'out'), split=split)
    found = {}
    for example in map(source.__getitem__, range(len(source))):
      number = int(simplejpeg.decode_jpeg(example['image'])[0, 0, 0])
      found[number] = [source.vocabulary.names[j] for j in example['labels']]
    assert found == expected(numbers)
