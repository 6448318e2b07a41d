"""Signals, workers and terminals lost: saved, a known code, nothing left over.

Real processes, each forked from one that has all imported.
"""

import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time

import pytest

from big_vision_like.checkpoints import folders
from big_vision_like.runtime import logs, preemption, writers
from input_pipeline import workers
from tests import tiny
from tests.configs.test_configs import ROOT

pytestmark = pytest.mark.slow


_FAILING = """
import sys
from multiprocessing import shared_memory
from big_vision_like import program
from big_vision_like.runtime import distributed
from input_pipeline import workers
workers.own(sys.argv[1])
name = workers.owner() + 'batch'
kept = shared_memory.SharedMemory(name=name, create=True, size=100)
program._refuse(ValueError('x=1 must be 2'))
"""


def test_an_error_leaves_no_warning_of_shared_memory(tmp_path):
  command = [sys.executable, '-c', _FAILING, str(tmp_path)]
  done = subprocess.run(
    command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
  )
  assert (done.returncode, done.stderr) == (2, 'error: x=1 must be 2\n')


class Runs:
  """Runs of one config in one workdir."""

  def __init__(self, trainers, folder):
    self.trainers, self.folder = trainers, folder
    self.workdir = folder / 'w'
    self.config = tiny.simple(
      evals={}, total_steps=100_000, **{'ckpt.every_steps': 100_000}
    )

  def stalls(self, first, **options):
    """The source sleeps for an hour before this record read and all later."""
    self.config.input.source = stalling(first)
    crop = dict(op='center_crop', size=16)
    self.config.input.ops = [crop, dict(op='labels', max_labels=2)]
    self.config.input.threads = self.config.input.prefetch = 1
    for name, value in options.items():
      self.config.input[name] = value

  def start(self, *args, inject=(), **options):
    path = self.folder / 'config.json'
    path.write_text(self.config.to_json())
    given = [f'--config={path}', '--trust', f'--workdir={self.workdir}', *args]
    inject = [('no_plot',), *inject]
    return self.trainers.start(
      given, self.folder / 'out', inject=inject, **options
    )

  def saved(self):
    return int(folders.find(self.workdir).name)

  def last_step(self):
    return max(m['step'] for m in writers.read_metrics(self.workdir))


def stalling(first):
  return dict(
    type='tests.fixtures.stalling_source', split='train', stall_from=first
  )


@pytest.fixture
def runs(trainers, tmp_path):
  return Runs(trainers, tmp_path)


def test_sigterm_to_the_group_twice_saves_and_ends_the_workers(runs):
  runs.config.input.workers = 2
  run = runs.start()
  run.wait_for('step 3/')
  assert len(run.workers()) == 2
  run.send_group(signal.SIGTERM)
  time.sleep(0.02)
  run.send_group(signal.SIGTERM)
  assert run.wait(30) == preemption.EXIT_CODE == 143, run.output()
  assert run.output().endswith(f'asked to stop: saved step {runs.saved()}\n')
  assert runs.saved() == runs.last_step()
  assert not run.group()
  again = runs.start()
  again.wait_for(f'step {runs.saved() + 1}/')
  assert f'resuming from step {runs.saved()}' in again.output()
  again.end()


@pytest.mark.parametrize('done', [3, 0])
def test_sigterm_while_the_data_stall(done, runs):
  runs.stalls(8 * done)
  run = runs.start()
  run.wait_for(f'step {done - 1}/' if done else 'workdir')
  time.sleep(1)
  begun = time.monotonic()
  run.send(signal.SIGTERM)
  code = run.wait(30)
  assert time.monotonic() - begun < 15
  if done:
    assert (code, runs.saved()) == (143, done), run.output()
    assert runs.last_step() == done
  else:
    assert code == preemption.NOTHING_SAVED == 75, run.output()
    assert 'nothing to save' in run.output()


