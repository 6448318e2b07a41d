"""The study tool end to end, on a main of milliseconds."""

import contextlib
import csv
import json
import os
import pty
import signal
import subprocess
import sys
import time

import pytest

from big_vision_like.config import loading
from tests.conftest import ROOT
from tests.tools.studies import studies_on_disk
from tools import study
from tools.studies import config_checks, plan, progress, runner


@pytest.fixture(autouse=True)
def fake_main(monkeypatch):
  monkeypatch.setattr(runner, 'PROGRAM', studies_on_disk.PROGRAM)
  # Configs of its own, which no real main would take.
  monkeypatch.setattr(config_checks, 'check', lambda jobs: None)


def call(config, folder, *more):
  return study.main(
    ['--config', config, '--workdir', str(folder / 'out'), *more]
  )


def attempts(folder):
  """{'run/seed': times started}."""
  found = (folder / 'out' / 'runs').glob('*/*/attempts')
  return {
    f'{p.parent.parent.name}/{p.parent.name[4:]}': len(p.read_text())
    for p in found
  }


def rows(folder, name='results.csv'):
  with (folder / 'out' / name).open(newline='') as file:
    return list(csv.DictReader(file))


CHAIN = [
  dict(name='tuned', start_from='pre'),  # listed before what it starts from
  dict(name='pre', seeds=[0]),
  dict(name='scratch'),
]
TABLE = dict(
  name='main',
  rows=['scratch', 'tuned'],
  columns=['val/top1'],
  baseline='scratch',
)


class TestRunning:
  """Order, records and repeated commands."""

  def test_parents_first_and_every_figure_in_the_csv(self, tmp_path, capsys):
    config = studies_on_disk.write(
      tmp_path, runs=CHAIN, seeds=[0, 2], tables=[TABLE]
    )
    assert call(config, tmp_path) == 0
    got = {(r['run'], r['seed']): float(r['val/top1']) for r in rows(tmp_path)}
    # 10 + seed; the tuned ones stand on the only seed of 'pre'.
    assert got == {
      ('pre', '0'): 10, ('scratch', '0'): 10, ('scratch', '2'): 12,
      ('tuned', '0'): 110, ('tuned', '2'): 110,
    }  # fmt: skip
    said = capsys.readouterr().out
    lines = [line for line in said.splitlines() if ': finished in' in line]
    assert [line.split('] ')[1].split(':')[0] for line in lines] == [
      'pre seed 0', 'tuned seed 0', 'tuned seed 2', 'scratch seed 0',
      'scratch seed 2',
    ]  # fmt: skip
    assert all('; ETA ' in line for line in lines[:-1])
    assert '[5/5] scratch seed 2: finished' in lines[-1]
    assert '110.0 ± 0.0' in said and '11.0 ± 1.4' in said

  def test_what_has_finished_is_left_alone(self, tmp_path, capsys):
    config = studies_on_disk.write(tmp_path, runs=CHAIN)
    assert call(config, tmp_path) == 0
    before = attempts(tmp_path)
    assert call(config, tmp_path) == 0
    assert attempts(tmp_path) == before == dict.fromkeys(before, 1)
    assert capsys.readouterr().out.count('had finished before') == 3

  def test_a_deleted_checkpoint_is_made_again_only_if_needed(self, tmp_path):
    config = studies_on_disk.write(tmp_path, runs=CHAIN)
    assert call(config, tmp_path) == 0
    out = tmp_path / 'out' / 'runs'
    for path in out.glob('*/*/checkpoints'):
      path.rename(path.with_name('elsewhere'))
    assert call(config, tmp_path) == 0
    assert set(attempts(tmp_path).values()) == {1}
    (out / 'tuned' / 'seed0' / 'study_run.json').unlink()
    (out / 'tuned' / 'seed0' / 'config.json').unlink()
    assert call(config, tmp_path) == 0
    assert attempts(tmp_path) == {'pre/0': 2, 'tuned/0': 2, 'scratch/0': 1}

  def test_only_some_runs_and_what_they_start_from(self, tmp_path):
    config = studies_on_disk.write(tmp_path, runs=CHAIN, tables=[TABLE])
    assert call(config, tmp_path, '--only', 'tuned') == 0
    assert attempts(tmp_path) == {'pre/0': 1, 'tuned/0': 1}
    states = {r['run']: r['status'] for r in rows(tmp_path)}
    assert states == {
      'tuned': 'finished', 'pre': 'finished', 'scratch': 'not run',
    }  # fmt: skip
    page = (tmp_path / 'out' / 'report.html').read_text()
    assert '2 of 3 runs have finished; 1 not run.' in page
    assert '<td>missing</td>' in page

  def test_two_at_a_time(self, tmp_path):
    """Both wait until the other is there, or fail."""
    runs = [dict(name='a', fake='wait'), dict(name='b', fake='wait')]
    config = studies_on_disk.write(tmp_path, runs=runs)
    process = start(config, tmp_path, '--jobs', '2')
    wait_for(tmp_path, 'a', 'b')
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=20)
    assert process.returncode == 143

  def test_dry_run_writes_nothing(self, tmp_path, capsys):
    config = studies_on_disk.write(tmp_path, runs=CHAIN)
    assert call(config, tmp_path, '--dry_run') == 0
    said = capsys.readouterr().out
    assert 'tuned seed 0: to run, starts from pre seed 0' in said
    assert '3 of 3 to run' in said
    assert not (tmp_path / 'out').exists()

  def test_a_new_evaluator_asks_the_run_again(self, tmp_path):
    """Main itself then only evaluates the last checkpoint."""
    run = dict(name='a')
    config = studies_on_disk.write(tmp_path, runs=[run])
    assert call(config, tmp_path) == 0
    run['overrides'] = {'evals.val.batch_size': 8, 'log_every_steps': 3}
    config = studies_on_disk.write(tmp_path, runs=[run])
    assert call(config, tmp_path) == 0
    assert attempts(tmp_path) == {'a/0': 2}


