"""The command: planted copies, resumption, growth, and hostile arguments."""

import json
import pathlib
import re

import jax
import numpy as np
import pytest
from PIL import Image

from big_vision_like import experiment
from evaluators.harness import exclusions
from input_pipeline import pipeline
from input_pipeline.labels.space import LabelSpace
from tests import saved_run, tiny
from tests.tools.near_duplicates.test_search import COPIES, photograph
from tools import dedup
from tools.near_duplicates import scoring, search, signatures

_NUM = 12
_LOOSE = ('--cosine', '0.5', '--hash_distance', '12')


def _save(path: pathlib.Path, image: np.ndarray) -> None:
  path.parent.mkdir(parents=True, exist_ok=True)
  Image.fromarray(np.ascontiguousarray(image)).save(path)


@pytest.fixture(scope='module')
def photos(tmp_path_factory):
  """train: 12 images; val: copies of 6 of them, flipped ones, and 12 others."""
  root = tmp_path_factory.mktemp('photos')
  for i in range(_NUM):
    _save(root / f'train/a/{i:02d}.png', photograph(i))
    _save(root / f'val/a/other{i:02d}.png', photograph(100 + i))
  for i, (kind, copy) in enumerate(COPIES.items()):
    _save(root / f'val/b/{kind}.png', copy(photograph(i)))
    _save(root / f'train/b/unused{i}.png', photograph(200 + i))
  _save(root / 'val/b/flipped.png', photograph(7)[:, ::-1])
  return root


def _run(*argv, code=0) -> None:
  assert dedup.main([*map(str, argv), '--workers', '1']) == code


def _between(photos, out, *more) -> dict:
  """Content of the results of train against val."""
  _run(
    '--train', f'{photos}:train', '--eval', f'{photos}:val',
    '--output', out, *more,
  )  # fmt: skip
  return _results(out)


def _results(out) -> dict:
  lines = (out / 'pairs.jsonl').read_text().splitlines()
  return {
    'summary': json.loads((out / 'summary.json').read_text()),
    'pairs': [json.loads(line) for line in lines],
    'drop': (out / 'drop_ids.txt').read_text().splitlines(),
    'page': (out / 'report.html').read_text(),
  }


def test_every_copy_is_found_and_nothing_else(photos, tmp_path):
  results = _between(photos, tmp_path, '--mirrored', *_LOOSE)
  assert results['drop'] == sorted(
    [*(f'b/{kind}.png' for kind in COPIES), 'b/flipped.png']
  )
  accepted = [p for p in results['pairs'] if p['accepted']]
  originals = {
    f'b/{kind}.png': f'a/{i:02d}.png' for i, kind in enumerate(COPIES)
  }
  originals['b/flipped.png'] = 'a/07.png'
  assert {p['eval']: p['train'] for p in accepted} == originals
  assert [p['eval'] for p in accepted if p['mirrored']] == ['b/flipped.png']
  scores = [p['score'] for p in results['pairs']]
  assert scores == sorted(scores, reverse=True)
  exact = next(p for p in accepted if p['eval'] == 'b/exact.png')
  assert exact['hash_distance'] == 0 and exact['score'] == 1
  assert exact['cosine'] == pytest.approx(1, abs=1e-3)
  assert results['page'].count('<img') == 2 * len(results['pairs'])
  counts = results['summary']['counts']
  assert counts['dropped'] == {f'{photos}:val': 7}
  assert counts['near_duplicate_pairs'] == 7


def test_the_default_settings_find_all_but_mirror_images(photos, tmp_path):
  results = _between(photos, tmp_path)
  assert results['drop'] == sorted(f'b/{kind}.png' for kind in COPIES)
  assert results['summary']['settings']['crops'] == 'on'
  source = pipeline.open_source(
    dict(type='detect', path=str(photos), split='val')
  )
  excluded = exclusions.read_excluded(
    str(tmp_path / 'drop_ids.txt'), source, 'exclude_ids'
  )
  assert excluded is not None
  assert [source.key(int(i)) for i in excluded] == results['drop']


@pytest.fixture(scope='module')
def corners(tmp_path_factory):
  """train: 3 photographs; val: a corner of each, and of none of them."""
  root = tmp_path_factory.mktemp('corners')
  for i in range(4):
    if i < 3:
      _save(root / f'train/a/{i}.png', photograph(i))
    _save(root / f'val/a/{i}.png', photograph(i)[:96, :128])
  return root


