"""What is tried again, how often, and that every reader does so."""

import errno
import gzip
import io
import os
import pathlib
import pickle
import time

import numpy as np
import pytest
from PIL import Image

from input_pipeline import pipeline, waiting
from input_pipeline.files import archives, atomic, image_files, retries
from input_pipeline.labels import text_lines
from input_pipeline.prepared import manifest, preparation, records
from input_pipeline.prepared.recipe import Recipe
from input_pipeline.sources import folder, synthetic
from tests.fixtures import flaky_source
from tests.input_pipeline.files import flaky_files
from tests.input_pipeline.files.archives_made import tar_bytes
from tests.input_pipeline.sources import test_records

WORLD = dict(num_classes=5, num_images=24, image_size=16, split='train')
OPS = [
  dict(op='decode'), dict(op='resize', size=16),
  dict(op='labels', max_labels=9),
]  # fmt: skip


@pytest.fixture(autouse=True)
def quick():
  """Twenty retries without a wait, counted from 0."""
  before = retries.policy()
  retries.use(retries.Policy(20, 0.0))
  yield
  retries.use(before)


class Failing:
  """Raises these errors, one a call, then answers."""

  def __init__(self, *errors):
    self.errors = list(errors)
    self.calls = 0

  def __call__(self):
    self.calls += 1
    if self.errors:
      raise self.errors.pop(0)
    return 'read'


def of(code: int) -> OSError:
  return OSError(code, os.strerror(code), 'place')


@pytest.mark.parametrize(
  'error',
  [
    of(errno.EIO), of(errno.ESTALE), of(errno.ETIMEDOUT), of(errno.ECONNRESET),
    of(errno.EHOSTUNREACH), OSError('the gateway is busy'), TimeoutError(),
    ConnectionResetError('by the peer'),
  ],
  ids=repr,
)  # fmt: skip
def test_what_passes_is_tried_again_and_counted(error):
  read = Failing(error, error, error)
  assert retries.call(read) == 'read'
  assert (read.calls, retries.total()) == (4, 3)


@pytest.mark.parametrize(
  'error',
  [
    of(errno.ENOENT), of(errno.EACCES), of(errno.EPERM), of(errno.EISDIR),
    of(errno.ENOTDIR), of(errno.ENOSPC), of(errno.EMFILE), of(errno.ELOOP),
    FileNotFoundError('no such file'), io.UnsupportedOperation('write'),
    gzip.BadGzipFile('not gzip'), Image.UnidentifiedImageError('none'),
    ValueError('x'), EOFError(),
  ],
  ids=repr,
)  # fmt: skip
def test_what_stays_as_it_is_is_not(error):
  read = Failing(error)
  with pytest.raises(type(error)) as raised:
    retries.call(read)
  assert raised.value is error
  assert (read.calls, retries.total()) == (1, 0)


def test_the_end_is_one_line_and_never_tried_again():
  retries.use(retries.Policy(3, 0.0))
  read = Failing(*[of(errno.EIO)] * 9)
  with pytest.raises(retries.StorageError) as raised:
    retries.call(retries.call, read)
  said = 'place: Input/output error (tried 4 times in 0 s)'
  assert str(raised.value) == said
  assert read.calls == 4
  again = pickle.loads(pickle.dumps(raised.value))  # noqa: S301
  assert type(again) is retries.StorageError and str(again) == said


def test_waits_double_with_some_chance(monkeypatch):
  waits = []
  monkeypatch.setattr(time, 'sleep', waits.append)
  retries.use(retries.Policy(9, 0.5))
  retries.call(Failing(*[of(errno.EIO)] * 9))
  longest = [0.5, 1, 2, 4, 8, 16, 32, 60, 60]
  assert all(w / 2 <= wait <= w for wait, w in zip(waits, longest))
  assert len(waits) == 9


def test_counts_of_workers_are_booked():
  retries.call(Failing(of(errno.EIO), of(errno.EIO)))
  taken = retries.take()
  assert (taken, retries.total(), retries.take()) == (2, 0, 0)
  retries.book(taken)
  retries.call(Failing(of(errno.EIO)))
  assert retries.total() == 3
  retries.use(retries.policy())
  assert retries.total() == 0


def test_a_file_reads_the_same(tmp_path, monkeypatch):
  data = np.random.default_rng(0).bytes(300_000)
  (tmp_path / 'x').write_bytes(data)
  flaky_files.install(monkeypatch, 40)
  for _ in range(20):
    with retries.open_binary(tmp_path / 'x') as file:
      assert file.read(1000) == data[:1000]
      file.seek(-70_000, os.SEEK_END)
      assert file.read() == data[-70_000:]
      file.seek(0)
      assert b''.join(iter(lambda: file.read(7777), b'')) == data
      assert file.tell() == len(data)
  assert retries.total() > 100


def png(number: int) -> bytes:
  out = io.BytesIO()
  Image.new('RGB', (9, 7), (number, 0, 0)).save(out, 'PNG')
  return out.getvalue()


def tar(path: pathlib.Path) -> str:
  content = {f'{i}.png': png(i) for i in range(9)}
  (path / 'x.tar').write_bytes(tar_bytes(content))
  return str(path / 'x.tar')


def packed(path: pathlib.Path) -> str:
  (path / 'x.tar.gz').write_bytes(gzip.compress(tar_bytes({'a': b'1' * 99})))
  return str(path / 'x.tar.gz')


