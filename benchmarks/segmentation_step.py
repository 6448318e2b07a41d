"""Images per second of a train step of DeepLab-ASPP-L, ours against peers.

ResNet of output stride 8 with frozen batch norm and four atrous branches, on
8 n + 1 pixels, as configs/voc_segmentation.py trains it. `flax` is the same net
of nn.Conv (kernel_dilation) and nn.BatchNorm with optax's momentum; `torch` is
timm's ResNet with four nn.Conv2d. Ours and flax are first shown to give equal
logits for the same weights; they start from the same ones, so their losses say
the same.

Contestants take turns in processes of their own, as in train_step.py.

  python -m benchmarks.segmentation_step --depth 101 --size 257
  python -m benchmarks.segmentation_step --depth 101 --size 513 --batch 6
"""

import argparse
import sys
from collections.abc import Sequence

from benchmarks import train_step
from benchmarks.contestants import segmentation_step as contestants


class Contestant(train_step.Contestant):
  """A process with one net of segmentation."""

  MODULE = 'benchmarks.segmentation_step'
  OPTIONS = contestants.Options._fields


def parse(argv: list[str] | None = None) -> argparse.Namespace:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  names = tuple(contestants.CONTESTANTS)
  add = parser.add_argument
  add('--depth', type=int, default=101, choices=contestants.UNITS)
  add('--size', type=int, default=257, help='pixels, 8 n + 1')
  add('--batch', type=int, default=2)
  add('--classes', type=int, default=21, help='the background among them')
  train_step.add_common(parser, names, rounds=3, more=('check',))
  return parser.parse_args(argv)


def report(
  args: argparse.Namespace, entries: Sequence[train_step.Contestant]
) -> str:
  """Markdown, the table of train_step.py under a title of its own."""
  lines = [
    f'### Train step: ResNet-{args.depth} at output stride 8, {args.size}x'
    f'{args.size}, batch {args.batch}, {args.dtype}, {args.device}',
    '',
    f'`python -m benchmarks.segmentation_step {" ".join(sys.argv[1:])}`',
    '',
    train_step.describe_machine(args),
    '',
    *train_step.rows(args, entries),
    '',
  ]
  return '\n'.join(lines)


class Check(Contestant):
  """A process that compares the logits, then ends."""

  def __init__(self, args: argparse.Namespace):
    super().__init__('check', args)
    self.close()


def main() -> None:
  args = parse()
  if args.work_as:
    makers = contestants.CONTESTANTS | {'check': contestants.make_check}
    train_step.work(args, contestants.Options, makers)
    return
  print(f'logits compared: {Check(args).start_up}', file=sys.stderr)
  entries = train_step.take_turns(args, Contestant)
  train_step.finish(args, entries, report)


if __name__ == '__main__':
  main()
