"""Train steps on one accelerator, against its own ceilings and the peers.

Measures the device's matrix-product and copy rates, then trains ResNet-50 at
224 and ResNet-101 at 299 with the 18,291-way head in bfloat16: this project,
timm under torch.compile (channels_last, autocast) and plain flax, for batches
that double until none of them fits. Each is a process of its own. As long as
all fit into the memory at once they take turns, a round each; beyond that they
run one after the other (`alone`). No memory is a result: `out of memory`.

Every row says which share of the measured ceilings, and of the bound that
benchmarks/roofline.py derives from them, its images per second are.

Last comes the project's Faster R-CNN, train step and inference, each alone, at
the paper's size, for batches that double from one image on; no peer, and of the
shares the first only, for the nets whose operations --mode=plan has told.

  python -m benchmarks.accelerator --output benchmarks/results/accelerator.md
  python -m benchmarks.accelerator --nets 101:299 --first_batch 256
  python -m benchmarks.accelerator --device cpu --nets 50:32 --first_batch 4 \
    --last_batch 4 --contestants ours flax --rounds 1 --steps 1 \
    --detector 14:64x64

torch must be a build for the device (https://pytorch.org). A failure other than
memory is a row too, and the exit code is then 1.
"""

import argparse
import contextlib
import dataclasses
import os
import pathlib
import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from benchmarks import detection_step, device_ceilings, roofline, train_step
from benchmarks.contestants import train_step as contestants
from benchmarks.train_step_kernels import Kernel, Net, kernels

STRIDE_IN = 'first_unit_3x3'  # as the peers have it
# Steps of the detector, as rows call them.
_DETECTION = {'ours': 'train step', 'ours-inference': 'inference'}
# FLOPs of a train step, an image (docs/detection.md, "Cost").
_DETECTION_FLOPS = {
  (101, 600, 1024, 'paper'): 1.584e12, (101, 600, 1024, 'tfod'): 8.096e11,
}  # fmt: skip
_MEMORY_SHARE = 0.8  # to which contestants together may fill the device
_TINY = (256,), (16,)  # ceilings of a CPU: only to try this script
_INTERLEAVED, _ALONE = 'in turns', 'alone'
_OUT_OF_MEMORY, _FAILED = 'out of memory', 'failed'


@dataclasses.dataclass(frozen=True)
class Outcome:
  """A contestant at one batch; no seconds if it did not run.

  Attributes:
    how: 'in turns', 'alone', 'out of memory' or 'failed'.
    seconds: of a step, a value for each round.
    peak_bytes: most memory in use since its start.
  """

  how: str
  seconds: tuple[float, ...] = ()
  peak_bytes: int = 0


Start = Callable[[str, argparse.Namespace], Any]


def measure(
  names: Sequence[str],
  args: argparse.Namespace,
  together: bool = True,
  start: Start = train_step.Contestant,
) -> dict[str, Outcome]:
  """All contestants at one batch: in turns if they fit, else alone.

  Args:
    names: contestants.
    args: of benchmarks/train_step.py.
    together: False if they are known not to fit at once.
    start: makes a contestant, or raises train_step.OutOfMemory.
  """
  if together and len(names) > 1:
    with contextlib.suppress(RuntimeError):
      return _run(names, args, start, _INTERLEAVED)
  out = {}
  for name in names:
    try:
      out |= _run([name], args, start, _ALONE)
    except train_step.OutOfMemory:
      out[name] = Outcome(_OUT_OF_MEMORY)
    except RuntimeError as error:
      print(error, file=sys.stderr, flush=True)
      out[name] = Outcome(_FAILED)
  return out


def _run(
  names: Sequence[str], args: argparse.Namespace, start: Start, how: str
) -> dict[str, Outcome]:
  with contextlib.ExitStack() as stack:
    entries = []
    for name in names:  # one after the other: they start up alone
      entries.append(start(name, args))
      stack.callback(entries[-1].close)
    for _ in range(args.rounds):
      for entry in entries:
        entry.run_round()
    return {
      e.name: Outcome(how, tuple(e.seconds), e.peak_bytes) for e in entries
    }


