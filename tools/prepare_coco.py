"""COCO as published -> data set in the record format.

  python -m tools.prepare_coco --input coco/ --output data/coco
  python -m tools.prepare_coco --input coco/ --output data/coco_minival \\
      --minival_ids mscoco_minival_ids.txt --year 2014
  python -m tools.prepare_coco --input mine/ --output data/mine --splits train

--input is the folder with annotations_trainval2017.zip, train2017.zip and
val2017.zip, as downloaded or unpacked, or with your own data in COCO's form.
Records hold the categories present as labels, and boxes, outlines and
keypoints; docs/preparing-data.md (COCO).
"""

import argparse
import sys
from collections.abc import Sequence

from input_pipeline.publishers.coco import source as coco

from .cli import command, preparer


def add_arguments(parser: argparse.ArgumentParser) -> None:
  add = parser.add_argument
  add('--input', help='folder of the downloads, archives or unpacked')
  add(
    '--task', choices=coco.TASKS, default='instances',
    help='instances: 80 categories; keypoints: persons and their keypoints; '
    'both: 80 categories, persons with keypoints; default: %(default)s',
  )  # fmt: skip
  add(
    '--year', type=int, choices=coco.YEARS, default=2017,
    help='of the release; default: %(default)s',
  )  # fmt: skip
  add(
    '--minival_ids', metavar='FILE',
    help='image ids of val, one a line: writes the splits '
    f'{coco.TRAINVAL_MINUS_MINIVAL} and {coco.MINIVAL} instead of train and '
    'val',
  )  # fmt: skip
  add(
    '--splits',
    help='with commas between; default: train,val, or those of --minival_ids. '
    'test-dev and other lists of images have no truth; all: one file of all '
    'images',
  )  # fmt: skip
  add(
    '--annotations', metavar='PATH',
    help='your own data: their JSON below --input, {split} for the split',
  )  # fmt: skip
  add(
    '--images', metavar='PATH',
    help='your own data: folder of images below --input, {split} for the split',
  )  # fmt: skip
  add(
    '--holdout_percent', type=float,
    help='one file of all images: the part that is val',
  )  # fmt: skip
  add('--scratch', metavar='DIR', help='where .tar.gz files are decompressed')


def open_sources(args: argparse.Namespace) -> dict[str, coco.Source]:
  if not args.input:
    raise ValueError('--input is needed: the folder of the downloads')
  return coco.open_splits(
    args.input,
    task=args.task,
    year=args.year,
    splits=None if args.splits is None else args.splits.split(','),
    minival_ids=args.minival_ids,
    annotations=args.annotations,
    images=args.images,
    holdout_percent=args.holdout_percent,
    scratch=args.scratch,
  )


def main(argv: Sequence[str] | None = None) -> int:
  return preparer.main(
    argv,
    prog=command.as_called('python -m tools.prepare_coco'),
    description=command.as_called(__doc__) or '',
    add_arguments=add_arguments,
    open_sources=open_sources,
  )


if __name__ == '__main__':
  sys.exit(main())
