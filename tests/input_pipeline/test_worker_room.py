"""worker_room.py: shared memory and open files that data workers take."""

import os
import pathlib
import subprocess
import sys
import types

import numpy as np
import pytest

from configs import quickstart
from input_pipeline import pipeline, worker_room
from tests.conftest import ROOT

MIB = 2**20


def shared_memory_of(monkeypatch, num_bytes):
  """A machine that has so much of it, in 4 KiB blocks."""
  found = types.SimpleNamespace(f_bavail=num_bytes // 4096, f_frsize=4096)
  monkeypatch.setattr(os, 'statvfs', lambda folder: found)


def training(batch_size=16, **options):
  config = quickstart.get_config('tiny')
  source = pipeline.open_train(config)
  ops = pipeline.build_ops(config.input.ops, source)
  return pipeline.train(source, ops, batch_size=batch_size, seed=0, **options)


def test_what_batches_take_is_that_of_all_that_may_live_at_once():
  row = {'image': np.zeros((10, 100), np.uint8), 'x': np.zeros(6, np.float32)}
  small = {'image': np.zeros((10, 10), np.uint8), 'x': np.zeros(6, np.float32)}
  found = worker_room.need([small, row], 8, workers=3, prefetch=4)
  assert found.batch_bytes == 8 * (1000 + 24)
  assert found.batches >= 3 * (4 + 1)  # queues and one in the making
  assert found.bytes == found.batches * found.batch_bytes


def test_small_shared_memory_is_refused_with_the_remedies(monkeypatch):
  """64 MiB is what Docker gives."""
  shared_memory_of(monkeypatch, 64 * MIB)
  need = worker_room.Need(4, 4, arrays=5, batch_bytes=5 * MIB)
  with pytest.raises(ValueError, match=r'4 data workers .* of 5 MiB') as found:
    worker_room.check(need, pathlib.Path('/dev/shm'))
  for part in ('/dev/shm has 64 MiB', '--shm-size=1g', 'input.workers=0'):
    assert part in str(found.value)


def test_training_is_refused_before_a_worker_starts(monkeypatch):
  shared_memory_of(monkeypatch, 200_000)
  with pytest.raises(ValueError, match='2 data workers'):
    training(workers=2)
  batches = training(workers=0)  # takes none
  next(batches)
  batches.close()


def test_pipelines_beside_each_other_count_until_they_are_closed(monkeypatch):
  first = training(workers=1, prefetch=1)
  (held,) = worker_room._claims.values()
  shared_memory_of(monkeypatch, held.bytes * 3 // 2)
  with pytest.raises(ValueError, match='with those beside them'):
    training(workers=1, prefetch=1)
  first.close()
  training(workers=1, prefetch=1).close()


def test_a_machine_without_the_folder_is_not_refused(tmp_path):
  need = worker_room.Need(1, 1, arrays=1, batch_bytes=2**50)
  worker_room.check(need, tmp_path / 'absent')


def limited(soft, hard, call):
  """What Python prints under limits of open files."""
  code = (
    f'import resource as r; r.setrlimit(r.RLIMIT_NOFILE, ({soft}, {hard}))\n'
    'from input_pipeline import worker_room as w\n'
    f'try: {call}\n'
    'except ValueError as error: print(error)\n'
    'print(r.getrlimit(r.RLIMIT_NOFILE)[0])'
  )
  done = subprocess.run(
    [sys.executable, '-c', code],
    cwd=ROOT, capture_output=True, text=True, check=True,
  )  # fmt: skip
  return done.stdout


def test_the_soft_limit_of_open_files_is_raised_as_far_as_needed():
  need = 'w.check(w.Need(4, 4, 8, 1))'
  files = worker_room.Need(4, 4, 8, 1).files
  raised = int(limited(100, 4000, need))
  assert files < raised < 2 * files
  assert limited(3000, 4000, need) == '3000\n'


def test_a_hard_limit_below_is_refused_with_the_remedies():
  said = limited(100, 300, 'w.check(w.Need(4, 4, 8, 1))')
  assert 'may have 300' in said
  assert 'ulimit -n' in said
  assert 'input.workers=0' in said
  assert 'open files' in limited(40, 40, 'w.raise_file_limit()')


def test_the_program_says_it_in_one_line(tmp_path):
  """As in a container whose limit is 64."""
  done = subprocess.run(
    [
      'sh', '-c',
      f'ulimit -n 64; exec {sys.executable} -m main '
      f'--config configs/quickstart.py:tiny --workdir {tmp_path}',
    ],
    cwd=ROOT, capture_output=True, text=True,
  )  # fmt: skip
  assert done.returncode == 2
  assert done.stderr.startswith('error: a run: 128 open files')
  assert done.stderr.count('\n') == 1
