"""Several processes of one run on this machine, each with fake CPU devices.

  python -m tools.launch.local --processes=2 --devices=4 -- \\
    --config configs/quickstart.py:tiny --workdir workdirs/two

Starts `python -m main` that many times, with a coordinator on a free loopback
port. It shows on one machine what a cluster would do, such as resuming on
another number of processes; it makes nothing faster.

Output of process 0 comes as it is, that of process i with `[i] ` before every
line. SIGTERM and SIGINT go on to all processes. Once a process has failed, the
others have `--grace_s` seconds to end by themselves. The exit code is the first
that is not 0; 143 after a signal; 2 for bad arguments.
"""

import argparse
import contextlib
import math
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import IO, NoReturn

from big_vision_like.config import shipped

from ..cli import command

MAIN = tuple(shipped.command('train'))
STOPPED = 143
_USAGE = (
  'python -m tools.launch.local --processes=N --devices=M -- arguments of main'
)
_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_OWN_FLAGS = ('coordinator', 'num_processes', 'process_id')
_POLL_S = 0.05
_DRAIN_S = 5.0  # for the last lines of a process that is gone


def launch(
  arguments: Sequence[str],
  *,
  processes: int,
  devices: int,
  grace_s: float = 30.0,
  command: Sequence[str] = MAIN,
) -> int:
  """Runs all processes to their end; call it from the main thread.

  Args:
    arguments: what every process gets, after `command`.
    processes: how many.
    devices: fake CPU devices of each.
    grace_s: seconds that the others have once a process has failed.
    command: what to start.

  Returns:
    The exit code of the whole.
  """
  port = free_port()
  environ = environment(os.environ, devices)
  children: list[_Child] = []
  with _caught_signals() as caught:
    try:
      for i in range(processes):
        flags = [
          f'--coordinator=127.0.0.1:{port}',
          f'--num_processes={processes}',
          f'--process_id={i}',
        ]
        children.append(_Child(i, [*command, *arguments, *flags], environ))
      return _watch(children, caught, grace_s)
    finally:
      for child in children:
        child.kill()
        child.drain()


def environment(current: Mapping[str, str], devices: int) -> dict[str, str]:
  """The environment of a process with so many fake CPU devices."""
  flags = current.get('XLA_FLAGS', '')
  count = f'--xla_force_host_platform_device_count={devices}'
  return {
    **current,
    'JAX_PLATFORMS': 'cpu',
    'XLA_FLAGS': f'{flags} {count}'.strip(),
  }


def free_port() -> int:
  """A TCP port of the loopback interface that nobody listens on."""
  with socket.socket() as probe:
    probe.bind(('127.0.0.1', 0))
    return probe.getsockname()[1]


class _Child:
  """One process, in a session of its own.

  A Ctrl-C in the terminal goes to the foreground group, hence to the launcher
  alone: a child that got it twice would end without saving.
  """

  def __init__(self, index: int, command: list[str], environ: dict[str, str]):
    self.index = index
    pipe = subprocess.PIPE if index else None
    if index:  # lines come when they are printed; process 0 is left alone
      environ = {'PYTHONUNBUFFERED': '1', **environ}
    self._process = subprocess.Popen(
      command,
      env=environ,
      stdin=subprocess.DEVNULL,
      stdout=pipe,
      stderr=pipe,
      start_new_session=True,
    )
    self._threads = []
    if index:
      streams = (
        (self._process.stdout, sys.stdout),
        (self._process.stderr, sys.stderr),
      )
      prefix = b'[%d] ' % index
      for source, sink in streams:
        thread = threading.Thread(
          target=_copy_lines, args=(source, sink.buffer, prefix), daemon=True
        )
        thread.start()
        self._threads.append(thread)

  def exit_code(self) -> int | None:
    """As a shell has it, 128 + n after signal n; None while it runs."""
    code = self._process.poll()
    return code if code is None or code >= 0 else 128 - code

  def send(self, number: int) -> None:
    self._process.send_signal(number)

  def kill(self) -> bool:
    """Ends the process and its data workers; whether it was running."""
    if self._process.poll() is not None:
      return False
    os.killpg(self._process.pid, signal.SIGKILL)  # its session's only group
    self._process.wait()
    return True

  def drain(self) -> None:
    """Waits for its last lines; not for what else holds its pipes open."""
    deadline = time.monotonic() + _DRAIN_S
    for thread in self._threads:
      thread.join(max(0.0, deadline - time.monotonic()))