def sweep(
  args: argparse.Namespace,
  depth: int,
  size: int,
  memory_bytes: int | None,
  start: Start = train_step.Contestant,
) -> Iterator[tuple[int, dict[str, Outcome]]]:
  """(batch, outcomes) for doubling batches, as long as anyone fits."""
  names, batch, peak = list(args.contestants), args.first_batch, 0
  while names and batch <= args.last_batch:
    step_args = train_step.parse(_step_argv(args, depth, size, batch))
    limit = memory_bytes and _MEMORY_SHARE * memory_bytes
    together = not limit or 2 * peak < limit
    outcomes = measure(names, step_args, together, start)
    yield batch, outcomes
    names = [name for name in names if outcomes[name].seconds]
    peak = sum(outcomes[name].peak_bytes for name in names)
    batch *= 2


def _step_argv(
  args: argparse.Namespace, depth: int, size: int, batch: int
) -> list[str]:
  options = {
    'depth': depth,
    'size': size,
    'batch': batch,
    'dtype': args.dtype,
    'device': args.device,
    'rounds': args.rounds,
    'steps': args.steps,
    'stride_in': STRIDE_IN,
  }
  return [part for k, v in options.items() for part in (f'--{k}', str(v))]


def rows(
  net: Net, outcomes: dict[str, Outcome], machine: roofline.Machine
) -> list[str]:
  """Markdown rows of the contestants at one batch."""
  work = kernels(net)
  medians = {
    name: net.batch / statistics.median(outcome.seconds)
    for name, outcome in outcomes.items()
    if outcome.seconds
  }
  lines = []
  for name, outcome in outcomes.items():
    start = f'| ResNet-{net.depth} at {net.size} | {net.batch} | {name} '
    if name not in medians:
      lines.append(f'{start}| {outcome.how} |' + '  |' * 7)
      continue
    rate = medians[name]
    slowest, fastest = (
      net.batch / f(outcome.seconds) for f in (max, min)
    )  # fmt: skip
    ratio = f'{medians["ours"] / rate:.2f}' if 'ours' in medians else ''
    shares = ' | '.join(f'{x:.0%}' for x in _shares(work, rate, machine))
    lines.append(
      f'{start}| {outcome.how} | {rate:.4g} | {slowest:.4g} .. {fastest:.4g} '
      f'| {ratio} | {outcome.peak_bytes / 2**30:.1f} | {shares} |'
    )
  return lines


def _shares(
  work: Sequence[Kernel], rate: float, machine: roofline.Machine
) -> tuple[float, float, float]:
  """Shares of product rate, copy rate and roofline that a rate makes."""
  return (
    rate * sum(k.flops for k in work) / machine.flops_per_s,
    rate * sum(k.bytes for k in work) / machine.bytes_per_s,
    rate / roofline.images_per_s(work, machine),
  )


def detection_sweep(
  args: argparse.Namespace, start: Start = detection_step.Contestant
) -> Iterator[tuple[argparse.Namespace, dict[str, Outcome]]]:
  """(arguments, outcomes) for doubling batches, as long as one fits."""
  depth, height, width = args.detector
  names, batch = list(_DETECTION), 1
  while names and batch <= args.last_batch:
    options = {
      'depth': depth, 'height': height, 'width': width, 'batch': batch,
      'preset': args.preset, 'dtype': args.dtype, 'device': args.device,
      'rounds': args.rounds, 'steps': args.steps,
    }  # fmt: skip
    argv = [part for k, v in options.items() for part in (f'--{k}', str(v))]
    step_args = detection_step.parse(argv)
    outcomes = measure(names, step_args, together=False, start=start)
    yield step_args, outcomes
    names = [name for name in names if outcomes[name].seconds]
    batch *= 2


def detection_rows(
  step: argparse.Namespace,
  outcomes: dict[str, Outcome],
  machine: roofline.Machine,
) -> list[str]:
  """Markdown rows of the detector at one batch."""
  lines = []
  key = step.depth, step.height, step.width, step.preset
  for name, outcome in outcomes.items():
    line = (
      f'| Faster R-CNN, ResNet-{step.depth} at {step.height}x{step.width}, '
      f'{step.preset} | {step.batch} | {_DETECTION[name]} | {outcome.how} |'
    )
    if not outcome.seconds:
      lines.append(line + '  |' * 7)
      continue
    rate, slowest, fastest = (
      step.batch / f(outcome.seconds) for f in (statistics.median, max, min)
    )
    share = ''
    if name == 'ours' and key in _DETECTION_FLOPS:
      share = f'{rate * _DETECTION_FLOPS[key] / machine.flops_per_s:.0%}'
    lines.append(
      f'{line} {rate:.4g} | {slowest:.4g} .. {fastest:.4g} |  '
      f'| {outcome.peak_bytes / 2**30:.1f} | {share} |  |  |'
    )
  return lines