def test_sigterm_inside_a_compilation_that_hears_nothing(runs):
  run = runs.start(inject=[('deaf_step',)])
  run.wait_for('compiling')
  time.sleep(0.5)
  begun = time.monotonic()
  run.send(signal.SIGTERM)
  assert run.wait(30) == 75, run.output()
  assert 5 <= time.monotonic() - begun < 15
  assert run.output().splitlines()[-1] == (
    'asked to stop before the first step was done: nothing to save'
  )
  assert not run.group()


def test_sigterm_in_an_evaluation_of_its_own(runs):
  runs.config.total_steps = 1
  runs.config.evals = tiny.config().evals
  assert runs.start().wait() == 0
  told = runs.folder / 'told.jsonl'
  slow = [('slow_evaluations', str(told), 60.0)]
  run = runs.start('--mode=eval', inject=slow)
  run.wait_for('evaluating ')
  while not told.exists():
    assert run.poll() is None, run.output()
    time.sleep(0.02)
  begun = time.monotonic()
  run.send(signal.SIGTERM)
  assert run.wait(30) == 75, run.output()
  assert time.monotonic() - begun < 15
  assert run.output().splitlines()[-1] == (
    'asked to stop before the evaluation was done: nothing to save'
  )
  assert not (runs.workdir / 'eval.jsonl').read_text()
  assert runs.saved() == 1


GUARDED = """
import sys, time
from big_vision_like.runtime import preemption
with preemption.Guard() as guard:
  guard.saved = bool(int(sys.argv[1]))
  print('ready', flush=True)
  time.sleep(60 if len(sys.argv) < 3 else 0)
  while True:
    time.sleep(0.01)
"""


class _Dying:
  """A signal comes while Python runs what hears no exceptions."""

  def __del__(self):
    signal.raise_signal(signal.SIGTERM)


def test_a_signal_that_nobody_can_hear_is_not_lost(capsys):
  before = sys.unraisablehook
  with preemption.Guard() as guard:
    with guard.interruptible():
      guard.stop_here()
      last = [_Dying()]
      last.clear()
      with pytest.raises(preemption.Preempted, match='75'):
        guard.stop_here()
    assert guard.must_stop()
  assert sys.unraisablehook == before
  assert capsys.readouterr().err == ''


def test_a_later_second_signal_ends_the_process_with_what_is_saved():
  started = [
    subprocess.Popen(
      [sys.executable, '-c', GUARDED, str(saved)],
      cwd=ROOT,
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
    )
    for saved in (0, 1)
  ]
  for process in started:
    assert process.stdout.readline() == 'ready\n'
  for delay in (0, 0.001, 0.05, 1):
    time.sleep(delay)
    for process in started:
      process.send_signal(signal.SIGTERM)
  time.sleep(2)
  for process, code in zip(started, (75, 143)):
    assert process.poll() is None  # all of these were one
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=10)
    assert process.returncode == code, said
    assert said.startswith('asked to stop again: ')
    assert ('not saved' in said) == (code == 75)


def entries():
  folder = workers.SHARED_MEMORY
  return {p.name for p in folder.glob('*bvl-*')} if folder.exists() else set()


def test_workers_end_with_a_killed_trainer_and_leave_nothing(runs):
  runs.config.input.workers = 2
  runs.config.ckpt.every_steps = 5
  before = entries()
  run = runs.start()
  run.wait_for('step 12/')
  pids = run.workers()
  run.send(signal.SIGKILL)
  assert run.wait() == -signal.SIGKILL
  deadline = time.monotonic() + 5
  while any(pathlib.Path(f'/proc/{pid}').exists() for pid in pids):
    assert time.monotonic() < deadline
    time.sleep(0.05)
  saved = runs.saved()
  assert saved in (5, 10)
  # Together with all that could have cleared up, on top of a torn line.
  metrics = runs.workdir / 'metrics.jsonl'
  metrics.write_bytes(metrics.read_bytes() + b'{"step": 99, "tr')
  run = runs.start()
  run.wait_for(f'step {saved + 3}/')
  run.send_group(signal.SIGKILL)
  run.wait()
  assert entries() - before
  run = runs.start()
  run.wait_for('resuming from step')
  run.wait_for('compiling')
  run.send(signal.SIGTERM)
  run.wait()
  assert entries() <= before
  lines = metrics.read_text().splitlines()
  steps = [json.loads(t)['step'] for t in lines if not t.endswith('"tr')]
  assert steps.count(saved + 1) == 2  # the later line counts