class TestFailure:
  """A failed run is named; its dependants are skipped; the others go on."""

  def test_named_with_the_end_of_its_log(self, tmp_path, capsys):
    runs = [
      dict(name='pre', fake='fail'),
      dict(name='tuned', start_from='pre'),
      dict(name='twice', start_from='tuned'),
      dict(name='scratch'),
    ]
    config = studies_on_disk.write(tmp_path, runs=runs)
    assert call(config, tmp_path) == 1
    out, err = capsys.readouterr()
    assert 'pre seed 0: failed (exit code 1)' in out
    assert '  | error: the disk is full of cats' in out
    assert 'tuned seed 0: skipped (pre seed 0 is failed)' in out
    assert 'twice seed 0: skipped (tuned seed 0 is skipped)' in out
    assert 'scratch seed 0: finished' in out
    assert 'error: not done: pre seed 0, tuned seed 0, twice seed 0' in err
    assert attempts(tmp_path) == {'pre/0': 1, 'scratch/0': 1}
    states = {r['run']: r['status'] for r in rows(tmp_path)}
    assert states['pre'] == 'failed (exit code 1)'

  def test_the_next_command_tries_again(self, tmp_path):
    runs = [
      dict(name='pre', fake='fail_once'),
      dict(name='tuned', start_from='pre'),
    ]
    config = studies_on_disk.write(tmp_path, runs=runs)
    assert call(config, tmp_path) == 1
    assert call(config, tmp_path) == 0
    assert attempts(tmp_path) == {'pre/0': 2, 'tuned/0': 1}
    record = tmp_path / 'out/runs/pre/seed0/study_run.json'
    assert json.loads(record.read_text())['attempts'] == 2

  def test_a_killed_run(self, tmp_path, capsys):
    config = studies_on_disk.write(tmp_path, runs=[dict(name='a', fake='die')])
    assert call(config, tmp_path) == 1
    assert 'a seed 0: failed (killed by signal 9)' in capsys.readouterr().out

  def test_a_figure_that_no_run_has(self, tmp_path, capsys):
    table = dict(TABLE, rows=['scratch'], columns=['val/topp1'])
    config = studies_on_disk.write(tmp_path, runs=CHAIN, tables=[table])
    assert call(config, tmp_path) == 1
    err = capsys.readouterr().err
    assert "table main: scratch has no figure 'val/topp1'; it has" in err
    assert 'val/top1' in err