def test_crops_are_looked_for_unless_told_otherwise(corners, tmp_path):
  """In any order in one state folder: the same as alone."""
  state = ['--state', tmp_path / 'state']
  off = _between(corners, tmp_path / 'a', '--crops', 'off', *state)
  assert off['drop'] == [] and off['pairs'] == []
  assert off['summary']['settings']['crops'] == 'off'
  on = _between(corners, tmp_path / 'b', *state)
  assert on['drop'] == ['a/0.png', 'a/1.png', 'a/2.png']
  assert all(p['train'] == p['eval'] for p in on['pairs'] if p['accepted'])
  fresh = _between(corners, tmp_path / 'c')
  assert fresh['pairs'] == on['pairs']
  again = _between(corners, tmp_path / 'd', '--crops', 'off', *state)
  assert again['drop'] == []


def test_either_side_may_be_the_crop(corners, tmp_path):
  _run(
    '--train', f'{corners}:val', '--eval', f'{corners}:train',
    '--output', tmp_path,
  )  # fmt: skip
  assert _results(tmp_path)['drop'] == ['a/0.png', 'a/1.png', 'a/2.png']


@pytest.mark.parametrize('limit, verdict', [(12, 'on'), (11, 'off')])
def test_by_itself_crops_are_off_above_a_size(
  corners, tmp_path, monkeypatch, capsys, limit, verdict
):
  monkeypatch.setattr(search, 'CROPS_BELOW', limit)
  results = _between(corners, tmp_path)
  assert results['summary']['settings']['crops'] == verdict
  said = 'crops are not looked for in sets of this size'
  assert (said in capsys.readouterr().out) == (verdict == 'off')


def test_by_itself_crops_are_off_without_verification(corners, tmp_path):
  results = _between(corners, tmp_path, '--no_verify')
  assert results['summary']['settings']['crops'] == 'off'
  assert results['drop'] == []
  on = _between(corners, tmp_path / 'on', '--no_verify', '--crops', 'on')
  assert on['drop'] == ['a/0.png', 'a/1.png', 'a/2.png']


def test_within_a_set_all_but_the_first_of_a_group_go(tmp_path):
  for name in ('a/1', 'a/3', 'b/2', 'b/4'):
    _save(tmp_path / f'in/train/{name}.png', photograph(1))
  _save(tmp_path / 'in/train/b/0.png', photograph(2))
  out = tmp_path / 'out'
  _run('--within', f'{tmp_path}/in:train', '--output', out)
  results = _results(out)
  assert results['drop'] == ['a/3.png', 'b/2.png', 'b/4.png']
  assert len(results['pairs']) == 6  # each of four with each
  assert {p['first'] for p in results['pairs']} == {
    'a/1.png', 'a/3.png', 'b/2.png',
  }  # fmt: skip


def test_several_sets_have_a_list_each(photos, tmp_path):
  _save(tmp_path / 'more/val/c/copy.png', photograph(3))
  _save(tmp_path / 'more/train/c/x.png', photograph(300))
  _run(
    '--train', f'{photos}:train', '--eval', f'{photos}:val',
    '--eval', f'{tmp_path}/more:val', '--output', tmp_path / 'out',
  )  # fmt: skip
  assert not (tmp_path / 'out/drop_ids.txt').exists()
  second = (tmp_path / 'out/drop_ids_2.txt').read_text()
  assert second == 'c/copy.png\n'
  summary = json.loads((tmp_path / 'out/summary.json').read_text())
  assert summary['files']['drop_ids_2.txt'] == f'{tmp_path}/more:val'


def test_a_second_call_reads_and_compares_only_what_is_new(
  photos, tmp_path, monkeypatch
):
  first = _between(photos, tmp_path / 'a')
  _save(tmp_path / 'new/train/n/copy.png', photograph(104))
  read, scored = [], []
  plain_read, plain_score = signatures.read_block, scoring.score_block

  def reading(sources, task):
    read.append(task)
    return plain_read(sources, task)

  def scoring_(sources, block):
    scored.extend(block)
    return plain_score(sources, block)

  monkeypatch.setattr(signatures, 'read_block', reading)
  monkeypatch.setattr(scoring, 'score_block', scoring_)
  state = tmp_path / 'a/state'
  grown = ['--train', f'{tmp_path}/new:train', '--state', state]
  second = _between(photos, tmp_path / 'b', *grown)
  assert [task[:3] for task in read] == [(1, 0, 1)]
  assert [second['drop'].count(k) for k in first['drop']] == [1] * len(
    first['drop']
  )
  assert set(second['drop']) - set(first['drop']) == {'a/other04.png'}
  assert all(pair[0][0] == 1 for pair in scored)
  assert (
    second['summary']['counts']['comparisons'] == 4 * 19
  )  # hash, cosine, windows of either side
  fresh = _between(photos, tmp_path / 'c', *grown[:2])
  assert fresh['pairs'] == second['pairs'] and fresh['drop'] == second['drop']


