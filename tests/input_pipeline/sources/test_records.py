"""The records source over a data set written shard by shard."""

import os
import pickle

import numpy as np
import pytest

from big_vision_like.config import plugins
from evaluators.harness import exclusions
from input_pipeline.examples.errors import BadExample
from input_pipeline.labels.vocabulary import Vocabulary
from input_pipeline.prepared import manifest as manifests
from input_pipeline.prepared import records
from input_pipeline.sources.records import Source

NAMES = ('food', 'fruit', 'apple', 'plant', 'car')
EDGES = 'fruit\tfood\napple\tfruit\napple\tplant\n'
SHARDS = {'train': (3, 0, 5, 1), 'val': (2,)}


def record(split: str, i: int) -> records.Record:
  conf = np.float32([0.5]) if split == 'val' else None
  return records.Record(
    f'{split}/{i}.jpg', b'image %d of ' % i + split.encode(), [i % 5], conf
  )


def make(folder, hierarchy: str | None = EDGES) -> str:
  splits = {}
  for split, sizes in SHARDS.items():
    shards, first = [], 0
    for i, size in enumerate(sizes):
      name = manifests.shard_name(split, i, len(sizes))
      rows = [record(split, first + k) for k in range(size)]
      records.write_shard(os.path.join(folder, name), rows)
      shards.append(manifests.describe(str(folder), name, size))
      first += size
    splits[split] = tuple(shards)
  Vocabulary(names=NAMES).save(os.path.join(folder, 'vocabulary.jsonl'))
  if hierarchy is not None:
    with open(os.path.join(folder, 'hierarchy.tsv'), 'w') as file:
      file.write(hierarchy)
  manifests.Manifest(
    splits,
    {split: sum(sizes) for split, sizes in SHARDS.items()},
    {},
    hierarchy=None if hierarchy is None else 'hierarchy.tsv',
  ).save(str(folder))
  return str(folder)


def test_reads_every_record_across_shards(tmp_path):
  path = make(tmp_path)
  source = Source(path=path)
  assert len(source) == 9
  copy = pickle.loads(pickle.dumps(source))  # noqa: S301
  for reader in (source, copy):
    for i in range(9):
      example, expected = reader[i], record('train', i)
      assert example['image'] == expected.image
      assert example['key'] == expected.key
      assert example['labels'].dtype == np.int32
      assert example['labels'].tolist() == expected.labels
      assert reader.labels(i).tolist() == expected.labels
      assert 'label_conf' not in example
  assert source.key(2) == 'train-00000-of-00004.array_record:2'
  assert source.key(3) == 'train-00002-of-00004.array_record:0'
  assert source.key(np.int64(8)) == 'train-00003-of-00004.array_record:0'
  for index in (-1, 9):
    with pytest.raises(IndexError, match=f'record {index} of 9'):
      source[index]
  assert Source(path=path, split='val')[1]['label_conf'].tolist() == [0.5]


def test_vocabulary_and_hierarchy(tmp_path):
  source = Source(path=make(tmp_path))
  assert source.vocabulary.names == NAMES
  assert source.hierarchy.close(np.int32([2])).tolist() == [0, 1, 2, 3]
  other = tmp_path / 'other.tsv'
  other.write_text('car\tfood\n')
  replaced = Source(path=str(tmp_path), hierarchy=str(other))
  assert replaced.hierarchy.close(np.int32([4])).tolist() == [0, 4]
  (tmp_path / 'flat').mkdir()
  assert Source(path=make(tmp_path / 'flat', None)).hierarchy is None


def test_fingerprint_follows_the_data(tmp_path):
  path = make(tmp_path)
  first = Source(path=path).fingerprint()
  assert first == Source(path=path).fingerprint()
  assert first != Source(path=path, split='val').fingerprint()
  (tmp_path / 'hierarchy.tsv').write_text('fruit\tfood\n')
  assert Source(path=path).fingerprint() != first
  (tmp_path / 'hierarchy.tsv').write_text(EDGES)
  assert Source(path=path).fingerprint() == first
  Vocabulary(names=('a', *NAMES[1:])).save(tmp_path / 'v.jsonl')
  with pytest.raises(ValueError, match='food'):  # not in the new vocabulary
    Source(path=path, vocabulary=str(tmp_path / 'v.jsonl'))


