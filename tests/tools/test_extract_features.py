"""Extracted features: as documented, resumed to the bit, checked."""

import json
import pathlib

import jax
import numpy as np
import pytest
from PIL import Image

from big_vision_like import experiment
from input_pipeline.labels.space import LabelSpace
from tests import documented_code, saved_run, tiny
from tools import extract_features
from tools.embedding import feature_folder, feature_shards

NUM = 11
BROKEN = 5  # position of the image that cannot be read


@pytest.fixture(scope='module')
def exp():
  return experiment.build(
    tiny.config(), space=LabelSpace.of_count(13), devices=jax.devices()[:1]
  )


@pytest.fixture(scope='module')
def state(exp):
  return exp.init(3)


@pytest.fixture(scope='module')
def workdir(exp, state, tmp_path_factory):
  return saved_run.save(tmp_path_factory.mktemp('run'), exp, state)


@pytest.fixture(scope='module')
def pixels():
  rng = np.random.default_rng(0)
  return rng.integers(0, 256, (NUM, 20, 20, 3), np.uint8)


@pytest.fixture(scope='module')
def data(pixels, tmp_path_factory):
  """Class folders: four images of ant, seven of bee."""
  folder = tmp_path_factory.mktemp('data')
  for i, image in enumerate(pixels):
    path = folder / 'train' / ('bee' if i > 3 else 'ant') / f'é{i:02d}.png'
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)
    if i == BROKEN:
      path.write_bytes(path.read_bytes()[:80])
  return folder


def run(capsys, *arguments) -> tuple[int, str, str]:
  code = extract_features.main([str(a) for a in arguments])
  out = capsys.readouterr()
  return code, out.out, out.err


def lines(path: pathlib.Path) -> list[dict]:
  return [json.loads(line) for line in path.read_text().splitlines()]


def arguments(workdir, data, out, *more) -> tuple:
  return (
    '--checkpoint', workdir, '--data', data, '--output', out,
    '--records_per_shard', 4, '--batch_size', 8, *more,
  )  # fmt: skip


@pytest.fixture(scope='module')
def wanted(exp, state, pixels):
  """Features by hand: 20x20 images, of which 16 pixels remain."""
  crop = {'image': pixels[:, 2:18, 2:18]}
  return np.asarray(jax.jit(exp.predict['features'])(state, crop)['features'])


# A snippet's file, and the line of it that prints: here all is printed.
SNIPPETS = {
  'array_record': (
    'features-00000-of-00001.array_record',
    "print(record['id'], record['key'], record['labels'], features[:3])",
    "print(json.dumps([record['id'], record['key'], record['labels'], "
    'features.tolist()]))',
  ),
  'safetensors': (
    'features-00000-of-00001.safetensors',
    'for row in zip(ids, keys, labels, features[:, :3]):\n  print(*row)',
    'for i, key, own, row in zip(ids, keys, labels, features):\n'
    '  print(json.dumps([int(i), key, own.tolist(), row.tolist()]))',
  ),
}


def read(folder: pathlib.Path, kind: str) -> list[list]:
  """[id, key, labels, features] of all rows, by the documented code."""
  file, shown, everything = SNIPPETS[kind]
  code = documented_code.snippet('weights.md', file)
  assert shown in code
  code = code.replace(shown, everything)
  shards = sorted(path.name for path in folder.glob(f'*.{kind}'))
  parts = ['import json\n', *(code.replace(file, name) for name in shards)]
  output = documented_code.run(''.join(parts), folder)
  return [json.loads(line) for line in output.splitlines()]


@pytest.mark.parametrize('kind', feature_shards.FORMATS)
def test_files_read_by_the_documented_code(
  workdir, data, wanted, tmp_path, capsys, kind
):
  out = tmp_path / 'out'
  code, said, err = run(
    capsys, *arguments(workdir, data, out), '--format', kind
  )
  assert (code, err) == (0, '')
  assert 'features of 10 images, 128 numbers each, 3 shards' in said
  assert '1 left out' in said

  rows = read(out, kind)
  good = [i for i in range(NUM) if i != BROKEN]
  assert [i for i, *_ in rows] == good
  for i, key, labels, features in rows:
    assert key == f'{"bee" if i > 3 else "ant"}/é{i:02d}.png'
    assert labels == [int(i > 3)]
    np.testing.assert_allclose(features, wanted[i], rtol=1e-4, atol=1e-5)

  content = json.loads((out / 'manifest.json').read_text())
  assert [s['records'] for s in content['shards']] == [4, 3, 3]
  assert [s['bad'] for s in content['shards']] == [0, 1, 0]
  assert content['totals']['records'] == 10
  bad = lines(out / 'bad_images.jsonl')
  assert [(b['id'], b['key']) for b in bad] == [(BROKEN, 'bee/é05.png')]
  assert bad[0]['reason']
  assert [x['name'] for x in lines(out / 'vocabulary.jsonl')] == ['ant', 'bee']
  assert not (out / 'progress.jsonl').exists()


