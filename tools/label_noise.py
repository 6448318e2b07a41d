"""How many labels are wrong, and how many are missing, against clean ones.

  python -m tools.label_noise --data records:data/x:train --clean clean.csv
  python -m tools.label_noise --data noisy.csv --clean clean.jsonl --output OUT

The clean labels are those of some of the records, a few hundred checked by
hand, say, and complete: what they do not list, the image does not show. Prints
overall rates and the classes with most wrong labels; with --output writes all
classes to label_noise.csv and report.html. docs/label-noise.md explains the
figures. In a file of labels each row is a record: key,labels with labels
divided by ';', or JSON lines.

Exit codes: 0 done; 2 a mistake in the command or its input; 130 interrupted.
"""

import argparse
import sys
from collections.abc import Sequence

from .cli import command, data_argument, output_folder
from .noise import label_comparison, label_lists, label_noise_report


def parser() -> argparse.ArgumentParser:
  """The command line; every default is in its help."""
  p = argparse.ArgumentParser(
    prog=command.as_called('python -m tools.label_noise'),
    description=command.as_called(__doc__),
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  add = p.add_argument
  kinds = f'.csv, .tsv or .jsonl file of labels, {data_argument.HELP}'
  add('--data', required=True, help=f'labels to judge: {kinds}')
  add('--clean', required=True, help='true labels, in the same forms')
  add('--output', help='folder for label_noise.csv and report.html')
  add(
    '--match', choices=('key', 'position'), default='key',
    help='what pairs the records of both; default: %(default)s',
  )  # fmt: skip
  add(
    '--fill_in', action='store_true',
    help='also after fill-in through the hierarchy',
  )  # fmt: skip
  add('--hierarchy', help='file of child, parent; default: that of --data')
  add('--top', type=int, default=20, help='classes shown; default: 20')
  group = p.add_argument_group('files of labels')
  for name, default, what in (
    ('key_column', 'key', 'names the record'),
    ('labels_column', 'labels', 'has the labels of --data'),
    ('clean_column', 'labels', 'has the labels of --clean'),
    ('label_separator', ';', "divides labels; '' for one label a field"),
  ):
    group.add_argument(
      f'--{name}', default=default, help=f'{what}; default: {default}'
    )
  group.add_argument(
    '--rows', metavar='COLUMN=VALUE', help='read only such rows'
  )
  command.add_trust(p)
  return p


def run(args: argparse.Namespace) -> list[label_comparison.Estimate]:
  """Compares, prints and writes; returns the estimates, raw first."""
  if args.top < 1:
    raise ValueError(f'--top must be at least 1, got {args.top}')
  if args.output is not None:
    for name in ('data', 'clean'):
      text, flag = getattr(args, name), f'--{name}'
      if not label_lists.is_file(text):
        source = data_argument.parse(text, flag, trusted=args.trust)
        given = output_folder.places(source)
        output_folder.refuse_inside(args.output, given, of=flag)
    output_folder.make(args.output)
  pairs = label_comparison.read_pairs(args)
  found = label_comparison.estimate(pairs, args.fill_in)
  print(label_noise_report.report(pairs, found, args.top))
  if args.output is not None:
    title = f'{args.data} against {args.clean}'
    label_noise_report.write(args.output, pairs, found, title)
    print(f'written to {args.output}: label_noise.csv, report.html')
  return found


def main(argv: Sequence[str] | None = None) -> int:
  args = parser().parse_args(argv)
  return command.run(lambda: run(args))


if __name__ == '__main__':
  sys.exit(main())