_HEADER = (
  '| net | batch | step | run | images/s, median | slowest .. fastest round '
  '| ours / this | peak memory, GiB | of product rate | of copy rate '
  '| of roofline |',
  '|---|---|---|---|---|---|---|---|---|---|---|',
)


def report(
  args: argparse.Namespace, ceilings: dict[str, Any], lines: Sequence[str]
) -> str:
  """The whole result as Markdown."""
  return '\n'.join(
    [
      '# Train steps on one accelerator',
      '',
      f'`python -m benchmarks.accelerator {" ".join(sys.argv[1:])}`',
      '',
      train_step.describe_machine(args),
      '',
      f'Ceilings: {device_ceilings.describe(ceilings)}. 18,291 classes, '
      f'{args.dtype}; `ours / this` is the ratio of median images/s; the '
      'roofline is that of benchmarks/roofline.py with these ceilings.',
      '',
      *_HEADER,
      *lines,
      '',
    ]
  )


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  names = tuple(contestants.CONTESTANTS)
  add = parser.add_argument
  add('--device', default='gpu', choices=('cpu', 'gpu'))
  add(
    '--nets',
    nargs='+',
    type=_net,
    default=[(50, 224), (101, 299)],
    metavar='DEPTH:SIZE',
  )
  add(
    '--detector',
    type=_detector,
    default=(101, 600, 1024),
    metavar='DEPTH:HEIGHTxWIDTH',
  )
  add('--preset', default='tfod', choices=('paper', 'tfod'), help='of it')
  add('--first_batch', type=int, default=128)
  add('--last_batch', type=int, default=2**14)
  add('--dtype', default='bfloat16', choices=('float32', 'bfloat16'))
  add('--rounds', type=int, default=5)
  add('--steps', type=int, default=20, help='steps a round')
  add(
    '--contestants',
    nargs='+',
    choices=names,
    default=['ours', 'torch.compile', 'flax'],
  )
  add('--output', type=pathlib.Path, help='Markdown file to write')
  return parser.parse_args(argv)


def _net(text: str) -> tuple[int, int]:
  depth, _, size = text.partition(':')
  if depth not in map(str, contestants.UNITS) or not size.isdigit():
    raise argparse.ArgumentTypeError(f'{text!r} is not like 101:299')
  return int(depth), int(size)


def _detector(text: str) -> tuple[int, int, int]:
  depth, _, size = text.partition(':')
  height, _, width = size.partition('x')
  if depth not in ('14', '50', '101') or not (height + width).isdigit():
    raise argparse.ArgumentTypeError(f'{text!r} is not like 101:600x1024')
  return int(depth), int(height), int(width)


def main(argv: Sequence[str] | None = None) -> int:
  """Runs all of it; returns the exit code."""
  args = parse(argv)
  # jax keeps to three quarters of the memory unless it is told otherwise.
  os.environ.setdefault('XLA_PYTHON_CLIENT_MEM_FRACTION', '0.95')
  tries = _TINY if args.device == 'cpu' else (
    device_ceilings.SIDES, device_ceilings.MIB
  )  # fmt: skip
  ceilings = device_ceilings.measure_apart(args.device, *tries)
  print(device_ceilings.describe(ceilings), file=sys.stderr, flush=True)
  machine = roofline.Machine(ceilings['flops_per_s'], ceilings['bytes_per_s'])
  lines: list[str] = []
  failed = False

  def add(new: list[str], outcomes: dict[str, Outcome]) -> None:
    nonlocal failed
    print('\n'.join(new), file=sys.stderr, flush=True)
    lines.extend(new)
    failed |= any(o.how == _FAILED for o in outcomes.values())
    if args.output:  # whatever comes later, these figures are there
      args.output.write_text(report(args, ceilings, lines), encoding='utf-8')

  for depth, size in args.nets:
    runs = sweep(args, depth, size, ceilings['memory_bytes'])
    for batch, outcomes in runs:
      net = Net(depth, size, batch, args.dtype, STRIDE_IN)
      add(rows(net, outcomes, machine), outcomes)
  for step, outcomes in detection_sweep(args):
    add(detection_rows(step, outcomes, machine), outcomes)
  print(report(args, ceilings, lines))
  return 1 if failed else 0


if __name__ == '__main__':
  sys.exit(main())
