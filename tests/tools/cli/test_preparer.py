"""The shared command line: a source with all there is, here and on Beam."""

import argparse
import hashlib
import json
import os
import signal
import sys

import numpy as np
import pytest

import input_pipeline
from input_pipeline.examples.errors import BadExample
from input_pipeline.labels.hierarchy import Hierarchy
from input_pipeline.labels.vocabulary import Vocabulary
from input_pipeline.prepared import manifest as manifests
from input_pipeline.prepared import progress
from input_pipeline.sources.records import Source
from tools import prepare_images
from tools.cli import preparer

NUM = 24
NAMES = ('pet', 'cat', 'dog')


def main_process() -> int:
  return int(os.environ['TEST_PREPARER_PID'])


class Everything:
  """Images with every field of a record; number 5 cannot be read."""

  vocabulary = Vocabulary(NAMES)
  hierarchy = Hierarchy.from_edges(NAMES, [('cat', 'pet'), ('dog', 'pet')])

  def __init__(self, edges=None, failing: str | None = None):
    self.hierarchy_edges = edges
    self._failing = failing

  def __len__(self) -> int:
    return NUM

  def key(self, index: int) -> str:
    return f'image {index}'

  def fingerprint(self) -> str:
    return 'everything'

  def report_lines(self) -> list[str]:
    return ['rows of unknown images skipped: 12']

  def __getitem__(self, index: int) -> dict:
    if index == 5:
      raise BadExample('torn')
    if index == 7 and self._failing == 'die' and os.getpid() != main_process():
      os.kill(os.getpid(), signal.SIGKILL)
    if index == 7 and self._failing not in (None, 'die'):
      raise ValueError(self._failing)
    rng = np.random.default_rng(index)
    return {
      'image': rng.integers(0, 256, (40, 20, 3), dtype=np.uint8),
      'labels': np.array([1, 2] if index % 2 else [0], np.int32),
      'label_conf': np.array([0.5, 1] if index % 2 else [0.25], np.float32),
      'negatives': np.array([] if index % 2 else [2], np.int32),
      'boxes': np.array([[4, 2, 40, 20]], np.float32),
      'box_labels': np.array([index % 3], np.int32),
    }


def add_arguments(parser: argparse.ArgumentParser) -> None:
  parser.add_argument('--failing')
  parser.add_argument('--edges', action='store_true')


def open_sources(args: argparse.Namespace) -> dict:
  edges = [('cat', 'pet'), ('dog', 'animal')] if args.edges else None
  return {'train': Everything(edges, args.failing)}


def run(out, *args) -> int:
  return preparer.main(
    ['--output', str(out), '--max_bad_fraction', '0.1', *map(str, args)],
    prog='test', description='Test.', add_arguments=add_arguments,
    open_sources=open_sources,
  )  # fmt: skip


def digests(folder) -> dict[str, str]:
  return {
    name: hashlib.sha256((folder / name).read_bytes()).hexdigest()
    for name in sorted(os.listdir(folder))
  }


ARGS = ('--workers', 1, '--long_side', 20, '--num_shards', 6)


@pytest.fixture(scope='module')
def prepared(tmp_path_factory):
  out = tmp_path_factory.mktemp('prepared') / 'out'
  assert run(out, *ARGS) == 0
  return out


def test_every_field_ends_up_in_the_records(prepared):
  source, given = Source(path=str(prepared)), Everything()
  assert len(source) == NUM - 1
  found = {source[i]['key']: source[i] for i in range(len(source))}
  assert found.keys() == {given.key(i) for i in range(NUM) if i != 5}
  for index in range(NUM):
    if index == 5:
      continue
    example, one = given[index], found[given.key(index)]
    for name in ('labels', 'label_conf', 'negatives', 'box_labels'):
      np.testing.assert_array_equal(one[name], example[name])
    assert one['boxes'].tolist() == [[2, 1, 20, 10]]
    assert one['original_size'].tolist() == [40, 20]


def test_notes_and_hierarchy_are_kept(prepared, tmp_path, capsys):
  out = tmp_path / 'out'
  assert run(out, '--workers', 1, '--edges') == 0
  text = capsys.readouterr().out
  assert 'train: 23 images, 34 labels' in text and '1 bad' in text
  assert '  rows of unknown images skipped: 12' in text
  manifest = manifests.load(str(out))
  assert manifest.notes == {'train': ('rows of unknown images skipped: 12',)}
  assert (out / 'hierarchy.tsv').read_text().splitlines() == [
    'child\tparent', 'cat\tpet', 'dog\tanimal',
  ]  # fmt: skip
  closed = Source(path=str(out)).hierarchy
  assert closed is not None and closed.close(np.int32([1])).tolist() == [0, 1]
  # Without edges or a file the source's closed hierarchy is written.
  assert (prepared / 'hierarchy.tsv').read_text().splitlines() == [
    'child\tparent', 'cat\tpet', 'dog\tpet',
  ]  # fmt: skip
  counts = Source(path=str(prepared)).vocabulary.counts
  assert counts is not None and counts.tolist() == [12, 11, 11]


