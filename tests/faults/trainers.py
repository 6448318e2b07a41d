"""Trainers to be hurt: real processes, forked from one that has all imported.

`Trainers` starts them; the rest of this module runs in the process forked from.
A trainer has a session of its own, so that its group is it and its workers.
"""

import contextlib
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time
import warnings
from collections.abc import Sequence
from typing import Any

from input_pipeline import workers

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
_POLL_S = 0.02


def free_port() -> int:
  """One that nobody listens to at the moment."""
  with socket.socket() as s:
    s.bind(('127.0.0.1', 0))
    return s.getsockname()[1]


class Trainer:
  """A run of `python -m main`, its output in a file."""

  def __init__(self, server: 'Trainers', pid: int, out: pathlib.Path):
    self.pid = pid
    self._server = server
    self._out = out
    self.code: int | None = None

  def output(self) -> str:
    return self._out.read_text(errors='replace')

  def poll(self) -> int | None:
    """Exit code, -N after signal N; None while it runs."""
    if self.code is None:
      self.code = self._server.ask({'poll': self.pid})
    return self.code

  def wait(self, timeout_s: float = 60) -> int:
    deadline = time.monotonic() + timeout_s
    while self.poll() is None:
      if time.monotonic() > deadline:
        self.end()
        raise AssertionError(f'still runs:\n{self.output()[-3000:]}')
      time.sleep(_POLL_S)
    assert self.code is not None
    return self.code

  def wait_for(self, text: str, timeout_s: float = 60) -> None:
    """Until the output has this text."""
    deadline = time.monotonic() + timeout_s
    while text not in self.output():
      fine = self.poll() is None and time.monotonic() < deadline
      assert fine, f'{text!r} never came:\n{self.output()[-3000:]}'
      time.sleep(_POLL_S)

  def send(self, number: int) -> None:
    os.kill(self.pid, number)

  def send_group(self, number: int) -> None:
    os.killpg(self.pid, number)

  def group(self) -> dict[int, str]:
    """The processes of its group that live, with their command lines."""
    found = {}
    for entry in pathlib.Path('/proc').iterdir():
      with contextlib.suppress(OSError, ValueError):
        number = int(entry.name)
        fields = (entry / 'stat').read_text().rpartition(')')[2].split()
        if int(fields[2]) == self.pid and fields[0] != 'Z':
          line = (entry / 'cmdline').read_bytes().replace(b'\0', b' ')
          found[number] = line.decode(errors='replace')
    return found

  def workers(self) -> list[int]:
    return sorted(p for p, line in self.group().items() if 'spawn_main' in line)

  def end(self) -> None:
    with contextlib.suppress(ProcessLookupError):
      os.killpg(self.pid, signal.SIGKILL)


class Trainers:
  """Starts trainers; a context manager that ends those that still run."""

  def __init__(self) -> None:
    from tests.conftest import xla_flags

    environ = {
      **os.environ,
      'BVL_CPU_TUNED': '1',
      'JAX_PLATFORMS': 'cpu',
      'XLA_FLAGS': xla_flags(),
      'JAX_COMPILATION_CACHE_DIR': str(ROOT / '.cache/jax'),
      'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0.1',
    }
    self._server = subprocess.Popen(
      [sys.executable, '-m', 'tests.faults.trainers'],
      cwd=ROOT,
      env=environ,
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      text=True,
    )
    self._started: list[Trainer] = []
    self._workdirs: set[pathlib.Path] = set()

  def __enter__(self) -> 'Trainers':
    return self

  def __exit__(self, *error: object) -> None:
    for trainer in self._started:
      if trainer.poll() is None:
        trainer.end()
    self._server.communicate()
    for workdir in self._workdirs:  # what only its next start would remove
      workers.own(f'{workdir} 0')
    workers.disown()

  def start(
    self,
    args: Sequence[str],
    out: pathlib.Path,
    *,
    ledger: pathlib.Path | None = None,
    crash_at: Sequence[str] = (),
    inject: Sequence[Sequence[Any]] = (),
    devices: int = 1,
    stdout: str = '',
  ) -> Trainer:
    """`python -m main ARGS`.

    Args:
      args: the command line.
      out: file of its output, made anew.
      ledger: file to append a line a step to (ledger.py).
      crash_at: (point, number) of crash_points.py.
      inject: (function of injections.py, its arguments) of each.
      devices: of the CPU, fake ones.
      stdout: 'closed': it is, from the start; 'broken': its reader is gone.
    """
    from tests.conftest import xla_flags

    out.write_text('')
    for arg in args:
      if str(arg).startswith('--workdir='):
        name = str(arg).partition('=')[2]
        self._workdirs.add(pathlib.Path(name).resolve())
    pid = self.ask(
      {
        'args': [str(a) for a in args],
        'out': str(out),
        'ledger': ledger and str(ledger),
        'crash_at': [str(a) for a in crash_at],
        'inject': list(inject),
        'xla_flags': xla_flags(devices),
        'stdout': stdout,
      }
    )
    self._started.append(Trainer(self, pid, out))
    return self._started[-1]

  def ask(self, question: Any) -> Any:
    assert self._server.stdin is not None
    assert self._server.stdout is not None
    self._server.stdin.write(json.dumps(question) + '\n')
    self._server.stdin.flush()
    return json.loads(self._server.stdout.readline())


def _start(case: dict[str, Any]) -> int:
  child = os.fork()
  if child:
    return child
  os.setsid()
  out = os.open(case['out'], os.O_WRONLY | os.O_APPEND)
  null = os.open(os.devnull, os.O_RDONLY)
  os.dup2(null, 0)
  os.dup2(out, 1)
  os.dup2(out, 2)
  if case['stdout'] == 'broken':
    reader, writer = os.pipe()
    os.close(reader)
    os.dup2(writer, 1)
    os.dup2(writer, 2)
  elif case['stdout'] == 'closed':
    os.close(1)
    sys.stdout = None  # type: ignore[assignment]  # as Python starts then
  os.environ['XLA_FLAGS'] = case['xla_flags']  # no device was asked for yet
  code: Any = 1
  try:
    from tests.faults import crash_points, injections, ledger

    for name, *given in case['inject']:
      getattr(injections, name)(*given)

    if case['ledger']:
      ledger.record(pathlib.Path(case['ledger']))
    if case['crash_at']:
      crash_points.arm(*case['crash_at'])
    import main

    sys.argv = ['main', *case['args']]
    main.run()
    code = 0
  except SystemExit as stop:
    code = stop.code or 0
  except BaseException:
    import traceback

    traceback.print_exc()
  with contextlib.suppress(Exception):
    _leave_world()
    sys.stdout.flush()
    sys.stderr.flush()
  os._exit(code if isinstance(code, int) else 1)


def _leave_world() -> None:
  """What Python does at exit: else the other processes miss this one."""
  import jax

  if jax.distributed.is_initialized():
    jax.distributed.shutdown()


def _poll(pid: int) -> int | None:
  done, status = os.waitpid(pid, os.WNOHANG)
  return os.waitstatus_to_exitcode(status) if done else None


def main() -> None:
  from tests import cli_server

  with warnings.catch_warnings():  # trainers show theirs
    cli_server.import_all()
  for line in sys.stdin:
    question = json.loads(line)
    answer = _poll(question['poll']) if 'poll' in question else _start(question)
    print(json.dumps(answer), flush=True)


if __name__ == '__main__':
  main()