class TestChangedConfig:
  """A folder with another training is refused before anything runs."""

  def test_keys_are_named(self, tmp_path, capsys):
    config = studies_on_disk.write(tmp_path, runs=CHAIN)
    assert call(config, tmp_path) == 0
    changed = [dict(r) for r in CHAIN]
    changed[1]['overrides'] = {'total_steps': 20, 'input.batch_size': 16}
    config = studies_on_disk.write(tmp_path, runs=changed)
    assert call(config, tmp_path) == 2
    err = capsys.readouterr().err
    assert 'pre seed 0' in err and '  total_steps: 10 -> 20' in err
    assert '  input.batch_size: 32 -> 16' in err
    # What stands on it is refused too, though its own keys are the same.
    assert 'tuned seed 0' in err and 'is trained otherwise' in err
    assert 'scratch seed 0' not in err
    assert set(attempts(tmp_path).values()) == {1}

  def test_a_folder_that_main_was_run_in_by_hand(self, tmp_path, capsys):
    config = studies_on_disk.write(tmp_path, runs=[dict(name='a')])
    assert call(config, tmp_path) == 0
    (tmp_path / 'out/runs/a/seed0/study_run.json').unlink()
    run = dict(name='a', overrides={'optim.type': 'sgd'})
    config = studies_on_disk.write(tmp_path, runs=[run])
    assert call(config, tmp_path) == 2
    assert "optim.type: None -> 'sgd'" in capsys.readouterr().err

  def test_a_folder_where_main_went_on_by_hand(self, tmp_path, capsys):
    """Its figures are of another training than the record says."""
    config = studies_on_disk.write(tmp_path, runs=CHAIN)
    assert call(config, tmp_path) == 0
    path = tmp_path / 'out/runs/tuned/seed0/config.json'
    stored = json.loads(path.read_text())
    stored['total_steps'] = 30
    stored['log_every_steps'] = 7  # leaves the training as it was
    path.write_text(json.dumps(stored))
    capsys.readouterr()
    assert call(config, tmp_path) == 2
    err = capsys.readouterr().err
    assert 'tuned seed 0' in err
    assert '  total_steps: 10 -> 30, by another command' in err
    assert 'log_every_steps' not in err and 'pre seed 0' not in err
    assert set(attempts(tmp_path).values()) == {1}

  def test_the_folder_may_move(self, tmp_path):
    config = studies_on_disk.write(tmp_path, runs=CHAIN)
    assert call(config, tmp_path) == 0
    elsewhere = tmp_path / 'elsewhere'
    elsewhere.mkdir()
    (tmp_path / 'out').rename(elsewhere / 'out')
    assert call(config, elsewhere) == 0
    assert set(attempts(elsewhere).values()) == {1}


def start(config, folder, *more, stdout=subprocess.PIPE):
  """The tool in a process of its own, in a group of its own."""
  code = (
    'import sys\n'
    'from tools.studies import config_checks, runner\n'
    f'runner.PROGRAM = {studies_on_disk.PROGRAM!r}\n'
    'config_checks.check = lambda jobs: None\n'
    'from tools import study\n'
    'sys.exit(study.main(sys.argv[1:]))\n'
  )
  args = ['--config', config, '--workdir', str(folder / 'out'), *more]
  return subprocess.Popen(
    [sys.executable, '-c', code, *args],
    cwd=ROOT,
    stdout=stdout,
    stderr=subprocess.STDOUT,
    text=True,
    start_new_session=True,
  )


def wait_for(folder, *runs):
  """Until the fake runs wait for a signal."""
  files = [folder / f'out/runs/{name}/seed0/waiting' for name in runs]
  deadline = time.monotonic() + 30
  while not all(file.exists() for file in files):
    assert time.monotonic() < deadline, 'the run did not start'
    time.sleep(0.02)


