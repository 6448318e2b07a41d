"""Images per second of a train step of Faster R-CNN, ours against torchvision.

ResNet-50 with its head on block3's map (C4), as many RoIs an image in both.
Inference is beside it, and what our step spends on boxes: decoding and
suppression of all anchors, assignment and sampling of both stages, each jitted
on its own, on the step's own inputs, as shares of the step.

torchvision's wheel is for CUDA; tests/peers/torchvision_peer.py loads its
compiled operators beside a torch for CPUs, and the benchmark ends where it
cannot. torchvision looks at its 2,000 best anchors, ours at all of them.
Contestants take turns in processes of their own, as in train_step.py.

  python -m benchmarks.detection_step --height 600 --width 800 --batch 1
  python -m benchmarks.detection_step --height 256 --width 256 --batch 2
"""

import argparse
import statistics
import sys
from collections.abc import Sequence

from benchmarks import train_step
from benchmarks.contestants import detection_step as contestants

_PARTS = {
  'ours-proposals': 'decoding and suppression of all anchors',
  'ours-targets': 'assignment and sampling, both stages',
}


class Contestant(train_step.Contestant):
  """A process with one net of detection."""

  MODULE = 'benchmarks.detection_step'
  OPTIONS = (*contestants.Options._fields, 'device')


def parse(argv: list[str] | None = None) -> argparse.Namespace:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  names = tuple(contestants.CONTESTANTS)
  add = parser.add_argument
  add('--depth', type=int, default=50, choices=(14, 50, 101))
  add('--height', type=int, default=600, help='pixels')
  add('--width', type=int, default=800)
  add('--batch', type=int, default=1)
  add('--classes', type=int, default=80)
  add('--preset', default='paper', choices=tuple(contestants.SAMPLES))
  train_step.add_common(parser, names, rounds=5)
  return parser.parse_args(argv)


def report(
  args: argparse.Namespace, entries: Sequence[train_step.Contestant]
) -> str:
  """Markdown: steps, inference, and the parts of ours as shares of it."""
  anchors, boxes = contestants.SAMPLES[args.preset]
  steps = [e for e in entries if e.name in ('ours', 'torchvision')]
  lines = [
    f'### Faster R-CNN, ResNet-{args.depth} C4, {args.height}x'
    f'{args.width}, batch {args.batch}, {anchors} anchors and {boxes} '
    f'RoIs an image, {args.dtype}, {args.device}',
    '',
    f'`python -m benchmarks.detection_step {" ".join(sys.argv[1:])}`',
    '',
    train_step.describe_machine(args),
    '',
    *train_step.rows(args, steps),
    '',
  ]
  median = {e.name: statistics.median(e.seconds) for e in entries}
  found = [n for n in ('ours', 'torchvision') if f'{n}-inference' in median]
  if found:
    lines += [
      '| inference | s a batch, median | ours / this |',
      '|---|---|---|',
    ]
    ours = median.get('ours-inference', float('nan'))
    for name in found:
      seconds = median[f'{name}-inference']
      lines.append(f'| {name} | {seconds:.3f} | {seconds / ours:.2f} |')
    lines.append('')
  if 'ours' in median and _PARTS.keys() & median.keys():
    lines += ['| part of our step | ms | share of it |', '|---|---|---|']
    for name, what in _PARTS.items():
      if name in median:
        share = median[name] / median['ours']
        lines.append(f'| {what} | {1e3 * median[name]:.2f} | {share:.2%} |')
    lines.append('')
  return '\n'.join(lines)


def main() -> None:
  args = parse()
  if args.work_as:
    train_step.work(args, contestants.Options, contestants.CONTESTANTS)
    return
  train_step.finish(args, train_step.take_turns(args, Contestant), report)


if __name__ == '__main__':
  main()
