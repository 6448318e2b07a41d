"""Record layout, shard files and manifest, with every kind of damage."""

import json
import os
import pickle
import struct
import threading

import msgpack
import numpy as np
import pytest
from array_record.python import array_record_data_source

from input_pipeline.prepared import manifest as manifests
from input_pipeline.prepared import records


def record(i: int, **fields) -> records.Record:
  rng = np.random.default_rng(i)
  base = dict(
    key=f'dir/{i:04d}.jpg',
    image=rng.bytes(2000 + i),
    labels=np.int32([i % 7, i % 5 + 7]),
  )
  return records.Record(**(base | fields))


def write(folder, name, num, first=0) -> manifests.Shard:
  count = records.write_shard(
    os.path.join(folder, name), (record(first + i) for i in range(num))
  )
  return manifests.describe(str(folder), name, count)


def test_round_trip():
  full = record(3, label_conf=np.float32([0.25, 1]), dedup_hash=b'\0\xff\0')
  for original in (record(1), full, record(2, labels=np.int32([]), image=b'')):
    data = records.encode(original)
    assert data == records.encode(original)
    back = records.decode(data)
    assert back.key == original.key and back.image == original.image
    assert back.labels.dtype == np.int32
    np.testing.assert_array_equal(back.labels, original.labels)
    assert back.dedup_hash == original.dedup_hash
    if original.label_conf is None:
      assert back.label_conf is None
    else:
      assert back.label_conf.dtype == np.float32
      np.testing.assert_array_equal(back.label_conf, original.label_conf)


def test_layout_is_the_documented_one():
  fields = msgpack.unpackb(records.encode(record(1)))
  assert fields == {
    'v': 1,
    'key': 'dir/0001.jpg',
    'image': record(1).image,
    'labels': [1, 8],
  }


_GOOD = {'v': 1, 'key': 'k', 'image': b'x', 'labels': [1, 2]}


@pytest.mark.parametrize(
  'change,message',
  [
    ({'v': 2}, 'record version 2, this program reads 1'),
    ({'v': None}, 'record version None'),
    ({'labels': [1.5]}, "labels of 'k' must be a list of ids >= 0"),
    ({'labels': [-1]}, 'must be a list of ids >= 0'),
    ({'labels': [2**31]}, 'must be a list of ids >= 0'),
    ({'labels': [True]}, 'must be a list of ids >= 0'),
    ({'labels': 3}, 'must be a list of ids >= 0'),
    ({'image': 'text'}, "image of 'k' must be bytes"),
    ({'key': 7}, 'key must be text, got 7'),
    ({'label_conf': [0.5]}, 'one number in .* a label'),
    ({'label_conf': [0.5, 1.5]}, 'one number in .* a label'),
    ({'label_conf': [0.5, float('nan')]}, 'one number in .* a label'),
    ({'dedup_hash': 'ff'}, "dedup_hash of 'k' must be bytes"),
    ({'labls': []}, "unknown field 'labls'"),
  ],
)
def test_fields_that_break_the_format(change, message):
  with pytest.raises(ValueError, match=message):
    records.decode(msgpack.packb(_GOOD | change))


@pytest.mark.parametrize('field', ['key', 'image', 'labels'])
def test_missing_fields(field):
  rest = {k: v for k, v in _GOOD.items() if k != field}
  with pytest.raises(ValueError, match=f'no field {field!r}'):
    records.decode(msgpack.packb(rest))


@pytest.mark.parametrize(
  'data',
  [
    b'',
    b'\xff\xd8\xff\xe0 a jpeg',
    msgpack.packb([1, 2]),
    msgpack.packb({'key': 'k'}),
    msgpack.packb(_GOOD)[:-1],
    msgpack.packb(_GOOD) + b'x',
    b'\x91' * 100_000,  # nested lists without end
    b'\xdf' + struct.pack('>I', 2**32 - 1),  # a map of 4e9 entries
    b'\xc6' + struct.pack('>I', 2**32 - 1),  # 4 GiB of bytes
  ],
)
def test_bytes_that_are_no_record(data):
  with pytest.raises(ValueError, match='not a record'):
    records.decode(data)


