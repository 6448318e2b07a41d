"""Hung workers and steps, starving devices, two trainers, failing saves."""

import gzip
import io
import json
import os
import time

import jax
import orbax.checkpoint as ocp
import pytest

from big_vision_like import train
from big_vision_like.runtime import watchdog, workdirs, writers
from big_vision_like.runtime.clock import Clock
from tests import tiny

pytestmark = pytest.mark.usefixtures('programs_kept')


def stalling(**options):
  """A config of the tiny net whose source stalls."""
  source = dict(type='tests.fixtures.stalling_source', split='train', **options)
  config = tiny.simple(evals={}, **{'ckpt.every_steps': 100})
  config.input.source = source
  crop = dict(op='center_crop', size=16)
  label = dict(op='labels', fill_in=False, max_labels=2)
  config.input.ops = [crop, label]
  return config


class Ended(Exception):
  """Stands in for the end of the process."""


@pytest.fixture
def ended(monkeypatch):
  """Phases that the watchdog ended, instead of the process."""
  phases = []
  end = lambda self, phase, limit, remedy: phases.append(phase)
  monkeypatch.setattr(watchdog.Watchdog, '_end', end)
  return phases


def test_a_phase_over_its_limit_is_ended_and_others_are_not(ended):
  with watchdog.Watchdog({'data': (0.2, 'x'), 'step': (60, 'x')}) as dog:
    time.sleep(0.8)  # between phases nothing runs
    with dog.phase('step'):
      time.sleep(0.8)
    with dog.phase('unknown'):
      time.sleep(0.8)
    assert not ended
    with dog.phase('data', 100):
      time.sleep(0.8)
    assert not ended
    with dog.phase('data'):
      time.sleep(1.5)
    assert set(ended) == {'data'}


def test_a_limit_of_zero_is_none(ended):
  with watchdog.Watchdog({'data': (0, 'x')}) as dog, dog.phase('data'):
    time.sleep(0.8)
  assert not ended


def test_a_long_wait_is_announced_once(ended, capsys):
  dog = watchdog.Watchdog({'data': (60, 'x')}, warn_s=0.2)
  dog.at(6)
  with dog, dog.phase('data'):
    time.sleep(1.8)
  said = capsys.readouterr().err
  assert said.count('for the data of step 7') == 1


def test_starving_is_announced_once_after_three_intervals_in_a_row():
  out = io.StringIO()
  starving, console = train._Starving(4), writers.Console(out)
  for share in (0.9, 0.9, 0.1, 0.31, 0.31):
    starving.look(share, console)
  assert not out.getvalue()
  for _ in range(10):
    starving.look(0.5, console)
  assert out.getvalue().count('waits for data 50% of the time') == 1
  assert 'raise input.workers (now 4)' in out.getvalue()


@pytest.mark.slow
def test_a_starving_device_is_announced_with_the_remedy(tmp_path, capsys):
  config = stalling(seconds=0.05)
  config.input.threads = config.input.prefetch = 1
  config.total_steps = 8
  train.run(config, str(tmp_path))
  said = capsys.readouterr().out
  assert said.count('the device waits for data') == 1
  assert 'raise input.workers (now 0)' in said
  shares = [
    m['train/data_wait_share']
    for m in writers.read_metrics(tmp_path)
    if m.get('train/data_wait_share') is not None
  ]
  assert shares
  assert max(shares) > 0.3
  assert all(0 <= share <= 1.01 for share in shares)


def test_a_save_that_failed_in_the_background_stops_the_run(
  tmp_path, monkeypatch
):
  calls = []

  def fails_later(self):
    calls.append(1)
    if len(calls) > 3:
      raise RuntimeError('disk full')

  monkeypatch.setattr(ocp.CheckpointManager, 'check_for_errors', fails_later)
  config = tiny.simple(evals={}, total_steps=50)
  config.ckpt.every_steps = 50
  with pytest.raises(RuntimeError, match='disk full'):
    train.run(config, str(tmp_path))
  steps = [m['step'] for m in writers.read_metrics(tmp_path)]
  assert max(steps) < 5  # at the next interval, not at the next save


class TestLock:
  """One trainer a workdir."""

  def test_the_second_is_refused_by_name_and_the_next_is_not(self, tmp_path):
    with workdirs.locked(tmp_path):
      again = workdirs.locked(tmp_path)
      with pytest.raises(ValueError, match=r'another trainer, pid \d+ on '):
        again.__enter__()
    with workdirs.locked(tmp_path):
      pass

  def test_what_a_dead_trainer_left_is_taken_over(self, tmp_path):
    (tmp_path / workdirs.LOCK).write_text('pid 1 on elsewhere\n')
    with workdirs.locked(tmp_path):
      assert 'elsewhere' not in (tmp_path / workdirs.LOCK).read_text()

  def test_a_full_disk_is_one_line_and_the_lock_is_free_again(
    self, tmp_path, monkeypatch
  ):
    def full(*_):
      raise OSError(28, 'No space left on device')

    with monkeypatch.context() as patch:
      patch.setattr(os, 'pwrite', full)
      with pytest.raises(ValueError) as error:
        workdirs.locked(tmp_path).__enter__()
    assert str(error.value) == (
      f'--workdir={str(tmp_path)!r} cannot be written: No space left on '
      f'device: {tmp_path}'
    )
    with workdirs.locked(tmp_path):
      pass
    (tmp_path / workdirs.LOCK).unlink()
    os.mkfifo(tmp_path / workdirs.LOCK)
    with pytest.raises(ValueError, match='cannot be written'):
      workdirs.locked(tmp_path).__enter__()

  @pytest.mark.slow
  def test_the_program_refuses(self, tmp_path, command_line):
    quick = '--config=configs/quickstart.py:tiny'
    with workdirs.locked(tmp_path):
      result = command_line(quick, f'--workdir={tmp_path}')
    assert result['code'] == 2
    assert 'in use by another trainer' in result['err']
    assert not (tmp_path / 'config.json').exists()


class TestBreakdown:
  """Where the time of a step goes."""

  def test_shares_are_of_the_interval(self):
    now = [0.0]
    clock = Clock(100, 8, 0, now=lambda: now[0])
    clock.spend('data_wait', 1.0)
    clock.spend('data_wait', 1.0)
    clock.spend('dispatch', 0.5)
    now[0] = 8.0
    assert clock.breakdown(4) == {
      'step_s': 2.0,
      'data_wait_s': 0.5,
      'dispatch_s': 0.125,
      'data_wait_share': 0.25,
    }
    clock.read(4)
    now[0] = 10.0
    assert clock.breakdown(5) == {'step_s': 2.0, 'data_wait_share': 0.0}

  def test_a_run_writes_it(self, tmp_path):
    train.run(tiny.simple(evals={}), str(tmp_path))
    last = list(writers.read_metrics(tmp_path))[-1]
    names = ('step_s', 'dispatch_s', 'device_wait_s', 'data_wait_share')
    for name in names:
      assert last[f'train/{name}'] >= 0
    assert last['train/dispatch_s'] <= last['train/step_s']


def test_a_trace_of_the_steps_asked_for(tmp_path, capsys):
  config = tiny.simple(evals={}, **{'profile.steps': (3, 4)})
  train.run(config, str(tmp_path))
  assert 'trace of steps 3 to 4' in capsys.readouterr().out
  (trace,) = (tmp_path / 'profile').rglob('perfetto_trace.json.gz')
  events = json.loads(gzip.decompress(trace.read_bytes()))['traceEvents']
  assert len(events) > 10
  assert list((tmp_path / 'profile').rglob('*.xplane.pb'))
  assert jax.process_count() == 1