def images(path: pathlib.Path) -> str:
  for i in range(9):
    name = path / 'train' / f'class{i % 3}' / f'{i}.png'
    name.parent.mkdir(parents=True, exist_ok=True)
    name.write_bytes(png(i))
  return str(path)


def names(path: pathlib.Path) -> str:
  text = '\n'.join(f'name {i}' for i in range(50_000))
  (path / 'n.txt.gz').write_bytes(gzip.compress(text.encode()))
  return str(path / 'n.txt.gz')


def all_of(files) -> dict:
  return {name: files.read(name) for name in files.names}


# What it reads, made by -> (reader, opens it each time).
READERS = {
  'records': (test_records.make, lambda p: [
    (e['key'], e['image']) for e in map(test_records.Source(path=p).__getitem__,
                                        range(9))
  ]),
  'manifest': (test_records.make, lambda p: manifest.load(p).splits),
  'folder': (images, lambda p: [e['image'] for e in folder.Source(path=p)]),
  'header': (images, lambda p: image_files.header_size(
    f'{p}/train/class0/0.png')),
  'archive of a folder': (images, lambda p: all_of(archives.open_files(p))),
  'tar': (tar, lambda p: all_of(archives.open_files(p))),
  'compressed tar': (packed, lambda p: all_of(archives.open_files(p))),
  'text': (names, text_lines.read),
}  # fmt: skip


@pytest.mark.parametrize('kind', READERS)
def test_every_reader_reads_the_same(kind, tmp_path, monkeypatch):
  make, read = READERS[kind]
  path = make(tmp_path)
  expected = read(path)
  flaky_files.install(monkeypatch, 40)
  for _ in range(5):
    assert read(path) == expected
  assert retries.total() > 0


@pytest.mark.parametrize('kind', READERS)
def test_every_reader_ends_with_one_line(kind, tmp_path, monkeypatch):
  make, read = READERS[kind]
  path = make(tmp_path)
  flaky_files.install(monkeypatch, 100)
  retries.use(retries.Policy(2, 0.0))
  with pytest.raises(retries.StorageError) as raised:
    read(path)
  said = str(raised.value)
  assert 'Input/output error (tried 3 times in 0 s)' in said
  assert '\n' not in said


def batches(source, num: int, workers: int = 0):
  ops = pipeline.build_ops(OPS, source)
  feed = pipeline.train(source, ops, batch_size=8, seed=3, workers=workers)
  try:
    return [next(feed) for _ in range(num)]
  finally:
    feed.close()


def test_no_record_is_lost_and_the_order_stays():
  expected = batches(synthetic.Source(**WORLD), 6)
  found = batches(flaky_source.Source(world=WORLD, percent=20), 6)
  assert expected[0].keys() == found[0].keys()
  for one, other in zip(expected, found):
    for name in one:
      np.testing.assert_array_equal(one[name], other[name])
    assert one['_mask'].all()
  assert retries.total() > 0


def test_who_waits_is_told_in_one_line():
  retries.use(retries.Policy(2, 0.0))
  source = flaky_source.Source(world=WORLD, broken_from=8)
  ops = pipeline.build_ops(OPS, source)
  feed = pipeline.train(source, ops, batch_size=8, seed=3, threads=1)
  data = waiting.Patient(feed, 60, 'look at it')
  with pytest.raises(waiting.DataError) as raised:
    for step in range(9):
      data.next(f'step {step}')
  said = str(raised.value)
  assert said.startswith('the storage refuses: record ')
  assert said.endswith('(tried 3 times in 0 s) (input.read_retries)')
  data.close()
  feed.close()


def test_an_evaluation_reads_every_record_too():
  source = flaky_source.Source(world=WORLD, percent=20)
  ops = pipeline.build_ops(OPS, source)
  found = list(pipeline.evaluation(source, ops, batch_size=8))
  assert [i for b in found for i in b['_id']] == [*range(24)]
  assert found[0].keys().isdisjoint({'_reason', '_retries'})
  assert retries.total() > 0


def test_a_shard_is_written_anew_and_its_images_counted_once(
  tmp_path, monkeypatch
):
  source = synthetic.Source(**WORLD)
  task = preparation.Task('train', 'x.array_record', np.arange(24))
  ticks = []
  write = lambda: preparation.write(
    str(tmp_path), task, source, Recipe(), lambda: ticks.append(1)
  )
  whole = write()
  content = (tmp_path / task.name).read_bytes()
  assert len(ticks) == 24
  ticks.clear()
  real, failures = records.write_shard, [of(errno.EIO)] * 3

  def failing(path, rows):
    if failures:
      for _ in range(5):
        next(rows)
      raise failures.pop()
    return real(path, rows)

  monkeypatch.setattr(records, 'write_shard', failing)
  assert write() == whole
  assert (tmp_path / task.name).read_bytes() == content
  assert (len(ticks), retries.total()) == (24, 3)


def test_small_files_are_written_anew(tmp_path, monkeypatch):
  real, failures = os.fsync, [of(errno.EIO)] * 2

  def fsync(handle):
    if failures:
      raise failures.pop()
    real(handle)

  monkeypatch.setattr(os, 'fsync', fsync)
  atomic.write_json(tmp_path / 'x.json', {'a': 1})
  assert (tmp_path / 'x.json').read_text() == '{\n "a": 1\n}\n'
  assert [p.name for p in tmp_path.iterdir()] == ['x.json']
  assert retries.total() == 2
