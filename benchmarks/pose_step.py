"""Images per second of a train step of a pose net, ours against torch.

ResNet of output stride 8 with frozen batch norm, the two layers of G-RMI, maps
interpolated to all pixels and the three losses (big_vision_like/tasks/pose.py).
`torch` is timm's ResNet with two nn.Conv2d and stored targets. The losses of
both are first shown to be equal for the same maps; their nets start from other
weights.

Contestants take turns in processes of their own, as in train_step.py.

  python -m benchmarks.pose_step --depth 50 --batch 2
  python -m benchmarks.pose_step --height 129 --width 97 --batch 8
"""

import argparse
import sys
from collections.abc import Sequence

from benchmarks import train_step
from benchmarks.contestants import pose_step as contestants


class Contestant(train_step.Contestant):
  """A process with one net of pose."""

  MODULE = 'benchmarks.pose_step'
  OPTIONS = contestants.Options._fields


def parse(argv: list[str] | None = None) -> argparse.Namespace:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  names = tuple(contestants.CONTESTANTS)
  add = parser.add_argument
  add('--depth', type=int, default=50, choices=contestants.UNITS)
  add('--height', type=int, default=353, help='pixels, 8 n + 1')
  add('--width', type=int, default=257)
  add('--batch', type=int, default=2)
  add('--keypoints', type=int, default=17)
  train_step.add_common(parser, names, rounds=3, more=('check',))
  return parser.parse_args(argv)


def report(
  args: argparse.Namespace, entries: Sequence[train_step.Contestant]
) -> str:
  """Markdown, the table of train_step.py under a title of its own."""
  lines = [
    f'### Train step: pose, ResNet-{args.depth} at output stride 8, '
    f'{args.height}x{args.width}, {args.keypoints} keypoints, batch '
    f'{args.batch}, {args.dtype}, {args.device}',
    '',
    f'`python -m benchmarks.pose_step {" ".join(sys.argv[1:])}`',
    '',
    train_step.describe_machine(args),
    '',
    *train_step.rows(args, entries),
    '',
  ]
  return '\n'.join(lines)


class Check(Contestant):
  """A process that compares the losses, then ends."""

  def __init__(self, args: argparse.Namespace):
    super().__init__('check', args)
    self.close()


def main() -> None:
  args = parse()
  if args.work_as:
    makers = contestants.CONTESTANTS | {'check': contestants.make_check}
    train_step.work(args, contestants.Options, makers)
    return
  print(f'losses compared: {Check(args).start_up}', file=sys.stderr)
  entries = train_step.take_turns(args, Contestant)
  train_step.finish(args, entries, report)


if __name__ == '__main__':
  main()
