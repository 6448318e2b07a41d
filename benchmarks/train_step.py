"""Images per second of a whole train step, ours against plain flax and torch.

Every contestant lives in a process of its own; after compilation and warm-up
they take turns, one round each, so that a busy machine slows all of them; the
CPU seconds of a step depend least on what else runs.
Ours runs in the environment that `python -m main` gives itself
(big_vision_like/runtime/cpu_tuning.py), the others in the one this script was
given.

  python -m benchmarks.train_step --depth 50 --size 224
  python -m benchmarks.train_step --depth 101 --size 299 --batch 16 --rounds 3
  python -m benchmarks.train_step --device gpu --dtype bfloat16 --batch 128 \
    --contestants ours flax torch torch.compile --steps 10
"""

import argparse
import contextlib
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from benchmarks.contestants import train_step as contestants
from big_vision_like.runtime import cpu_tuning

_MARK = 'train_step:'  # our lines among whatever the libraries print


def parse(argv: list[str] | None = None) -> argparse.Namespace:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  names = tuple(contestants.CONTESTANTS)
  add = parser.add_argument
  add('--depth', type=int, default=50, choices=contestants.UNITS)
  add('--size', type=int, default=224, help='pixels')
  add('--batch', type=int, default=32)
  add('--stride_in', default='first_unit_3x3', help='layout of ours')
  add_common(parser, names, rounds=5, usual=names[:3])
  return parser.parse_args(argv)


def add_common(
  parser: argparse.ArgumentParser,
  names: Sequence[str],
  *,
  rounds: int,
  usual: Sequence[str] | None = None,
  more: Sequence[str] = (),
) -> None:
  """Adds what every script that times steps has.

  Args:
    parser: of its command line.
    names: of the contestants.
    rounds: default.
    usual: contestants by default; None: all.
    more: what a process may work as besides.
  """
  add = parser.add_argument
  add('--dtype', default='float32', choices=('float32', 'bfloat16'))
  add('--device', default='cpu', choices=('cpu', 'gpu'))
  add('--rounds', type=int, default=rounds)
  add('--steps', type=int, default=1, help='steps a round')
  add('--contestants', nargs='+', choices=names, default=usual or names)
  add('--output', help='append the table to this Markdown file')
  add('--work_as', choices=(*names, *more), help=argparse.SUPPRESS)


def work(
  args: argparse.Namespace,
  options_class: Any = contestants.Options,
  makers: Mapping[str, Any] = contestants.CONTESTANTS,
) -> None:
  """One contestant: warms up, then times a round for every line it reads."""
  options = options_class(
    **{name: getattr(args, name) for name in options_class._fields}
  )
  say = lambda **values: print(_MARK, json.dumps(values), flush=True)
  try:
    start = time.perf_counter()
    step = makers[args.work_as](options)
    losses = [step() for _ in range(2)]
    say(start_up_s=time.perf_counter() - start, losses=losses)
    for _ in sys.stdin:
      start, cpu_start = time.perf_counter(), time.process_time()
      for _ in range(args.steps):
        step()
      say(
        seconds=(time.perf_counter() - start) / args.steps,
        cpu_seconds=(time.process_time() - cpu_start) / args.steps,
        peak_bytes=_peak_bytes(args),
      )
  except Exception as error:
    if not is_out_of_memory(error):
      raise
    say(out_of_memory=str(error).partition('\n')[0])


def is_out_of_memory(error: Exception) -> bool:
  """Whether XLA, torch or Python had no memory left."""
  text = f'{type(error).__name__}: {error}'.lower()
  signs = ('resource_exhausted', 'out of memory', 'outofmemory', 'memoryerror')
  return any(sign in text for sign in signs)


def _peak_bytes(args: argparse.Namespace) -> int:
  """Most bytes in use at once; of the whole process on a CPU."""
  if args.device == 'cpu':
    unit = 1 if sys.platform == 'darwin' else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
  if args.work_as.startswith('torch'):
    import torch

    return torch.cuda.max_memory_allocated()
  import jax

  return jax.local_devices()[0].memory_stats()['peak_bytes_in_use']


class OutOfMemory(RuntimeError):
  """A contestant does not fit into the memory that is left."""