def test_unwritable_records_are_refused_before_writing():
  with pytest.raises(ValueError, match='ids >= 0'):
    records.encode(record(1, labels=np.int32([-3])))


def test_shards_are_plain_array_record_files(tmp_path):
  write(tmp_path, 'a', 5)
  source = array_record_data_source.ArrayRecordDataSource(str(tmp_path / 'a'))
  assert len(source) == 5
  assert [records.decode(r).key for r in source] == [
    record(i).key for i in range(5)
  ]


def test_equal_records_give_equal_files(tmp_path):
  one, two = write(tmp_path, 'a', 20), write(tmp_path, 'b', 20)
  assert one.sha256 == two.sha256


def test_write_errors_are_raised(tmp_path):
  with pytest.raises(OSError, match='No such file or directory'):
    records.write_shard(str(tmp_path / 'no' / 'dir'), [record(0)])
  with pytest.raises(OSError, match='No space left on device'):
    records.write_shard('/dev/full', [record(0)])


def test_reader_keeps_few_files_open_and_is_safe_for_threads(tmp_path):
  names = [f'{i}' for i in range(12)]
  for i, name in enumerate(names):
    write(tmp_path, name, 4, first=4 * i)
  reader = records.ShardReader([str(tmp_path / n) for n in names], max_open=3)
  wrong = []

  def work(seed):
    rng = np.random.default_rng(seed)
    for i in rng.integers(48, size=150):
      shard, position = divmod(int(i), 4)
      if reader.read(shard, position) != records.encode(record(int(i))):
        wrong.append(i)

  threads = [threading.Thread(target=work, args=(s,)) for s in range(6)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  assert not wrong
  descriptors = [
    os.readlink(f'/proc/self/fd/{fd}')
    for fd in os.listdir('/proc/self/fd')
    if os.path.exists(f'/proc/self/fd/{fd}')
  ]
  assert sum(d.startswith(str(tmp_path)) for d in descriptors) <= 3
  copy = pickle.loads(pickle.dumps(reader))  # noqa: S301
  assert copy.read(2, 1) == reader.read(2, 1)


def test_one_flipped_byte_spoils_one_record_and_a_lost_file_is_no_record(
  tmp_path,
):
  write(tmp_path, 'a', 30)
  path = tmp_path / 'a'
  data = bytearray(path.read_bytes())
  data[data.find(record(11).image[500:600])] ^= 1
  path.write_bytes(data)
  reader = records.ShardReader([str(path)])
  for i in range(30):
    if i == 11:
      with pytest.raises(ValueError, match='hash mismatch'):
        reader.read(0, i)
    else:
      assert reader.read(0, i) == records.encode(record(i))
  gone = records.ShardReader([str(tmp_path / 'b')])
  for _ in range(2):
    with pytest.raises(OSError, match='No such file'):
      gone.read(0, 0)
  with pytest.raises(OSError, match='No such file'):
    gone.num_records(0)
  write(tmp_path, 'b', 3)  # storage came back
  assert gone.read(0, 2) == records.encode(record(2))


@pytest.fixture
def data_set(tmp_path):
  names = [manifests.shard_name('train', i, 4) for i in range(4)]
  shards = [write(tmp_path, n, 6, first=6 * i) for i, n in enumerate(names)]
  manifest = manifests.Manifest(
    splits={'train': tuple(shards)}, labels={'train': 48}, options={'seed': 0}
  )
  manifest.save(str(tmp_path))
  return tmp_path, manifest, names


def test_manifest_round_trip(data_set):
  folder, manifest, names = data_set
  assert manifests.load(str(folder)) == manifest
  manifests.check(str(folder), manifest, 'train')
  assert manifests.verify(str(folder), manifest, 'train') == []
  totals = json.loads((folder / 'manifest.json').read_text())['totals']
  size = sum((folder / n).stat().st_size for n in names)
  assert totals == {
    'train': {'records': 24, 'labels': 48, 'bytes': size, 'shards': 4}
  }


def test_every_damaged_shard_is_listed_at_the_start(data_set):
  folder, manifest, names = data_set
  (folder / names[0]).unlink()
  data = (folder / names[1]).read_bytes()
  (folder / names[1]).write_bytes(data[: len(data) // 2])
  os.rename(folder / names[2], folder / 'x')
  os.rename(folder / names[3], folder / names[2])
  os.rename(folder / 'x', folder / names[3])
  with pytest.raises(ValueError, match='4 of 4 files') as error:
    manifests.check(str(folder), manifest, 'train')
  text = str(error.value)
  assert f'{names[0]}: missing' in text
  assert f'{names[1]}: {len(data) // 2} bytes, should be {len(data)}' in text
  assert f'{names[2]}: another content' in text
  assert f'{names[3]}: another content' in text
  assert len(manifests.verify(str(folder), manifest, 'train')) == 4


def test_verify_finds_a_flipped_byte_that_the_quick_check_cannot(data_set):
  folder, manifest, names = data_set
  data = bytearray((folder / names[1]).read_bytes())
  data[len(data) // 2] ^= 1
  (folder / names[1]).write_bytes(data)
  manifests.check(str(folder), manifest, 'train')
  (problem,) = manifests.verify(str(folder), manifest, 'train')
  assert problem.startswith(f'{names[1]}: SHA-256 differs')


def test_start_check_of_1000_shards_takes_less_than_5_s(tmp_path):
  shard = write(tmp_path, 'first', 3)
  shards = []
  for i in range(1000):
    name = manifests.shard_name('train', i, 1000)
    os.link(tmp_path / 'first', tmp_path / name)
    shards.append(
      manifests.Shard(name, 3, shard.bytes, shard.sha256, shard.head_sha256)
    )
  manifest = manifests.Manifest({'train': tuple(shards)}, {'train': 0}, {})
  manifest.save(str(tmp_path))
  start = os.times().elapsed
  manifests.check(str(tmp_path), manifests.load(str(tmp_path)), 'train')
  assert os.times().elapsed - start < 5


def test_verify_counts_the_records(data_set):
  folder, _, names = data_set
  content = json.loads((folder / 'manifest.json').read_text())
  content['splits']['train'][2]['records'] = 7
  (folder / 'manifest.json').write_text(json.dumps(content))
  changed = manifests.load(str(folder))
  (problem,) = manifests.verify(str(folder), changed, 'train')
  assert problem == f'{names[2]}: 6 records, should be 7'


@pytest.mark.parametrize(
  'text,message',
  [
    ('{', 'not a manifest'),
    ('[]', 'not a manifest'),
    ('{"format": "x", "version": 1}', "format 'x' version 1"),
    (
      f'{{"format": "{manifests.FORMAT}", "version": 9}}',
      'version 9; this program reads',
    ),
    (
      f'{{"format": "{manifests.FORMAT}", "version": 1, "splits": [1]}}',
      'not a manifest',
    ),
  ],
)
def test_manifests_that_are_none(tmp_path, text, message):
  (tmp_path / 'manifest.json').write_text(text)
  with pytest.raises(ValueError, match=message):
    manifests.load(str(tmp_path))


@pytest.mark.parametrize('name', ['../a', '/etc/passwd', 'a/b', '', '..'])
def test_manifest_names_stay_in_the_folder(data_set, name):
  folder, _, _ = data_set
  content = json.loads((folder / 'manifest.json').read_text())
  content['splits']['train'][0]['name'] = name
  (folder / 'manifest.json').write_text(json.dumps(content))
  with pytest.raises(ValueError, match='is not a file name in the folder'):
    manifests.load(str(folder))


def test_missing_folders_and_manifests(tmp_path):
  with pytest.raises(FileNotFoundError, match='no data set folder'):
    manifests.load(str(tmp_path / 'no'))
  with pytest.raises(FileNotFoundError, match=r'has no manifest\.json'):
    manifests.load(str(tmp_path))