def test_order_and_label_index(prepared):
  source = Source(path=str(prepared))
  assert source.in_hash_order

  def hashed(key: str) -> int:
    data = f'0\n{key}'.encode()
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest())

  keys = [source[i]['key'] for i in range(len(source))]
  assert keys == sorted(keys, key=hashed)
  index = source.label_index()
  assert index is not None
  ends, labels = index
  rows = np.split(labels, ends[:-1])
  for i, row in enumerate(rows):
    assert row.tolist() == source[i]['labels'].tolist()
    assert source.labels(i).tolist() == row.tolist()
  with pytest.raises(IndexError):
    source.labels(-1)
  shard = prepared / source.key(0).partition(':')[0]
  whole = shard.read_bytes()
  shard.write_bytes(whole[:5000] + bytes(len(whole) - 5000))
  try:
    again = Source(path=str(prepared))  # the heads are right
    assert [again.labels(i).tolist() for i in range(23)] == [
      row.tolist() for row in rows
    ]
  finally:
    shard.write_bytes(whole)


def test_a_damaged_index_is_named(prepared, capsys):
  path = prepared / 'train.labels.npy'
  whole = path.read_bytes()
  try:
    path.write_bytes(whole[:-4] + b'\1\0\0\0')
    with pytest.raises(
      ValueError, match=r'train\.labels\.npy: another content'
    ):
      Source(path=str(prepared))
    assert run(prepared, '--verify') == 1
    assert 'train.labels.npy: another content' in capsys.readouterr().out
  finally:
    path.write_bytes(whole)
  assert run(prepared, '--verify') == 0


def test_manifests_of_version_1_are_read(prepared):
  path = prepared / manifests.FILE_NAME
  whole = path.read_text()
  content = json.loads(whole)
  del content['label_index'], content['notes'], content['options']['order']
  try:
    path.write_text(json.dumps(content | {'version': 1}))
    source = Source(path=str(prepared))
    assert source.label_index() is None and not source.in_hash_order
    assert source.labels(3).tolist() == source[3]['labels'].tolist()
  finally:
    path.write_text(whole)


@pytest.mark.parametrize(
  'workers', [1, pytest.param(2, marks=pytest.mark.slow)]
)
def test_beam_writes_the_same_bytes(prepared, tmp_path, workers, capfd):
  out = tmp_path / 'out'
  assert run(out, *ARGS, '--beam', '--workers', workers) == 0
  assert digests(out) == digests(prepared)
  text = capfd.readouterr().err
  assert 'WARNING' not in text and 'INFO' not in text and 'beam' not in text


def test_beam_goes_on_from_the_notes_of_a_killed_run(prepared, tmp_path):
  """What a kill of the main process leaves: shards, notes, and a torn note."""
  out = tmp_path / 'out'
  assert run(out, *ARGS, '--max_bad_fraction', 0) == 1  # stops at number 5
  lines = (out / progress.FILE_NAME).read_text().splitlines()
  kept = [progress.Done.from_json(line) for line in lines[1:]]
  assert 1 <= len(kept) < 6
  (out / progress.NOTES_FOLDER).mkdir()
  for one in kept:
    progress.leave_note(str(out), one.shard.name, one)
  progress.leave_note(str(out), 'other', ValueError('of the run before'))
  torn = out / progress.NOTES_FOLDER / f'x.json.1{progress.TEMPORARY}'
  torn.write_text('{"sp')
  (out / progress.FILE_NAME).write_text(f'{lines[0]}\n')
  before = (out / kept[0].shard.name).stat().st_mtime_ns
  assert run(out, *ARGS, '--beam') == 0
  assert (out / kept[0].shard.name).stat().st_mtime_ns == before
  assert digests(out) == digests(prepared)


def test_mistakes_in_the_data_end_beam_too(tmp_path, capsys):
  for args in ((), ('--beam',)):
    assert run(tmp_path / 'out', *ARGS, '--failing', 'line 3: odd', *args) == 2
    assert 'error: line 3: odd' in capsys.readouterr().err
    args = (*ARGS, '--max_bad_fraction', 0, *args)
    assert run(tmp_path / 'out', *args) == 1
    assert 'image 5: torn' in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize('how', [(), ('--beam',)])
