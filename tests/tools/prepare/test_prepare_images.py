"""prepare_images on folders and tables made here, whole, killed and resumed."""

import hashlib
import io
import json
import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from input_pipeline.prepared import manifest as manifests
from input_pipeline.sources import folder as folder_source
from input_pipeline.sources.records import Source
from tools import prepare_images
from tools.cli import preparer

CLASSES = ('apple', 'car', 'fruit')


def jpeg(seed: int, size: int = 24) -> bytes:
  rng = np.random.default_rng(seed)
  out = io.BytesIO()
  pixels = rng.integers(0, 256, (size, size + 4, 3), dtype=np.uint8)
  Image.fromarray(pixels).save(out, 'JPEG')
  return out.getvalue()


@pytest.fixture
def photos(tmp_path):
  """train: 3 classes x 10 images, val: 3 x 2."""
  root = tmp_path / 'photos of mine'
  for s, (split, num) in enumerate([('train', 10), ('val', 2)]):
    for c, name in enumerate(CLASSES):
      (root / split / name).mkdir(parents=True)
      for i in range(num):
        data = jpeg(s * 1000 + c * 100 + i)
        (root / split / name / f'{i}.jpg').write_bytes(data)
  return root


def run(*args, input=None, output) -> int:
  argv = ['--output', str(output), *map(str, args)]
  return prepare_images.main(argv + (['--input', str(input)] if input else []))


def digests(folder) -> dict[str, str]:
  return {
    name: hashlib.sha256((folder / name).read_bytes()).hexdigest()
    for name in sorted(os.listdir(folder))
  }