def _watch(
  children: Sequence[_Child], caught: list[int], grace_s: float
) -> int:
  """Waits for all, passing signals on; returns the exit code of the whole."""
  running = list(children)
  first, asked, deadline = 0, False, math.inf
  while running:
    while caught:
      asked, number = True, caught.pop(0)
      for child in running:
        child.send(number)
    for child in list(running):
      code = child.exit_code()
      if code is None:
        continue
      running.remove(child)
      if code and not first:
        first = code
        deadline = time.monotonic() + grace_s
        others = f'; the others have {grace_s:g} s' if running else ''
        _say(f'process {child.index} ended with exit code {code}{others}')
    if time.monotonic() > deadline:
      killed = [str(child.index) for child in running if child.kill()]
      if killed:
        _say(f'killed after {grace_s:g} s: process {", ".join(killed)}')
      break
    time.sleep(_POLL_S)
  by_signal = asked and first in [128 + number for number in _SIGNALS]
  return STOPPED if by_signal else first


@contextlib.contextmanager
def _caught_signals() -> Iterator[list[int]]:
  """SIGTERM and SIGINT are put into a list instead of ending this process."""
  caught: list[int] = []
  before = {
    number: signal.signal(number, lambda n, frame: caught.append(n))
    for number in _SIGNALS
  }
  try:
    yield caught
  finally:
    for number, handler in before.items():
      signal.signal(number, handler)


def _copy_lines(source: IO[bytes], sink: IO[bytes], prefix: bytes) -> None:
  with source:
    for line in source:
      if not line.endswith(b'\n'):
        line += b'\n'
      # Reads on when nobody takes them: a full pipe would stop the process.
      with contextlib.suppress(BrokenPipeError):
        sink.write(prefix + line)  # one call, so that lines stay whole
        sink.flush()


def _say(text: str) -> None:
  print(f'launch: {text}', file=sys.stderr, flush=True)


class _Parser(argparse.ArgumentParser):
  def error(self, message: str) -> NoReturn:
    usage = command.as_called(_USAGE)
    print(f'error: {message}; usage: {usage}', file=sys.stderr)
    sys.exit(2)


def _parse(argv: Sequence[str]) -> argparse.Namespace:
  argv = list(argv)
  split = argv.index('--') if '--' in argv else len(argv)
  parser = _Parser(
    usage=command.as_called(_USAGE),
    description=command.as_called(__doc__),
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  add = parser.add_argument
  add('--processes', type=int, required=True, metavar='N')
  add('--devices', type=int, default=1, metavar='M', help='of each; 1')
  add('--grace_s', type=float, default=30.0, metavar='SECONDS', help='30')
  args = parser.parse_args(argv[:split])
  args.arguments = argv[split + 1 :]
  for name in ('processes', 'devices'):
    value = getattr(args, name)
    if value < 1:
      parser.error(f'--{name}={value} must be 1 or more')
  if not 0 <= args.grace_s < math.inf:
    parser.error(f'--grace_s={args.grace_s:g} must be a time of 0 s or more')
  if not args.arguments:
    parser.error("nothing to run: main's arguments come after --")
  for argument in args.arguments:
    name = argument.lstrip('-').partition('=')[0]
    if argument.startswith('-') and name in _OWN_FLAGS:
      parser.error(f'{argument}: the launcher sets --{name} itself')
  return args


def main(argv: Sequence[str] | None = None) -> int:
  """Command line entry point; returns the exit code."""
  args = _parse(sys.argv[1:] if argv is None else argv)
  return launch(
    args.arguments,
    processes=args.processes,
    devices=args.devices,
    grace_s=args.grace_s,
  )


if __name__ == '__main__':
  sys.exit(main())
