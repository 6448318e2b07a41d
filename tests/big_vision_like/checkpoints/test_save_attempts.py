"""A disk that is full for a while: said, tried again, given up by count."""

import errno
import os

import numpy as np
import orbax.checkpoint as ocp
import pytest

from big_vision_like import train
from big_vision_like.checkpoints import folders, save_attempts
from big_vision_like.checkpoints.save_failures import SaveFailed
from big_vision_like.runtime import writers
from tests import tiny

pytestmark = pytest.mark.usefixtures('programs_kept')

# As tensorstore words it, met on a full tmpfs.
FULL = (
  'RESOURCE_EXHAUSTED: Error writing local file "w/checkpoints/3": Failed to '
  "write 365 bytes to file 4: No space left on device [os_error_code='28']"
)


class Checkpoints:
  """A stand-in whose background saves fail while `error` is set."""

  def __init__(self, folder, error):
    self.folder, self.error = folder, error
    self._met = None
    self._steps = [3]

  def save(self, step, state, meta):
    self.check()
    folder = self.folder / f'{step}.orbax-checkpoint-tmp'
    if self.error:
      folder.mkdir()
      self._met = self.error
    else:
      self._steps.append(step)

  def check(self):
    met, self._met = self._met, None
    if met:
      raise met

  wait = settle = check

  def steps(self):
    return self._steps

  def latest_step(self):
    return self._steps[-1]


def made(tmp_path, error, max_failed=3):
  ckpt = Checkpoints(tmp_path, error)
  return ckpt, save_attempts.SaveAttempts(ckpt, print, max_failed)


@pytest.fixture
def at_once(monkeypatch):
  monkeypatch.setattr(save_attempts, '_FIRST_WAIT_S', 0.0)


@pytest.mark.parametrize(
  'error',
  [
    ValueError(FULL), OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
    TimeoutError('ChainedFuture completed 0/4 futures'),
  ],
)  # fmt: skip
def test_a_full_disk_is_said_and_the_save_is_owed_until_it_works(
  tmp_path, capsys, at_once, error
):
  ckpt, saves = made(tmp_path, error)
  saves.save(4, None, {})
  assert saves.check()
  said = capsys.readouterr().out
  assert 'ALARM: the save of step 4 to ' in said
  slow = 'it took too long: ChainedFuture completed 0/4 futures'
  reason = slow if 'Timeout' in repr(error) else 'No space left on device'
  assert f'failed: {reason} (step 3 stays)' in said
  assert not list(tmp_path.iterdir())  # its remains make room
  ckpt.error = None
  saves.save(6, None, {})
  assert not saves.check()
  assert 'saving works again: step 6' in capsys.readouterr().out
  saves.wait()
  assert saves.figures() == {'failed_saves': 1}


def test_it_is_given_up_after_so_many_in_a_row_in_one_line(tmp_path, at_once):
  _, saves = made(tmp_path, ValueError(FULL))
  for step in (4, 5):
    saves.save(step, None, {})
    assert saves.check()
  saves.save(6, None, {})
  with pytest.raises(SaveFailed, match=r'max_failed_saves=3 in') as raised:
    saves.check()
  assert '\n' not in str(raised.value)


def test_the_waits_double(tmp_path, monkeypatch, capsys):
  now = [0.0]
  monkeypatch.setattr(save_attempts.time, 'monotonic', lambda: now[0])
  _, saves = made(tmp_path, ValueError(FULL), max_failed=9)
  for wait in (10, 20, 40):
    saves.save(int(now[0]) + 4, None, {})
    assert not saves.check()
    now[0] += wait - 1
    assert not saves.check()
    now[0] += 1
    assert saves.check()


def test_the_last_save_must_work(tmp_path, at_once):
  _, saves = made(tmp_path, ValueError(FULL))
  saves.save(4, None, {})
  with pytest.raises(SaveFailed, match='No space left'):
    saves.wait()


def test_a_failure_is_of_its_own_step_and_the_next_save_is_made(
  tmp_path, capsys
):
  """The next one is due before the failure in the background was seen."""
  ckpt, saves = made(tmp_path, ValueError(FULL))
  saves.save(4, None, {})
  ckpt.error = None
  saves.save(8, None, {})
  said = capsys.readouterr().out
  assert 'ALARM: the save of step 4 ' in said
  assert ckpt.steps() == [3, 8]
  assert not saves.check()
  assert 'step 8 is saved' in capsys.readouterr().out
  saves.wait()


def test_what_is_under_way_is_not_waited_for(tmp_path):
  ckpt, saves = made(tmp_path, None)
  saves.save(4, None, {})
  ckpt.settle = lambda: pytest.fail('waits')
  saves.save(4, None, {})
  assert ckpt.steps() == [3, 4]


def test_what_is_tried_again_is_not_begun_anew_at_every_log(tmp_path, at_once):
  ckpt, saves = made(tmp_path, ValueError(FULL))
  saves.save(4, None, {})
  assert saves.check()
  ckpt.error = None
  saves.save(5, None, {})
  ckpt.steps().remove(5)  # slow: not complete yet
  assert not saves.check()
  ckpt.steps().append(5)
  assert not saves.check()
  assert saves.failed == 0


def test_what_is_not_of_the_storage_is_raised(tmp_path):
  _, saves = made(tmp_path, ValueError('another shape'))
  saves.save(4, None, {})
  with pytest.raises(ValueError, match='another shape'):
    saves.check()


def test_lines_of_metrics_wait_for_room(tmp_path):
  """A write that is cut short and one that is refused; nothing is lost."""
  writer = writers.MetricWriter(tmp_path, board=False)

  class Full:
    """A file on a disk with room for so many bytes."""

    def __init__(self, file, room):
      self.file, self.room = file, room

    def write(self, data):
      if not self.room:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
      data = data[: self.room]
      self.room -= len(data)
      return self.file.write(data)

    def close(self):
      self.file.close()

  writer._file = full = Full(writer._file, 20)
  with pytest.warns(UserWarning, match='kept in memory until it can: No space'):
    writer.write(1, {'loss': 2.5})
  writer.write(2, {'loss': 1.5})  # said once
  writer.write(3, {'loss': 1.0})
  full.room = 1000
  writer.write(4, {'loss': 0.5})
  writer.close()
  found = [(m['step'], m['loss']) for m in writers.read_metrics(tmp_path)]
  assert found == [(1, 2.5), (2, 1.5), (3, 1.0), (4, 0.5)]


@pytest.mark.slow
def test_a_run_goes_on_past_a_full_disk(tmp_path, monkeypatch, capsys, at_once):
  real, calls = ocp.CheckpointManager.check_for_errors, []

  def fails_once(self):
    calls.append(1)
    if len(calls) == 4:
      raise ValueError(FULL)
    real(self)

  monkeypatch.setattr(ocp.CheckpointManager, 'check_for_errors', fails_once)
  config = tiny.simple(evals={}, **{'ckpt.every_steps': 2})
  state = train.run(config, str(tmp_path))
  assert int(state.step) == 6 and folders.find(tmp_path).name == '6'
  assert 'ALARM' in capsys.readouterr().out
  last = list(writers.read_metrics(tmp_path))[-1]
  assert last['train/failed_saves'] == 1 and np.isfinite(last['train/loss'])