def test_a_folder_becomes_the_same_data_set(photos, tmp_path, capsys):
  out = tmp_path / 'out'
  assert run('--num_shards', 4, '--workers', 1, input=photos, output=out) == 0
  text = capsys.readouterr().out
  assert 'train: 30 images, 30 labels (1.00 an image), 0 bad' in text
  assert 'val: 6 images' in text and '3 classes; 36 images' in text
  for split in ('train', 'val'):
    given = folder_source.Source(path=str(photos), split=split)
    made = Source(path=str(out), split=split)
    expected = {given.key(i): given[i] for i in range(len(given))}
    found = {made[i]['key']: made[i] for i in range(len(made))}
    assert found.keys() == expected.keys()
    for key, example in expected.items():
      assert found[key]['image'] == example['image']
      assert found[key]['labels'].tolist() == example['labels'].tolist()
  train = Source(path=str(out))
  assert train.vocabulary.names == CLASSES
  assert train.vocabulary.counts.tolist() == [10, 10, 10]
  shard = [i // 8 for i in range(30)]
  by_shard = {(s, train[i]['labels'][0]) for i, s in enumerate(shard)}
  assert len(by_shard) > 8  # classes are mixed over the shards
  assert sorted(os.listdir(out))[:4] == [
    '.lock', 'bad_images.jsonl', 'manifest.json',
    'train-00000-of-00004.array_record',
  ]  # fmt: skip


def test_bytes_do_not_depend_on_the_workers(photos, tmp_path):
  for name, workers in (('a', 1), ('b', 3)):
    code = run(
      '--num_shards', 5, '--workers', workers, '--resize', 16,
      input=photos, output=tmp_path / name,
    )  # fmt: skip
    assert code == 0
  assert digests(tmp_path / 'a') == digests(tmp_path / 'b')
  other = tmp_path / 'c'
  run(
    '--num_shards', 5, '--seed', 1, '--resize', 16, input=photos, output=other
  )
  assert digests(other) != digests(tmp_path / 'a')


def test_resize_stores_small_jpegs(photos, tmp_path):
  out = tmp_path / 'out'
  assert run('--resize', 16, '--workers', 1, input=photos, output=out) == 0
  source = Source(path=str(out))
  for i in range(len(source)):
    with Image.open(io.BytesIO(source[i]['image'])) as image:
      assert image.format == 'JPEG' and image.size == (16, 16)


@pytest.mark.parametrize('suffix', ['csv', 'jsonl'])
def test_tables_with_a_hierarchy(photos, tmp_path, suffix):
  rows = [(f'train/car/{i}.jpg', ['car']) for i in range(5)]
  rows += [(f'train/apple/{i}.jpg', ['apple', 'fruit']) for i in range(4)]
  table, tree = tmp_path / f'rows.{suffix}', tmp_path / 'is_a.tsv'
  if suffix == 'csv':
    lines = ['file,names', *(f'{path},{"|".join(n)}' for path, n in rows)]
  else:
    lines = [json.dumps({'file': path, 'names': n}) for path, n in rows]
  table.write_text('\n'.join(lines) + '\n')
  tree.write_text('apple\tfruit\nfruit\tfood\ncar\tvehicle\n')
  out = tmp_path / 'out'
  code = run(
    '--splits', 'train', '--root', photos, '--image_column', 'file',
    '--labels_column', 'names', '--label_separator', '|', '--workers', 1,
    '--hierarchy', tree, '--hierarchy_unlisted', 'add',
    input=table, output=out,
  )  # fmt: skip
  assert code == 0
  source = Source(path=str(out))
  assert source.vocabulary.names == ('apple', 'car', 'fruit', 'food', 'vehicle')
  assert source.vocabulary.counts.tolist() == [4, 5, 4, 0, 0]
  assert source.hierarchy.close(np.int32([0])).tolist() == [0, 2, 3]
  assert manifests.load(str(out)).labels == {'train': 13}


def test_bad_images_are_listed_and_bounded(photos, tmp_path, capsys):
  half = photos / 'train' / 'car' / '3.jpg'
  half.write_bytes(half.read_bytes()[:300])
  (photos / 'val' / 'apple' / '0.jpg').write_bytes(b'<html>')
  out, args = tmp_path / 'out', ('--num_shards', 2, '--workers', 1)
  assert run(*args, input=photos, output=out) == 1
  text = capsys.readouterr().err
  assert '1 bad images in split' in text
  assert re.search(r'--max_bad_fraction 0.01 allows \(0\.\d+ images of', text)
  assert 'car/3.jpg: JPEG cannot be decoded' in text
  assert not (out / 'manifest.json').exists()
  args = (*args, '--max_bad_fraction', 0.2)  # no other settings: goes on
  assert run(*args, input=photos, output=out) == 0
  rows = [
    json.loads(line)
    for line in (out / 'bad_images.jsonl').read_text().splitlines()
  ]
  assert [(r['split'], r['key']) for r in rows] == [
    ('train', 'car/3.jpg'),
    ('val', 'apple/0.jpg'),
  ]
  source = Source(path=str(out))
  assert len(source) == 29
  assert source.vocabulary.counts.tolist() == [10, 9, 10]
  kept = tmp_path / 'kept'
  assert run(*args, '--keep_bad', input=photos, output=kept) == 0
  assert len(Source(path=str(kept))) == 30


def test_finished_data_sets_are_left_alone(photos, tmp_path, capsys):
  out = tmp_path / 'out'
  assert run('--workers', 1, input=photos, output=out) == 0
  before = digests(out)
  assert run('--workers', 1, input=photos, output=out) == 0
  assert 'finished already' in capsys.readouterr().out
  assert run('--resize', 20, input=photos, output=out) == 2
  assert 'resize: None before, 20 now' in capsys.readouterr().err
  (photos / 'train' / 'car' / 'new.jpg').write_bytes(jpeg(77))
  assert run(input=photos, output=out) == 2
  assert 'input: {' in capsys.readouterr().err
  assert digests(out) == before


def test_verify(photos, tmp_path, capsys):
  out = tmp_path / 'out'
  run('--num_shards', 2, '--workers', 1, input=photos, output=out)
  assert run('--verify', output=out) == 0
  assert 'all as in the manifest' in capsys.readouterr().out
  shard = out / 'train-00001-of-00002.array_record'
  data = bytearray(shard.read_bytes())
  data[6000] ^= 1
  shard.write_bytes(data)
  (out / 'val-00000-of-00002.array_record').unlink()
  assert run('--verify', output=out) == 1
  text = capsys.readouterr().out
  assert f'{shard.name}: SHA-256 differs' in text
  assert 'val-00000-of-00002.array_record: missing' in text


def start(photos, out, *args) -> subprocess.Popen:
  command = [
    sys.executable, '-m', 'tools.prepare_images', '--input', str(photos),
    '--output', str(out), '--num_shards', '12', '--resize', '64', *args,
  ]  # fmt: skip
  return subprocess.Popen(
    command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
  )


def num_lines(path) -> int:
  return path.read_text().count('\n') if path.exists() else 0


@pytest.mark.parametrize('workers', ['1', '2'])
def test_killed_work_goes_on_where_it_stopped(tmp_path, workers, capsys):
  photos, big = tmp_path / 'photos', jpeg(0, 1000)
  for i in range(48):
    name = photos / 'train' / CLASSES[i % 3] / f'{i}.jpg'
    name.parent.mkdir(parents=True, exist_ok=True)
    name.write_bytes(big)
  whole, out = tmp_path / 'whole', tmp_path / 'out'
  args = ('--splits', 'train')
  process = start(photos, whole, *args, '--workers', '2')
  assert '48 images' in process.communicate(timeout=60)[0]
  assert process.returncode == 0

  process = start(photos, out, *args, '--workers', workers)
  progress, deadline = out / 'progress.jsonl', time.monotonic() + 30
  while num_lines(progress) < 3 and time.monotonic() < deadline:
    time.sleep(0.002)
  process.send_signal(signal.SIGKILL)
  process.communicate(timeout=60)
  done = num_lines(progress) - 1
  assert 2 <= done < 12 and not (out / 'manifest.json').exists()
  with progress.open('a') as file:
    file.write('{"split": "tra')  # a line cut short by the kill
  first = json.loads(progress.read_text().splitlines()[1])['shard']['name']
  old = (out / first).stat().st_mtime_ns

  assert run(*args, '--num_shards', 12, input=photos, output=out) == 2
  assert 'resize: 64 before, None now' in capsys.readouterr().err
  process = start(photos, out, *args, '--workers', '2')
  text = process.communicate(timeout=60)[0]
  assert process.returncode == 0, text
  assert f'{done} finished shards are kept, {12 - done} are' in text
  assert (out / first).stat().st_mtime_ns == old
  assert digests(out) == digests(whole)
  assert run('--verify', output=out) == 0


def test_two_at_once_are_refused(photos, tmp_path, capsys):
  out = tmp_path / 'out'
  out.mkdir()
  with preparer._locked(str(out)):
    assert run(input=photos, output=out) == 2
  assert 'another preparation is writing' in capsys.readouterr().err


def test_limit_takes_a_random_part(photos, tmp_path):
  out = tmp_path / 'out'
  args = ('--splits', 'train', '--limit', 9, '--workers', 1)
  assert run(*args, input=photos, output=out) == 0
  source = Source(path=str(out))
  assert len(source) == 9
  assert {int(source.labels(i)[0]) for i in range(9)} == {0, 1, 2}


@pytest.mark.parametrize(
  'args,message',
  [
    (['--splits', 'train,test'], "unknown split 'test'"),
    (['--splits', 'a,a'], "--splits 'a,a' names a split twice"),
    (['--splits', 'train,'], "--splits 'train,' is not a list of names"),
    (['--splits', '../x'], 'cannot be part of a file name'),
    (['--image_column', 'file'], "unknown option 'image_column'"),
    (['--num_shards', '0'], 'num_shards must be at least 1, got 0'),
    (['--num_shards', '31'], 'num_shards=31 for the 30 images of split'),
    (['--shard_mb', '0'], 'shard_mb must be positive'),
    (['--resize', '0'], 'resize must be at least 1'),
    (['--quality', '101'], 'quality must be in 1 to 100, got 101'),
    (['--limit', '-1'], 'limit must be at least 1'),
    (['--workers', '0'], '--workers must be at least 1'),
    (['--max_bad_fraction', '2'], '--max_bad_fraction must be in'),
    (['--hierarchy', 'no.tsv'], 'no.tsv'),
    (['--vocabulary', 'no.txt'], 'no.txt'),
  ],
)
def test_mistakes_are_named(photos, tmp_path, capsys, args, message):
  assert run(*args, input=photos, output=tmp_path / 'out') == 2
  assert message in capsys.readouterr().err
  assert run('--workers', 1, input=photos, output=tmp_path / 'out') == 0


def test_places_that_cannot_be_used_are_named(photos, tmp_path, capsys):
  for args, message in [
    (dict(input=tmp_path / 'no', output=tmp_path / 'a'), 'does not exist'),
    (dict(output=tmp_path / 'a'), '--input is missing'),
    (dict(input=photos, output=photos / 'x'), 'lies inside --input'),
    (dict(input=photos, output='/proc/x'), "--output '/proc/x': No such file"),
    (dict(input=photos, output=tmp_path), 'holds other files'),
  ]:
    assert run(**args) == 2
    assert message in capsys.readouterr().err
  assert run('--verify', output=tmp_path / 'no') == 2
  assert 'no data set folder' in capsys.readouterr().err
