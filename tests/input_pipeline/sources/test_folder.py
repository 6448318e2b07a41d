"""Folder source: layouts, order, labels, and every mistake with its path."""

import os
import pathlib
import pickle

import numpy as np
import pytest

from big_vision_like.config import plugins
from input_pipeline import pipeline
from input_pipeline.examples.errors import BadExample
from input_pipeline.files import image_files, retries
from input_pipeline.sources import folder
from tests.input_pipeline.files import flaky_files

SPLITS = {
  'train/cat/b.jpg': b'1',
  'train/cat/a.JPEG': b'2',
  'train/cat/deep/er/c.png': b'3',
  'train/dog & $x;rm/ä 1.webp': b'4',
  'train/dog & $x;rm/notes.txt': b'-',
  'train/cat/.hidden.jpg': b'-',
  'train/.git/x.jpg': b'-',
  'val/cat/a.jpg': b'5',
}


def make(root, files):
  for name, data in files.items():
    path = pathlib.Path(root, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
  return str(root)


def test_split_folders(tmp_path):
  source = folder.Source(path=make(tmp_path, SPLITS))
  assert source.vocabulary.names == ('cat', 'dog & $x;rm')
  assert source.vocabulary.counts.tolist() == [3, 1]
  assert source.hierarchy is None
  assert [source.key(i) for i in range(len(source))] == [
    'cat/a.JPEG',
    'cat/b.jpg',
    'cat/deep/er/c.png',
    'dog & $x;rm/ä 1.webp',
  ]
  examples = [source[i] for i in range(4)]
  assert [e['image'] for e in examples] == [b'2', b'1', b'3', b'4']
  assert [e['labels'].tolist() for e in examples] == [[0], [0], [0], [1]]
  assert all(e['labels'].dtype == np.int32 for e in examples)
  assert source.labels(3).tolist() == [1]
  for index in (-1, 4):
    for call in (source.__getitem__, source.labels, source.key):
      with pytest.raises(IndexError):
        call(index)


def test_validation_uses_the_classes_of_training(tmp_path):
  source = folder.Source(path=make(tmp_path, SPLITS), split='val')
  assert source.vocabulary.names == ('cat', 'dog & $x;rm')
  assert source.vocabulary.counts is None
  assert len(source) == 1 and source[0]['image'] == b'5'


def test_holdout_is_a_function_of_each_path(tmp_path):
  names = [f'{c}/{i:03d}.jpg' for c in ('cat', 'dog') for i in range(200)]
  path = make(tmp_path, {name: b'x' for name in names})

  def keys(split, **options):
    source = folder.Source(path=path, split=split, **options)
    return {source.key(i) for i in range(len(source))}

  train, val = (keys(s, holdout_percent=25) for s in ('train', 'val'))
  assert not train & val and train | val == set(names)
  assert 60 < len(val) < 140  # 100 expected, standard deviation 8.7
  assert keys('all', holdout_percent=25) == keys('all') == set(names)
  for name in sorted(names)[::2]:
    os.remove(tmp_path / name)
  assert keys('val', holdout_percent=25) == val & set(sorted(names)[1::2])
  assert keys('val', holdout_percent=10) < val


def test_vocabulary_and_hierarchy_files(tmp_path):
  path = make(tmp_path / 'data', SPLITS)
  (tmp_path / 'labels.txt').write_text('animal\ndog & $x;rm\ncat\n')
  (tmp_path / 'is_a.tsv').write_text('cat\tanimal\ndog & $x;rm\tanimal\n')
  source = folder.Source(
    path=path,
    vocabulary=str(tmp_path / 'labels.txt'),
    hierarchy=str(tmp_path / 'is_a.tsv'),
  )
  assert source.vocabulary.counts.tolist() == [0, 1, 3]
  assert source[0]['labels'].tolist() == [2]
  assert source.hierarchy.close(source.labels(0)).tolist() == [0, 2]
  with pytest.raises(ValueError, match=r"is_a\.tsv:1: parent 'animal'"):
    folder.Source(path=path, hierarchy=str(tmp_path / 'is_a.tsv'))
  added = folder.Source(
    path=path,
    hierarchy=str(tmp_path / 'is_a.tsv'),
    hierarchy_unlisted='add',
  )
  assert added.vocabulary.names == ('cat', 'dog & $x;rm', 'animal')
  assert added.vocabulary.counts.tolist() == [3, 1, 0]
  with pytest.raises(ValueError, match='allowed: 1'):
    (tmp_path / 'deep.tsv').write_text('cat\tanimal\nanimal\tthing\n')
    folder.Source(
      path=path,
      hierarchy=str(tmp_path / 'deep.tsv'),
      hierarchy_unlisted='add',
      hierarchy_max_depth=1,
    )


@pytest.mark.parametrize('type_', ['folder', 'detect'])
def test_fingerprint_of_files_that_are_replaced(type_, tmp_path):
  """By names nothing is seen, by sizes another size, by contents any byte."""
  file = tmp_path / 'train' / 'a' / '1.jpg'
  (tmp_path / 'train' / 'b').mkdir(parents=True)
  file.parent.mkdir()
  (tmp_path / 'train' / 'b' / '2.jpg').write_bytes(b'other')

  def found(data):
    file.write_bytes(data)
    options = dict(type=type_, path=str(tmp_path))
    return [
      pipeline.open_source(dict(options, fingerprint=seen)).fingerprint()
      for seen in ('names', 'sizes', 'contents')
    ]

  first, same_size, longer = (found(x) for x in (b'abc', b'abd', b'abcd'))
  assert found(b'abc') == first
  assert len({*first}) == 3
  differ = lambda a, b: [x != y for x, y in zip(a, b)]
  assert differ(first, same_size) == [False, False, True]
  assert differ(first, longer) == [False, True, True]


def test_fingerprint_of_contents_on_storage_that_fails(tmp_path, monkeypatch):
  """What is read at the second attempt is the same file."""
  path = make(tmp_path, SPLITS)
  found = lambda: folder.Source(path=path, fingerprint='contents').fingerprint()
  before = found()
  with monkeypatch.context() as patch:
    flaky_files.install(patch, 30)
    patch.setattr(retries, '_policy', retries.Policy(retries=20, wait_s=0))
    assert found() == before
  with monkeypatch.context() as patch:
    flaky_files.install(patch, 100)
    patch.setattr(retries, '_policy', retries.Policy(retries=1, wait_s=0))
    with pytest.raises(retries.StorageError):
      found()


def test_fingerprint_sees_records_and_labels(tmp_path):
  path = make(tmp_path, SPLITS)
  before = folder.Source(path=path).fingerprint()
  assert folder.Source(path=path).fingerprint() == before
  make(tmp_path, {'train/cat/new.jpg': b'6'})
  after = folder.Source(path=path).fingerprint()
  assert after != before
  os.rename(tmp_path / 'train/cat', tmp_path / 'train/cow')
  renamed = folder.Source(path=path).fingerprint()
  assert renamed not in (before, after)


def test_pickles_to_the_same_source(tmp_path):
  source = folder.Source(path=make(tmp_path, SPLITS))
  copy = pickle.loads(pickle.dumps(source))  # noqa: S301
  assert copy[3]['image'] == b'4' and copy.fingerprint() == source.fingerprint()


def test_records_that_cannot_be_read(tmp_path, monkeypatch):
  source = folder.Source(path=make(tmp_path, SPLITS))
  os.remove(tmp_path / 'train/cat/a.JPEG')
  with pytest.raises(BadExample, match='cannot be opened: No such file'):
    source[0]
  monkeypatch.setattr(image_files, 'MAX_IMAGE_BYTES', 0)
  with pytest.raises(BadExample, match='larger than 0 bytes'):
    source[1]

  def fail(*_):
    raise OSError(5, 'Input/output error')

  monkeypatch.setattr('io.FileIO', fail)
  monkeypatch.setattr('time.sleep', lambda seconds: None)
  with pytest.raises(OSError, match='Input/output'):
    image_files.read_image(b'x')


@pytest.mark.parametrize(
  'files, options, message',
  [
    (SPLITS, {'split': 'test'}, "unknown split 'test'; sub-folders there: tra"),
    (SPLITS, {'split': 'all'}, 'its sub-folders are splits'),
    (SPLITS, {'holdout_percent': 10}, 'its sub-folders are splits'),
    ({'cat/a.jpg': b''}, {}, 'there: cat. If these are classes, use split="al'),
    ({'cat/a.jpg': b''}, {'holdout_percent': 0}, r'float in \(0, 100\)'),
    (
      {'cat/a.jpg': b''},
      {'holdout_percent': True},
      'percent=True must be float',
    ),
    (
      {'cat/a.jpg': b''},
      {'holdout_percent': 5, 'split': 'test'},
      'valid with holdout_percent: train, val, all',
    ),
    ({'test/a/1.jpg': b''}, {'split': 'test'}, 'no sub-folder "train"'),
    ({'train/a.jpg': b''}, {}, r'a\.jpg: an image outside of any class folder'),
    ({}, {}, r"unknown split 'train'; sub-folders there: none"),
    (
      {'train/cat/a.npy': b'', 'train/cat/b.npy': b''},
      {},
      r'no images in its 1 class folders; other files there: 2 x \.npy; image',
    ),
    (
      SPLITS | {'val/cats/a.jpg': b''},
      {'split': 'val'},
      r"val/cats: folder 'cats' is not among the 2 classes .*near: 'cat'",
    ),
    (SPLITS, {'vocabulary': '/none.txt'}, r'/none\.txt: no such file'),
    (SPLITS, {'hierarchy': '/none.tsv'}, r'/none\.tsv: no such file'),
    (
      SPLITS,
      {'hierarchy_unlisted': 'x'},
      "unlisted='x'; valid: error, traverse, add",
    ),
    (SPLITS, {'path': ''}, "path must be a path, got ''"),
    (SPLITS, {'path': 'a\0b'}, 'without NUL'),
    (SPLITS, {'path': '/no/such/folder'}, "'/no/such/folder': no such folder"),
  ],
)
def test_mistakes(tmp_path, files, options, message):
  path = make(tmp_path, files)
  with pytest.raises((ValueError, FileNotFoundError), match=message):
    pipeline.open_source({'type': 'folder', 'path': path, **options})


def test_links(tmp_path):
  make(tmp_path / 'elsewhere', {'x/1.jpg': b'1'})
  path = make(tmp_path / 'data', {'train/cat/0.jpg': b'0'})
  os.symlink(tmp_path / 'elsewhere', tmp_path / 'data/train/dog')
  source = folder.Source(path=path)
  assert source.key(1) == 'dog/x/1.jpg' and source[1]['image'] == b'1'
  os.symlink(tmp_path / 'data/train/cat', tmp_path / 'data/train/cat/loop')
  with pytest.raises(ValueError, match='a link back to a folder above it'):
    folder.Source(path=path)


def test_option_names():
  plugins.check_kwargs('input.source', folder.Source, {'path': 'x'})
  with pytest.raises(ValueError, match=r"unknown option 'pth'.*'path'"):
    plugins.check_kwargs('input.source', folder.Source, {'pth': 'x'})
  assert 'folder' in plugins.names('source')