class Contestant:
  """A process that runs a round when it is told to.

  Attributes:
    MODULE: the script that it runs with --work_as.
    OPTIONS: names of the flags that it is given.

  Raises, also from its methods:
    OutOfMemory: its device has no memory left; the process has ended.
    RuntimeError: it ended early.
  """

  MODULE = 'benchmarks.train_step'
  OPTIONS = contestants.Options._fields

  def __init__(self, name: str, args: argparse.Namespace):
    self.name = name
    self.seconds: list[float] = []
    self.cpu_seconds: list[float] = []
    self.peak_bytes = 0
    environment = dict(os.environ)
    if args.device == 'cpu':
      environment |= {'JAX_PLATFORMS': 'cpu', 'CUDA_VISIBLE_DEVICES': ''}
      if name.partition('-')[0] == 'ours':
        environment |= cpu_tuning.environment()
    else:  # the contestants share the memory of the device
      environment['XLA_PYTHON_CLIENT_PREALLOCATE'] = 'false'
      environment['JAX_PLATFORMS'] = 'cuda'  # fails rather than use the CPU
    command = [sys.executable, '-m', self.MODULE]
    for option in self.OPTIONS:
      command += [f'--{option}', str(getattr(args, option))]
    self._process = subprocess.Popen(
      [*command, '--steps', str(args.steps), '--work_as', name],
      env=environment,
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      text=True,
    )
    self.start_up = self._read()

  def run_round(self) -> None:
    self._process.stdin.write('\n')
    self._process.stdin.flush()
    result = self._read()
    self.seconds.append(result['seconds'])
    self.cpu_seconds.append(result['cpu_seconds'])
    self.peak_bytes = result['peak_bytes']

  def close(self) -> None:
    with contextlib.suppress(BrokenPipeError):
      self._process.stdin.close()
    try:
      self._process.wait(60)
    except subprocess.TimeoutExpired:
      self._process.kill()
      self._process.wait()
    self._process.stdout.close()

  def _read(self) -> dict:
    for line in self._process.stdout:
      if line.startswith(_MARK):
        result = json.loads(line.removeprefix(_MARK))
        if 'out_of_memory' not in result:
          return result
        self.close()
        raise OutOfMemory(f'{self.name}: {result["out_of_memory"]}')
    self.close()
    raise RuntimeError(f'{self.name} ended early: see its message above')


def report(args: argparse.Namespace, entries: list[Contestant]) -> str:
  """Markdown: images/s (median, min..max over rounds), ours over the others."""
  lines = [
    f'### ResNet-{args.depth} at {args.size}, batch {args.batch}, {args.dtype},'
    f' {args.device}',
    '',
    f'`python -m benchmarks.train_step {" ".join(sys.argv[1:])}`',
    '',
    describe_machine(args),
    '',
  ]
  return '\n'.join([*lines, *rows(args, entries), ''])


def rows(args: argparse.Namespace, entries: Sequence[Contestant]) -> list[str]:
  """The lines of the table, a row for each contestant."""
  lines = [
    '| step | images/s, median | slowest .. fastest round | ours / this '
    '| CPU s a step | first losses | start-up s |',
    '|---|---|---|---|---|---|---|',
  ]
  rate = lambda seconds: args.batch / seconds
  medians = {e.name: rate(statistics.median(e.seconds)) for e in entries}
  for entry in entries:
    ratio = medians.get('ours', float('nan')) / medians[entry.name]
    losses = ', '.join(f'{loss:.1f}' for loss in entry.start_up['losses'])
    lines.append(
      f'| {entry.name} | {medians[entry.name]:.2f} '
      f'| {rate(max(entry.seconds)):.2f} .. {rate(min(entry.seconds)):.2f} '
      f'| {ratio:.2f} | {statistics.median(entry.cpu_seconds):.2f} '
      f'| {losses} | {entry.start_up["start_up_s"]:.0f} |'
    )
  return lines


def describe_machine(args: argparse.Namespace) -> str:
  """Processor or accelerator, and the versions that matter."""
  from importlib import metadata

  name = platform.processor() or platform.machine()
  if os.path.exists('/proc/cpuinfo'):
    with open('/proc/cpuinfo', encoding='utf-8') as file:
      models = [line for line in file if line.startswith('model name')]
    name = models[0].split(':')[1].strip() if models else name
  if args.device == 'gpu':
    query = ['nvidia-smi', '--query-gpu=name', '--format=csv,noheader']
    found = subprocess.run(query, capture_output=True, text=True, check=True)
    name = found.stdout.splitlines()[0]
  versions = []
  for package in ('jax', 'flax', 'torch', 'timm'):
    try:
      versions.append(f'{package} {metadata.version(package)}')
    except metadata.PackageNotFoundError:
      continue
  cores = len(os.sched_getaffinity(0))
  return (
    f'{time.strftime("%Y-%m-%d")}, {name}, {cores} cores, Python '
    f'{platform.python_version()}, {", ".join(versions)}; '
    f'{args.rounds} rounds of {args.steps}.'
  )


def main() -> None:
  args = parse()
  if args.work_as:
    work(args)
    return
  finish(args, take_turns(args, Contestant), report)


def take_turns(
  args: argparse.Namespace, start: Callable[..., Contestant]
) -> list[Contestant]:
  """The contestants after all rounds; their processes have ended."""
  entries = []
  for name in args.contestants:  # one after the other: they start up alone
    entries.append(start(name, args))
    print(f'{name}: {entries[-1].start_up}', file=sys.stderr, flush=True)
  for number in range(args.rounds):
    for entry in entries:
      entry.run_round()
    latest = ', '.join(f'{e.name} {e.seconds[-1]:.2f}' for e in entries)
    print(f'round {number}: {latest} s', file=sys.stderr, flush=True)
  for entry in entries:
    entry.close()
  return entries


def finish(
  args: argparse.Namespace,
  entries: list[Contestant],
  describe: Callable[..., str],
) -> None:
  """Prints the report, and appends it where --output says so."""
  text = describe(args, entries)
  print(text)
  if args.output:
    with open(args.output, 'a', encoding='utf-8') as file:
      file.write(f'\n{text}')


if __name__ == '__main__':
  main()
