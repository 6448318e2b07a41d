"""Tiny processes in place of main: order, output, signals, exit codes."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from tests.conftest import ROOT
from tools.launch import local

# Dummy process: its number is the last digit of its last argument.
NUMBER = 'import sys, time, os, signal; i = int(sys.argv[-1][-1]); '


def dummy(code):
  return [sys.executable, '-c', NUMBER + code]


def launch(code, processes=2, **options):
  return local.launch(
    ['--config=c'],
    processes=processes,
    devices=3,
    command=dummy(code),
    **options,
  )


def test_flags_and_environment(tmp_path, monkeypatch):
  monkeypatch.setenv('XLA_FLAGS', '--xla_one=1')
  code = (
    'import json; '
    f'out = open({str(tmp_path)!r} + f"/{{i}}", "w"); '
    'json.dump([sys.argv[1:], dict(os.environ)], out)'
  )
  assert launch(code, processes=3) == 0
  seen = [json.loads((tmp_path / str(i)).read_text()) for i in range(3)]
  coordinators = set()
  for i, (argv, environ) in enumerate(seen):
    assert argv[0] == '--config=c'
    flag, _, address = argv[1].partition('=')
    assert flag == '--coordinator'
    coordinators.add(address)
    assert argv[2:] == ['--num_processes=3', f'--process_id={i}']
    assert environ['JAX_PLATFORMS'] == 'cpu'
    assert environ['XLA_FLAGS'] == (
      '--xla_one=1 --xla_force_host_platform_device_count=3'
    )
  assert len(coordinators) == 1
  host, _, port = coordinators.pop().partition(':')
  assert host == '127.0.0.1' and int(port) > 1023


def test_only_the_lines_of_process_0_come_bare(capfd):
  code = (
    'os.write(1, f"a{i}\\nb{i}\\n".encode()); os.write(2, f"e{i}".encode())'
  )
  assert launch(code) == 0
  out, err = capfd.readouterr()
  assert sorted(out.splitlines()) == ['[1] a1', '[1] b1', 'a0', 'b0']
  assert '[1] e1\n' in err and 'e0' in err and '[0]' not in err


def test_first_failure_is_the_exit_code(capfd):
  code = 'time.sleep(0 if i == 1 else 0.6); sys.exit({0: 4, 1: 3, 2: 0}[i])'
  assert launch(code, processes=3) == 3
  assert 'process 1 ended with exit code 3' in capfd.readouterr().err


def test_others_are_killed_after_the_grace_time(capfd):
  # Process 0 does not listen to SIGTERM: only SIGKILL ends it.
  code = (
    'signal.signal(signal.SIGTERM, signal.SIG_IGN); '
    'time.sleep(0 if i else 100); sys.exit(5)'
  )
  start = time.monotonic()
  assert launch(code, grace_s=0.5) == 5
  assert 0.5 <= time.monotonic() - start < 20
  assert 'killed after 0.5 s: process 0' in capfd.readouterr().err


def test_others_may_end_by_themselves_within_the_grace_time(capfd):
  code = 'time.sleep(0 if i else 0.8); sys.exit(5 * i)'
  assert launch(code, grace_s=30) == 5
  assert 'killed' not in capfd.readouterr().err


def test_a_killed_process_counts_as_128_plus_its_signal(capfd):
  assert launch('os.kill(os.getpid(), signal.SIGKILL) if i else None') == 137
  assert 'exit code 137' in capfd.readouterr().err


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize('saves', [True, False])
def test_signals_reach_all_processes_once(tmp_path, number, saves):
  handler = (
    'h = lambda n, f: (os.write(1, b"got %d\\n" % n), time.sleep(0.3), '
    'sys.exit(143)); signal.signal(signal.SIGTERM, h); '
    'signal.signal(signal.SIGINT, h); '
    if saves
    else 'signal.signal(signal.SIGINT, signal.SIG_DFL); '
  )
  code = handler + f'open({str(tmp_path)!r} + f"/{{i}}", "w"); time.sleep(100)'
  script = (
    'import sys; from tools.launch import local; '
    f'sys.exit(local.launch([], processes=2, devices=1, '
    f'command={dummy(code)!r}))'
  )
  with subprocess.Popen(
    [sys.executable, '-c', script],
    cwd=ROOT,
    stdout=subprocess.PIPE,
    text=True,
    start_new_session=True,
  ) as process:
    deadline = time.monotonic() + 60
    while len(os.listdir(tmp_path)) < 2:
      assert time.monotonic() < deadline and process.poll() is None
      time.sleep(0.02)
    # As Ctrl-C does: to the whole foreground group.
    os.killpg(process.pid, number)
    out, _ = process.communicate(timeout=60)
  assert process.returncode == 143
  line = f'got {int(number)}'
  assert sorted(out.splitlines()) == ([f'[1] {line}', line] if saves else [])


@pytest.mark.parametrize(
  ('argv', 'message'),
  [
    ('--devices=2 -- --config c', '--processes'),
    ('--processes=0 -- --config c', '--processes=0 must be 1 or more'),
    ('--processes=two -- --config c', "invalid int value: 'two'"),
    ('--processes=2 --devices=-1 -- --config c', '--devices=-1 must be'),
    ('--processes=2 --grace_s=nan -- --config c', '--grace_s=nan must be'),
    ('--processes=2 --config c', 'unrecognized arguments: --config c'),
    ('--processes=2', "main's arguments come after --"),
    ('--processes=2 --', "main's arguments come after --"),
    ('--processes=2 -- --process_id=1', 'the launcher sets --process_id'),
  ],
)
def test_bad_arguments_are_refused_in_one_line(capsys, argv, message):
  with pytest.raises(SystemExit) as stop:
    local.main(argv.split())
  assert stop.value.code == 2
  err = capsys.readouterr().err
  assert message in err
  assert err.startswith('error: ') and err.count('\n') == 1