def test_resumed_work_gives_the_same_files(
  workdir, data, tmp_path, capsys, monkeypatch
):
  whole, broken = tmp_path / 'whole', tmp_path / 'broken'
  assert run(capsys, *arguments(workdir, data, whole))[0] == 0
  write = feature_shards.write

  def full_disk(path, rows, kind):
    if '-00001-' in path:
      pathlib.Path(f'{path}.tmp').write_text('half')
      raise OSError('disk full')
    write(path, rows, kind)

  monkeypatch.setattr(feature_shards, 'write', full_disk)
  code, _, err = run(capsys, *arguments(workdir, data, broken))
  assert code == 2 and 'disk full' in err
  assert not (broken / 'manifest.json').exists()
  code, _, err = run(capsys, '--output', broken, '--verify')
  assert code == 2 and 'no finished features there' in err
  with (broken / 'progress.jsonl').open('a') as file:
    file.write('{"shard": {"name": "cut sho')  # as a kill leaves it
  first = broken / 'features-00000-of-00003.array_record'
  before = first.stat().st_mtime_ns

  monkeypatch.setattr(feature_shards, 'write', write)
  code, said, _ = run(capsys, *arguments(workdir, data, broken))
  assert code == 0 and '1 of 3 shards are here' in said
  assert first.stat().st_mtime_ns == before
  assert {p.name for p in broken.iterdir()} == {p.name for p in whole.iterdir()}
  for path in whole.iterdir():
    assert path.read_bytes() == (broken / path.name).read_bytes(), path.name

  code, said, _ = run(capsys, *arguments(workdir, data, broken))
  assert code == 0 and '3 of 3 shards are here, of the sizes' in said
  assert '--verify compares their content' in said
  assert first.stat().st_mtime_ns == before
  code, _, err = run(
    capsys, *arguments(workdir, data, broken), '--records_per_shard', 5
  )
  assert code == 2 and 'records_per_shard: 4 before, 5 now' in err

  assert run(capsys, '--output', broken, '--verify')[0] == 0
  content = bytearray(first.read_bytes())
  content[100] ^= 1
  first.write_bytes(content)
  (broken / 'features-00002-of-00003.array_record').unlink()
  code, _, err = run(capsys, '--output', broken, '--verify')
  assert code == 2 and '2 shards differ' in err
  assert f'{first.name}: ' in err and 'another checksum' in err
  assert 'features-00002-of-00003.array_record: missing' in err
  code, _, err = run(capsys, *arguments(workdir, data, broken))
  assert code == 2 and 'missing or cut short' in err


def test_class_folders_without_splits(workdir, data, tmp_path, capsys):
  """The advice on the command line is one that works."""
  classes, out = data / 'train', tmp_path / 'out'
  code, _, err = run(capsys, *arguments(workdir, classes, out))
  assert code == 2
  advice = f'detect:{classes}:all'
  assert err.rstrip().endswith(f'such as {advice}')
  code, said, _ = run(capsys, *arguments(workdir, advice, out))
  assert code == 0 and 'features of 10 images' in said


@pytest.mark.parametrize(
  'path, words',
  [
    (('totals',), "damaged: KeyError: 'totals'"),
    (('totals', 'records'), "damaged: KeyError: 'records'"),
    (('settings', 'format'), "damaged: KeyError: 'format'"),
    (('shards', 0, 'sha256'), "missing 1 required positional argument: 'sha"),
  ],
)
def test_a_damaged_manifest_is_one_line(tmp_path, capsys, path, words):
  shard = dict(name='x', records=1, bad=0, bytes=1, sha256='0')
  content = {
    'format': feature_folder.FORMAT,
    'settings': {'format': 'safetensors', 'dim': 2},
    'totals': {'records': 1, 'bad': 0, 'bytes': 1},
    'shards': [shard],
  }
  node = content
  for key in path[:-1]:
    node = node[key]
  del node[path[-1]]
  (tmp_path / 'manifest.json').write_text(json.dumps(content))
  code, _, err = run(capsys, '--output', tmp_path, '--verify')
  assert code == 2 and err.startswith('error: ') and words in err


def test_spans_against_one_by_one():
  rng = np.random.default_rng(0)
  for _ in range(200):
    total, size = int(rng.integers(1, 30)), int(rng.integers(1, 8))
    spans = [(i, min(i + size, total)) for i in range(0, total, size)]
    spans = [span for span in spans if rng.random() < 0.8]
    ids = np.array([i for a, b in spans for i in range(a, b)], np.int64)
    ids = ids[rng.random(len(ids)) < 0.7]
    cuts = np.sort(rng.integers(0, len(ids) + 1, 3))
    parts = np.split(ids, cuts)
    stream = ((part, np.stack([part, -part], 1)) for part in parts)
    found = list(feature_folder.by_span(stream, spans, 2))
    assert len(found) == len(spans)
    for (a, b), (got, vectors) in zip(spans, found):
      assert got.tolist() == [i for i in ids.tolist() if a <= i < b]
      assert vectors.tolist() == [[i, -i] for i in got.tolist()]


@pytest.mark.parametrize(
  'more, words',
  [
    (('--records_per_shard', 0), '--records_per_shard=0 must be at least 1'),
    (('--data', 'nowhere'), "--data='nowhere': no such file or folder"),
    (('--data', '/no/where:x'), "--data='/no/where:x': no such file or folder"),
    (('--data', 'records:/nowhere'), 'no data set folder'),
    (('--checkpoint', '/nowhere'), 'no checkpoint there'),
  ],
)
def test_mistakes(workdir, data, tmp_path, capsys, more, words):
  out = tmp_path / 'out'
  code, _, err = run(capsys, *arguments(workdir, data, out), *more)
  assert code == 2 and err.startswith('error: ') and words in err
  assert not out.exists()
