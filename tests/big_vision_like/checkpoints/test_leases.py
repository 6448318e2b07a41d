"""Reading beside a run that saves and deletes."""

import fcntl
import os
import threading

import jax
import numpy as np
import pytest

from big_vision_like.checkpoints import folders, leases, manager, reading
from tests.big_vision_like.checkpoints import small_run


def read(path) -> dict:
  where = jax.sharding.SingleDeviceSharding(jax.devices()[0])
  return reading.read_weights(path, where)[0]


def test_reading_beside_a_run_that_deletes(tmp_path):
  """20 of 20, of a run that keeps one checkpoint and saves without pause."""
  stop, begun = threading.Event(), threading.Event()

  def save_and_delete():
    ckpt = manager.Checkpointer(str(tmp_path), keep_last=1)
    step = 0
    while not stop.is_set():
      step += 1
      ckpt.save(step, small_run.state(step), {**small_run.META, 'step': step})
      ckpt.wait()
      begun.set()
    ckpt.close()

  thread = threading.Thread(target=save_and_delete)
  thread.start()
  begun.wait()
  steps = []
  try:
    for _ in range(20):
      with folders.hold(tmp_path) as held:
        steps.append(int(held.path.name))
        assert reading.read_meta(held.path)['step'] == steps[-1]
        weights = read(held.path)
        newer = {int(p.name) for p in folders.by_step(held.path.parent)}
        while max(newer) < steps[-1] + 2:  # two saves later it is still there
          newer = {int(p.name) for p in folders.by_step(held.path.parent)}
        again = read(held.path)
      jax.tree.map(np.testing.assert_array_equal, weights, again)
  finally:
    stop.set()
    thread.join()
  assert steps == sorted(steps)
  assert len(set(steps)) == 20


def test_what_is_held_stays_until_it_is_not(tmp_path):
  root = small_run.save(tmp_path, 1)
  lease = leases.take(root / '1')
  other = leases.take(root / '1')
  assert not leases.delete(root / '1')
  assert lease is not None
  lease.close()
  assert not leases.delete(root / '1')
  del other  # as when a model is forgotten
  assert leases.delete(root / '1')
  assert list(root.iterdir()) == []
  assert leases.take(root / '1') is None


def test_what_is_being_deleted_is_not_found(tmp_path):
  root = small_run.save(tmp_path, 1, 2)
  file = os.open(root / '2' / 'manifest.json', os.O_RDWR)
  fcntl.flock(file, fcntl.LOCK_EX)
  assert leases.take(root / '2') is None
  (root / '2').rename(root / '2.deleted')
  assert folders.find(tmp_path).name == '1'
  os.close(file)
  leases.delete_remains(root)
  assert [p.name for p in root.iterdir()] == ['1']


def test_the_one_that_was_asked_for_is_gone(tmp_path):
  root = small_run.save(tmp_path, 1)
  leases.delete(root / '1')
  with pytest.raises(FileNotFoundError, match='no checkpoint there'):
    folders.hold(root / '1')


def test_a_file_system_without_locks(tmp_path, monkeypatch):
  def none(*_):
    raise OSError(95, 'Operation not supported')

  root = small_run.save(tmp_path, 1)
  monkeypatch.setattr(fcntl, 'flock', none)
  lease = leases.take(root / '1')
  assert lease is not None
  assert leases.delete(root / '1')
