"""SIGTERM: save, leave with the documented code, resume as if nothing was."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from big_vision_like.checkpoints import folders
from big_vision_like.runtime import preemption, writers
from tests.configs.test_configs import ROOT
from tests.conftest import xla_flags

pytestmark = pytest.mark.slow

COMMAND = [
  sys.executable,
  '-m',
  'main',
  '--config=configs/quickstart.py:tiny',
  '--config.log_every_steps=1',
  '--config.ckpt.every_steps=100000',
]


def start(workdir, *extra):
  return subprocess.Popen(
    [*COMMAND, f'--workdir={workdir}', *extra],
    cwd=ROOT,
    env={**os.environ, 'XLA_FLAGS': xla_flags()},
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
  )


def wait_for(process, text, timeout_s=120):
  """Reads lines until one holds `text`; returns those read."""
  seen = []
  deadline = time.monotonic() + timeout_s
  for line in process.stdout:
    seen.append(line)
    if text in line:
      return seen
    assert time.monotonic() < deadline, ''.join(seen)
  raise AssertionError(f'{text!r} never came:\n{"".join(seen)}')


def losses(workdir):
  return {
    m['step']: m['train/loss']
    for m in writers.read_metrics(workdir)
    if 'train/loss' in m
  }


def test_sigterm_saves_and_the_next_run_goes_on(tmp_path):
  long = ['--config.total_steps=4000', '--config.schedule.type=constant']
  long += ['--config.evals.fasteval.every_steps=100000']
  process = start(tmp_path, *long)
  wait_for(process, 'step 5/')
  process.send_signal(signal.SIGTERM)
  rest, _ = process.communicate(timeout=60)
  assert process.returncode == preemption.EXIT_CODE == 143, rest
  assert 'asked to stop: saved step' in rest
  saved = int(folders.find(tmp_path).name)
  assert saved >= 5
  assert max(losses(tmp_path)) == saved
  with start(tmp_path, *long) as again:
    lines = wait_for(again, f'step {saved + 1}/')
    again.kill()
  assert any(f'resuming from step {saved}' in line for line in lines)


def test_sigterm_before_the_first_step_says_that_nothing_is_saved(tmp_path):
  process = start(tmp_path, '--config.total_steps=4000')
  wait_for(process, 'workdir')
  process.send_signal(signal.SIGTERM)
  rest, _ = process.communicate(timeout=120)
  assert process.returncode == 143, rest
  assert 'nothing to save' in rest or 'saved step' in rest


def test_kill_loses_only_what_came_after_the_last_save(tmp_path):
  options = ['--config.total_steps=4000', '--config.ckpt.every_steps=7']
  options += ['--config.evals.fasteval.every_steps=100000']
  process = start(tmp_path, *options)
  wait_for(process, 'step 20/')
  process.send_signal(signal.SIGKILL)
  process.communicate()
  saved = int(folders.find(tmp_path).name)
  assert saved % 7 == 0
  assert saved >= 7
  torn = (tmp_path / 'metrics.jsonl').read_bytes() + b'{"step": 99, "tr'
  (tmp_path / 'metrics.jsonl').write_bytes(torn)
  with start(tmp_path, *options) as again:
    lines = wait_for(again, f'step {saved + 2}/')
    again.kill()
  assert any(f'resuming from step {saved}' in line for line in lines)
  text = (tmp_path / 'metrics.jsonl').read_text().splitlines()
  steps = [json.loads(t)['step'] for t in text if not t.endswith('"tr')]
  assert steps.count(saved + 1) == 2  # the later line counts