def test_a_dead_worker_is_noticed(prepared, tmp_path, how, monkeypatch, capfd):
  monkeypatch.setenv('TEST_PREPARER_PID', str(os.getpid()))
  out = tmp_path / 'out'
  two = (*ARGS, '--workers', 2, *how)
  assert run(out, *two, '--failing', 'die') == 1
  text = capfd.readouterr().err
  assert 'error: a worker process died' in text and 'Traceback' not in text
  assert not (out / manifests.FILE_NAME).exists()
  assert run(out, *ARGS) == 0
  assert digests(out) == digests(prepared)


def test_ids_without_a_name_are_refused(tmp_path, monkeypatch, capsys):
  monkeypatch.setattr(Everything, 'vocabulary', Vocabulary(NAMES[:2]))
  monkeypatch.setattr(Everything, 'hierarchy', None)
  assert run(tmp_path / 'out', *ARGS) == 2
  text = capsys.readouterr().err
  assert 'id 2 is outside the vocabulary of 2 names' in text


def test_progress_of_another_version_is_refused(tmp_path, capsys):
  out = tmp_path / 'out'
  assert run(out, *ARGS, '--max_bad_fraction', 0) == 1
  path = out / progress.FILE_NAME
  path.write_text(path.read_text().replace('num_labels', 'label_counts'))
  assert run(out, *ARGS) == 2
  assert 'begin anew in an empty folder' in capsys.readouterr().err


def test_beam_is_asked_for_by_name(tmp_path, monkeypatch, capsys):
  monkeypatch.setitem(sys.modules, 'apache_beam', None)
  monkeypatch.delitem(
    sys.modules, 'input_pipeline.prepared.beam_runner', raising=False
  )
  monkeypatch.delattr(input_pipeline.prepared, 'beam_runner', raising=False)
  assert run(tmp_path / 'out', '--beam') == 2
  assert 'pip install -r requirements-beam.txt' in capsys.readouterr().err
  assert run(tmp_path / 'out', *ARGS) == 0


@pytest.mark.parametrize(
  'args,message',
  [
    (['--runner', 'X'], '--runner is an option of --beam'),
    (['--beam_options=--x'], '--beam_options is an option of --beam'),
    (['--beam', '--beam_options=--projet=x'], "no option '--projet' (did you"),
    (['--beam', '--beam_options=--direct_num_workers=x'], 'invalid int value'),
    (['--resize', 5, '--long_side', 6], 'resize=5 and long_side=6: give one'),
    (['--long_side', 0], 'long_side must be at least 1'),
  ],
)
def test_mistakes_are_named(tmp_path, capsys, args, message):
  assert run(tmp_path / 'out', *args) == 2
  assert message in capsys.readouterr().err


def images(*args) -> int:
  return prepare_images.main([*map(str, args), '--workers', '1'])


def test_any_source_is_prepared_and_prepared_again(tmp_path, capsys):
  a, b = tmp_path / 'a', tmp_path / 'b'
  options = ('--option', 'num_images=12', '--option', 'confidences=true')
  made = ('--type', 'synthetic', *options, '--splits', 'train')
  assert images(*made, '--output', a) == 0
  first = Source(path=str(a))
  assert len(first) == 12 and 'label_conf' in first[0]
  args = ('--input', a, '--splits', 'train', '--limit', 5, '--resize', 16)
  assert images(*args, '--output', b) == 0
  second = Source(path=str(b))
  assert [second[i]['key'] for i in range(5)] == [
    first[i]['key']
    for i in range(5)  # the order stays: a random part
  ]
  assert second.hierarchy is not None and first.hierarchy is not None
  np.testing.assert_array_equal(
    second.hierarchy.ancestors.values, first.hierarchy.ancestors.values
  )


@pytest.mark.parametrize(
  'args,message',
  [
    (['--type', 'synthetc'], "unknown source 'synthetc' (did you mean"),
    (['--type', 'synthetic', '--option', 'x=1'], "unknown option 'x'"),
    (['--type', 'synthetic', '--option', 'x'], 'is not of the form NAME=VALUE'),
    (
      ['--type', 'synthetic', '--option', 'num_images=many'],
      "--type synthetic: num_images='many' must be int in [1, 2**40] or None",
    ),
    (['--type', 'folder', '--option', 'path=x'], 'say it by --input'),
    (['--type', 'folder'], "--input is missing: source type 'folder' reads"),
    (['--input', __file__], 'neither a folder nor a .csv'),
  ],
)
def test_mistakes_of_prepare_images_are_named(tmp_path, capsys, args, message):
  assert images(*args, '--output', tmp_path / 'out') == 2
  assert message in capsys.readouterr().err