def test_only_what_is_its_own_is_removed(tmp_path):
  try:
    workers.own('mine', tmp_path)
    mine = workers._owner
    names = [f'{mine}12', f'sem.{mine}34', 'bvl-other-1', 'psm_1', 'sem.mp-x']
    for name in names:
      (tmp_path / name).write_text('')
    assert workers.own('mine', tmp_path) == sorted(names[:2])
    assert sorted(os.listdir(tmp_path)) == sorted(names[2:])
    workers.own('another', tmp_path)
    assert workers._owner != mine
  finally:
    workers.disown()


@pytest.mark.parametrize('number', [signal.SIGKILL, signal.SIGSTOP])
def test_a_worker_killed_or_hung_costs_one_line(number, runs):
  runs.config.input.workers = 2
  if number == signal.SIGSTOP:
    # Also of the first batch, which workers on a busy machine take long for.
    runs.config.input.timeout_s = 15.0
  run = runs.start()
  run.wait_for('step 4/')
  worker = run.workers()[0]
  os.kill(worker, number)
  assert run.wait(30) == 1
  *_, last = run.output().splitlines()
  assert len(re.findall('Traceback|Warning', run.output())) == 0
  if number == signal.SIGKILL:
    assert f'a data worker has died (pid {worker} by SIGKILL)' in last
  else:
    assert 'takes longer than 15 s; a data worker hangs' in last
    assert 'Thread 0x' in (runs.workdir / 'stacks.txt').read_text()
  assert last.endswith(f'saved step {runs.saved()}')
  assert runs.saved() == runs.last_step()
  assert not run.group()


@pytest.mark.parametrize('stdout', ['broken', 'closed'])
def test_without_a_reader_the_run_goes_on_and_is_logged(stdout, runs):
  runs.config.total_steps = 5
  run = runs.start(stdout=stdout)
  assert run.wait() == 0
  text = (runs.workdir / logs.FILE).read_text()
  assert re.search(r'(?m)^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d  step 5/5  loss', text)
  assert 'metrics      ' in text
  assert runs.saved() == 5


def test_sighup_is_as_sigterm(runs):
  run = runs.start()
  run.wait_for('step 2/')
  run.send(signal.SIGHUP)
  assert run.wait() == 143, run.output()
  assert runs.saved() == runs.last_step()
  last = (runs.workdir / logs.FILE).read_text().splitlines()[-1]
  assert last.endswith(f'asked to stop: saved step {runs.saved()}')


def test_an_evaluation_whose_source_stalls_is_named(runs):
  runs.stalls(10_000)
  runs.config.total_steps = 3
  runs.config.evals.slow = dict(
    type='classification',
    data=stalling(10_000),
    ops=[dict(op='center_crop', size=16), dict(op='single_label')],
    batch_size=20,
  )
  runs.config.task.type = 'softmax'
  runs.config.input.ops = [
    dict(op='center_crop', size=16),
    dict(op='single_label'),
  ]
  assert runs.start().wait() == 0
  runs.config.input.timeout_s = 2.0
  runs.config.total_steps = 4
  runs.config.evals.slow.data = stalling(30)
  accepted = '--config.resume.accept_config_change=True'
  for arg in (accepted, '--mode=eval'):
    run = runs.start(arg)
    assert run.wait(30) == 1, run.output()
    last = run.output().splitlines()[-1]
    assert 'the next batch of evals.slow takes longer than 2 s' in last
  assert runs.saved() == 4