def test_a_killed_call_goes_on(photos, tmp_path, monkeypatch):
  expected = _between(photos, tmp_path / 'a', *_LOOSE)
  plain, calls = scoring.score_block, []

  def stopping(sources, block):
    calls.append(len(block))
    if len(calls) == 2:
      raise KeyboardInterrupt
    return plain(sources, block)

  monkeypatch.setattr(scoring, 'score_block', stopping)
  monkeypatch.setattr(scoring, '_BLOCK', 3)
  argv = ['--train', f'{photos}:train', '--eval', f'{photos}:val']
  argv += ['--output', tmp_path / 'b', *_LOOSE]
  _run(*argv, code=130)
  verified = next((tmp_path / 'b/state').glob('verified*'))
  with verified.open('a') as file:
    file.write('["cut short')  # the kill came in the middle of a line
  monkeypatch.setattr(signatures, 'read_block', None)  # nothing is read again
  _run(*argv)
  assert sum(calls) == len(expected['pairs']) + 3  # three were done twice
  again = _results(tmp_path / 'b')
  assert again['pairs'] == expected['pairs']


@pytest.mark.slow
def test_worker_processes_change_nothing(photos, tmp_path):
  one = _between(photos, tmp_path / 'a')
  argv = ['--train', f'{photos}:train', '--eval', f'{photos}:val']
  argv += ['--output', str(tmp_path / 'b'), '--workers', '2']
  assert dedup.main(argv) == 0
  assert _results(tmp_path / 'b')['pairs'] == one['pairs']


def test_broken_images_are_counted_and_listed(photos, tmp_path):
  root = tmp_path / 'in'
  _save(root / 'train/a/good.png', photograph(1))
  (root / 'train/a/broken.jpg').write_bytes(b'\xff\xd8 nothing')
  _save(root / 'train/a/same.png', photograph(1))
  _run('--within', f'{root}:train', '--output', tmp_path / 'out')
  results = _results(tmp_path / 'out')
  assert results['summary']['counts']['unreadable'] == 1
  (line,) = (tmp_path / 'out/unreadable.jsonl').read_text().splitlines()
  assert json.loads(line)['key'] == 'a/broken.jpg'
  assert 'cannot be decoded' in json.loads(line)['reason']
  assert results['drop'] == ['a/same.png']


def _vectors(path, array) -> str:
  if path.suffix == '.npy':
    np.save(path, array)
  else:
    from safetensors.numpy import save_file

    save_file({'features': array}, path)
  return str(path)


@pytest.mark.parametrize('suffix', ['.npy', '.safetensors'])
def test_vectors_of_the_users_own(photos, tmp_path, suffix):
  rng = np.random.default_rng(0)
  train = rng.normal(size=(18, 8)).astype(np.float32)
  val = rng.normal(size=(19, 8)).astype(np.float32)
  val[4] = 3 * train[6]
  a = _vectors(tmp_path / f'train{suffix}', train)
  b = _vectors(tmp_path / f'val{suffix}', val)
  _run(
    '--train', f'{photos}:train,embeddings={a}',
    '--eval', f'{photos}:val,embeddings={b}', '--hash_distance', 'none',
    '--cosine', '0.99', '--no_verify', '--output', tmp_path / 'out',
  )  # fmt: skip
  results = _results(tmp_path / 'out')
  (pair,) = results['pairs']
  assert (pair['train'], pair['eval']) == ('a/06.png', 'a/other04.png')
  assert pair['score'] is None and pair['hash_distance'] is None
  assert results['drop'] == ['a/other04.png']


@pytest.mark.slow
def test_features_of_a_checkpoint(photos, tmp_path):
  """Of a model without training: copies of all pixels, and mirror images."""
  exp = experiment.build(
    tiny.config(), space=LabelSpace.of_count(13), devices=jax.devices()[:1]
  )
  run = saved_run.save(tmp_path / 'run', exp, exp.init(3))
  argv = [
    '--checkpoint', run, '--hash_distance', 'none', '--cosine', '0.9999',
    '--mirrored',
  ]  # fmt: skip
  results = _between(photos, tmp_path / 'out', *argv)
  exact, flipped = (
    next(p for p in results['pairs'] if p['eval'] == f'b/{kind}.png')
    for kind in ('exact', 'flipped')
  )
  assert exact['train'] == 'a/00.png' and flipped['train'] == 'a/07.png'
  assert exact['cosine'] == pytest.approx(1, abs=1e-3)
  assert flipped['cosine'] == pytest.approx(1, abs=1e-3)
  assert flipped['mirrored'] and not exact['mirrored']
  assert {'b/exact.png', 'b/flipped.png'} <= set(results['drop'])