class TestProgress:
  """What the console says."""

  def test_time_left_by_hand(self, tmp_path):
    runs = [dict(name='a', seeds=[0, 1, 2]), dict(name='b'), dict(name='c')]
    path = studies_on_disk.write(tmp_path, runs=runs)
    loaded = loading.load(path, '--config')
    jobs = plan.build(loaded, path, tmp_path / 'out').jobs
    shown = progress.Progress(jobs, 2)
    assert shown.eta_s() is None  # nothing is known yet
    a0, _, _, b, _ = jobs
    shown.ended(a0, runner.Outcome('finished', seconds=10), '')
    shown.ended(b, runner.Outcome('finished', seconds=40), '')
    # Two more of a, and c as the average of 10 and 40; two at a time.
    assert shown.eta_s() == (10 + 10 + 25) / 2
    shown.waiting({'a seed 1': 4.0, 'a seed 2': 30.0})
    assert shown.eta_s() == (6 + 0 + 25) / 2

  def test_a_terminal_keeps_one_line_a_run(self, tmp_path):
    config = studies_on_disk.write(tmp_path, runs=CHAIN)
    terminal, end = pty.openpty()
    process = start(config, tmp_path, stdout=end)
    os.close(end)
    text = b''
    with contextlib.suppress(OSError):  # the other end is closed
      while part := os.read(terminal, 4096):
        text += part
    os.close(terminal)
    assert process.wait(20) == 0
    kept = [line.split('\x1b[K')[-1] for line in text.decode().split('\r\n')]
    lines = [line for line in kept if ' seed 0' in line]
    assert [line.split(':')[0] for line in lines] == [
      '[1/3] pre seed 0', '[2/3] tuned seed 0', '[3/3] scratch seed 0',
    ]  # fmt: skip


class TestSignals:
  """Runs save once and leave; the next command goes on."""

  @pytest.mark.parametrize('ctrl_c', [False, True], ids=['SIGTERM', 'Ctrl-C'])
  def test_first_signal_saves_and_the_next_command_resumes(
    self, tmp_path, ctrl_c
  ):
    runs = [
      dict(name='a', fake='wait'),
      dict(name='b', start_from='a'),
      dict(name='c'),
    ]
    config = studies_on_disk.write(tmp_path, runs=runs)
    process = start(config, tmp_path)
    wait_for(tmp_path, 'a')
    if ctrl_c:  # goes to the whole group, as from a terminal
      os.killpg(process.pid, signal.SIGINT)
    else:
      process.terminate()
    out, _ = process.communicate(timeout=20)
    assert process.returncode == 143, out
    assert 'a seed 0: stopped (goes on with the next command)' in out
    assert 'c seed 0: stopped (not started)' in out
    got = (tmp_path / 'out/runs/a/seed0/signals').read_text()
    assert got == str(int(signal.SIGTERM))  # once: a second would kill it
    assert attempts(tmp_path) == {'a/0': 1}
    assert call(config, tmp_path) == 0
    assert attempts(tmp_path) == {'a/0': 2, 'b/0': 1, 'c/0': 1}

  def test_second_signal_kills(self, tmp_path):
    runs = [dict(name='a', fake='stubborn')]
    config = studies_on_disk.write(tmp_path, runs=runs)
    process = start(config, tmp_path)
    wait_for(tmp_path, 'a')
    process.terminate()
    time.sleep(0.5)
    assert process.poll() is None  # waits for the run to save
    process.terminate()
    out, _ = process.communicate(timeout=20)
    assert process.returncode == 143, out
    assert 'a seed 0: stopped' in out

  def test_two_commands_in_one_folder(self, tmp_path, capsys):
    config = studies_on_disk.write(tmp_path, runs=[dict(name='a', fake='wait')])
    process = start(config, tmp_path)
    wait_for(tmp_path, 'a')
    assert call(config, tmp_path) == 2
    assert 'is in use' in capsys.readouterr().err
    process.terminate()
    process.communicate(timeout=20)
    assert process.returncode == 143
