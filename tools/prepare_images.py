"""Image folder, CSV or JSONL -> data set in the record format.

  python -m tools.prepare_images --input photos/ --output data/photos
  python -m tools.prepare_images --input labels.csv --output data/x \\
      --image_column file --labels_column wnid --hierarchy is_a.tsv
  python -m tools.prepare_images --output data/x --verify

The input is read by the same sources that train from it directly
(docs/preparing-data.md). Interrupted work goes on where it stopped when the
command is repeated; the result does not depend on --workers.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from typing import Any

from big_vision_like import plugins
from tools import preparer

# Handed to the source as they are, where given.
_SOURCE_OPTIONS = (
  'root', 'image_column', 'labels_column', 'split_column', 'label_separator',
  'holdout_percent', 'merge_rows', 'vocabulary', 'hierarchy',
  'hierarchy_unlisted', 'hierarchy_max_depth',
)  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
  return preparer.main(
    argv,
    prog='python -m tools.prepare_images',
    description=__doc__ or '',
    add_arguments=add_arguments,
    open_sources=open_sources,
  )


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """--input, --splits, and the label options of the sources."""
  add = parser.add_argument
  add('--input', help='image folder, or .csv, .tsv or .jsonl file (.gz too)')
  add('--splits', default='train,val', help='default: %(default)s')
  group = parser.add_argument_group(
    'labels', 'options of the source, if it has them'
  )
  for name in _SOURCE_OPTIONS:
    if name == 'merge_rows':
      group.add_argument('--merge_rows', action='store_true', default=None)
    else:
      kind = {'holdout_percent': float, 'hierarchy_max_depth': int}
      group.add_argument(f'--{name}', type=kind.get(name, str))


def open_sources(args: argparse.Namespace) -> dict[str, Any]:
  """split -> source."""
  if args.input is None:
    raise ValueError('--input is missing: an image folder, CSV or JSONL file')
  kind = 'folder' if os.path.isdir(args.input) else 'table'
  if not os.path.exists(args.input):
    raise FileNotFoundError(f'--input {args.input!r} does not exist')
  options = {
    name: getattr(args, name)
    for name in _SOURCE_OPTIONS
    if getattr(args, name) is not None
  }
  if options.get('label_separator') == '':
    options['label_separator'] = None
  source_class = plugins.get('source', kind)
  where = f'--input {args.input} ({kind})'
  plugins.check_kwargs(where, source_class, {'path': args.input, **options})
  splits = [name.strip() for name in args.splits.split(',')]
  if len(set(splits)) < len(splits) or not all(splits):
    raise ValueError(f'--splits {args.splits!r} is not a list of names')
  for name in splits:
    if name != os.path.basename(name):
      raise ValueError(f'--splits: {name!r} cannot be part of a file name')
  return {
    split: source_class(path=args.input, split=split, **options)
    for split in splits
  }


if __name__ == '__main__':
  sys.exit(main())