HOSTILE = {
  'no sets': ([], 'give --train and --eval'),
  'one side': (['--train', 'P:train'], 'give --train and --eval'),
  'mixed': (
    ['--within', 'P:train', '--eval', 'P:val'], '--within stands alone',
  ),
  'other type': (['--within', 'bogus:P:val'], "'bogus' is nei.* valid types"),
  'twice': (['--within', 'P:train', '--within', 'P:train'], 'given twice'),
  'no folder': (['--within', '/no/such:train'], 'no such file or folder'),
  'no split': (['--within', 'P:test'], "unknown split 'test'"),
  'no type': (['--within', '{"path": "P"}'], 'needs a "type"'),
  'bad json': (['--within', '{"type": NaN}'], 'not JSON|not a JSON'),
  'option': (['--within', 'P:train,hierachy=x'], "'hierachy'.*hierarchy"),
  'no value': (['--within', 'P:train,holdout'], 'not option=value'),
  'pathless': (['--within', 'synthetic:x'], 'describe it in JSON'),
  'cosine': (['--within', 'P:train', '--cosine', '1.5'], '--cosine must be'),
  'bits': (['--within', 'P:train', '--hash_distance', '16'], '0 to 15'),
  'neither': (
    ['--within', 'P:train', '--cosine', 'none', '--hash_distance', 'none'],
    'both "none"',
  ),
  'threshold': (['--within', 'P:train', '--threshold', 'nan'], 'threshold'),
  'memory': (['--within', 'P:train', '--memory_mb', '1'], '64 to'),
  'crops': (
    ['--within', 'P:train', '--cosine', 'none', '--crops', 'on'],
    'crops on needs colour thumbnails.*--cosine none',
  ),
  'crops by a model': (
    ['--within', 'P:train', '--checkpoint', '/no', '--crops', 'on'],
    'crops on needs colour thumbnails.*--checkpoint',
  ),
  'crops of vectors': (
    ['--within', 'P:train,embeddings=G', '--crops', 'on'],
    'crops on needs colour thumbnails.*embeddings=FILE',
  ),
  'checkpoint': (['--within', 'P:train', '--checkpoint', '/no'], '/no'),
  'no file': (
    ['--within', 'P:train,embeddings=no.npy'], "'no.npy': no such file",
  ),
  'rows': (['--within', 'P:train,embeddings=V'], r'\[3, 2\] for 18 records'),
  'pickle': (['--within', 'P:train,embeddings=K'], 'allow_pickle|pickle'),
  'header': (['--within', 'P:train,embeddings=S'], 'header of .* bytes'),
  'nan': (['--within', 'P:train,embeddings=N'], 'row 5 is not finite'),
  'some': (
    ['--train', 'P:train,embeddings=G', '--eval', 'P:val'],
    'has no embeddings=FILE',
  ),
}  # fmt: skip


@pytest.mark.parametrize('name', HOSTILE)
def test_mistakes_are_named(photos, tmp_path, capsys, name):
  argv, message = HOSTILE[name]
  files = {',embeddings=V': 'v.npy', ',embeddings=K': 'k.npy',
           ',embeddings=S': 's.safetensors', ',embeddings=N': 'n.npy',
           ',embeddings=G': 'g.npy'}  # fmt: skip
  good = np.ones((18, 2), np.float32)
  np.save(tmp_path / 'v.npy', good[:3])
  np.save(tmp_path / 'k.npy', np.array([{}] * 18, object))
  np.save(tmp_path / 'g.npy', good)
  good[5, 1] = np.nan
  np.save(tmp_path / 'n.npy', good)
  (tmp_path / 's.safetensors').write_bytes(b'\xff' * 20)
  given = []
  for arg in argv:
    for short, file in files.items():
      arg = arg.replace(short, f',embeddings={tmp_path / file}')
    given.append(arg.replace('P:', f'{photos}:').replace('"P"', '"x"'))
  _run(*given, '--output', tmp_path / 'out', code=2)
  error = capsys.readouterr().err
  assert error.startswith('error: ') and error.count('\n') == 1, error
  assert re.search(message, error), error