def test_a_corrupt_record_is_a_bad_example_and_its_neighbours_are_not(tmp_path):
  path = make(tmp_path)
  shard = tmp_path / 'train-00002-of-00004.array_record'
  data = bytearray(shard.read_bytes())
  data[data.find(b'image 5')] ^= 1
  shard.write_bytes(data)
  os.utime(shard)
  head = manifests.describe(path, shard.name, 5)  # a change after the head
  manifest = manifests.load(path)
  train = list(manifest.splits['train'])
  train[2] = head
  manifests.Manifest(
    {'train': tuple(train)}, {'train': 9}, {}, hierarchy='hierarchy.tsv'
  ).save(path)
  source = Source(path=path)
  for i in range(9):
    if i == 5:
      with pytest.raises(BadExample, match=r'corrupt record: .* hash mismatch'):
        source[i]
    else:
      assert source[i]['key'] == f'train/{i}.jpg'


def test_records_of_another_format_are_bad_examples(tmp_path, monkeypatch):
  path = make(tmp_path)
  source = Source(path=path)
  monkeypatch.setattr(source._reader, 'read', lambda *_: b'\x01')
  with pytest.raises(BadExample, match='corrupt record: not a record'):
    source[0]


def test_lost_storage_is_an_os_error_not_a_bad_example(tmp_path):
  source = Source(path=make(tmp_path))
  os.unlink(tmp_path / 'train-00000-of-00004.array_record')
  with pytest.raises(OSError, match='No such file'):
    source[0]
  assert source[4]['key'] == 'train/4.jpg'


@pytest.mark.parametrize('name', ['a b', 'ünï-日本', ';rm -rf x', "it's $HOME"])
def test_paths_are_used_literally(tmp_path, name):
  folder = tmp_path / name
  folder.mkdir()
  assert len(Source(path=make(folder))) == 9


def test_a_folder_that_is_not_utf_8_is_refused(tmp_path):
  """array_record takes none; what it raises is a page of types."""
  path = make(tmp_path)
  odd = os.fsdecode(os.fsencode(tmp_path.parent) + b'/odd\xff')
  os.rename(path, odd)
  with pytest.raises(ValueError, match=r'/odd.udcff. is not UTF-8'):
    Source(path=odd)
  with pytest.raises(ValueError, match='is not UTF-8: array_record'):
    records.write_shard(os.path.join(odd, 'x'), [])
  os.rename(odd, path)


def test_mistakes_are_named(tmp_path):
  path = make(tmp_path)
  with pytest.raises(ValueError, match=r"no split 'test'; valid: train, val"):
    Source(path=path, split='test')
  with pytest.raises(FileNotFoundError, match='no data set folder'):
    Source(path=os.path.join(path, 'no'))
  with pytest.raises(FileNotFoundError, match=r'no\.tsv'):
    Source(path=path, hierarchy=os.path.join(path, 'no.tsv'))
  with pytest.raises(ValueError, match="unknown option 'pth'"):
    plugins.check_kwargs('input.source', Source, {'pth': path})
  os.unlink(tmp_path / 'train-00000-of-00004.array_record')
  with pytest.raises(ValueError, match=r'train-00000-of-00004.*missing'):
    Source(path=path)
  assert len(Source(path=path, split='val')) == 2


def test_records_are_excluded_by_either_of_their_names(tmp_path):
  """Places in the set, and the names that images had before."""
  source = Source(path=make(tmp_path))
  named = ['train/3.jpg', source.key(5), 'train/8.jpg']
  found = exclusions.read_excluded(named, source, 'evals.val.exclude_ids')
  np.testing.assert_array_equal(found, [3, 5, 8])
  with pytest.raises(ValueError, match=r"no record 'train/9.jpg' among the 9"):
    exclusions.read_excluded(['train/9.jpg'], source, 'evals.val.exclude_ids')
