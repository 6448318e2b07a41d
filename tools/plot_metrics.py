"""Curves of one or several runs: metrics.jsonl to a PNG.

  python -m tools.plot_metrics WORKDIR [WORKDIR ...] \\
    [--keys train/loss fasteval/map@100] [--x step|examples|hours] [--out a.png]

One panel a key, one colour a run. Training figures are drawn faint as they
are and bold as a running mean. Lines that a killed run left torn are reported
and left out; where a step stands twice, after a resume, the later line counts.
"""

import argparse
from collections.abc import Sequence

from big_vision_like.pages import metrics_plot

from .cli import command


def main(argv: Sequence[str] | None = None) -> None:
  parser = argparse.ArgumentParser(
    prog=command.as_called('python -m tools.plot_metrics'),
    description=command.as_called(__doc__),
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument('workdirs', nargs='+', metavar='WORKDIR')
  parser.add_argument('--keys', nargs='+', metavar='KEY')
  parser.add_argument('--x', choices=metrics_plot.X_AXES, default='step')
  parser.add_argument('--out', help='PNG; default metrics.png in the first run')
  args = parser.parse_args(argv)
  try:
    print(metrics_plot.plot(args.workdirs, args.keys, args.out, args.x))
  except (ValueError, OSError) as error:
    raise SystemExit(f'error: {error}') from None


if __name__ == '__main__':
  main()
