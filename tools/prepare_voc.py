"""Pascal VOC as published -> data set in the record format.

  python -m tools.prepare_voc --output data/voc0712 \\
      --input VOCtrainval_06-Nov-2007.tar VOCtest_06-Nov-2007.tar \\
      VOCtrainval_11-May-2012.tar
  python -m tools.prepare_voc --input VOCdevkit/ --output data/voc12_seg \\
      --task segmentation --trainaug_list trainaug.txt \\
      --trainaug_masks SegmentationClassAug.zip

  python -m tools.prepare_voc --input my_photos/ --output data/mine

Images are those of the lists in ImageSets, of every year found: boxes for
detection, masks of class ids for segmentation. Any other folder of images and
XML in VOC's form is read for detection, with its own classes;
docs/preparing-data.md (VOC).
"""

import argparse
import sys
from collections.abc import Sequence
from typing import Any

from input_pipeline.publishers.voc import source as voc

from .cli import command, preparer


def add_arguments(parser: argparse.ArgumentParser) -> None:
  add = parser.add_argument
  add(
    '--input', nargs='+', metavar='PATH',
    help='VOCdevkit folders, or the tars as downloaded, or a folder of them; '
    'or one folder of your own images and XML',
  )  # fmt: skip
  add(
    '--task', choices=voc.TASKS, default='detection',
    help='default: %(default)s',
  )  # fmt: skip
  add(
    '--splits',
    help='lists of ImageSets, with commas between; default: trainval,test for '
    'detection; train,val, or trainaug,val, for segmentation; where they '
    'exist; of your own folder all it has',
  )  # fmt: skip
  add(
    '--vocabulary', metavar='FILE',
    help='classes of detection data, one a line; default: VOC\'s twenty, or of '
    'your own folder its classes.txt, or the names in its XML files, sorted',
  )  # fmt: skip
  add(
    '--holdout_percent', type=float,
    help='of a folder without splits: the part of the images that is val',
  )  # fmt: skip
  add(
    '--trainaug_list', metavar='FILE',
    help='images of the augmented training set, one a line: split trainaug',
  )  # fmt: skip
  add(
    '--trainaug_masks', metavar='PATH',
    help='its masks: a folder or .zip of NAME.png; default: the folder '
    'SegmentationClassAug of the year',
  )  # fmt: skip
  add('--scratch', metavar='DIR', help='where .tar.gz files are decompressed')


def open_sources(args: argparse.Namespace) -> dict[str, Any]:
  if not args.input:
    raise ValueError('--input is needed: VOCdevkit folders, or the tars')
  return voc.open_splits(
    args.input,
    task=args.task,
    splits=None if args.splits is None else args.splits.split(','),
    vocabulary=args.vocabulary,
    holdout_percent=args.holdout_percent,
    trainaug_list=args.trainaug_list,
    trainaug_masks=args.trainaug_masks,
    scratch=args.scratch,
  )


def main(argv: Sequence[str] | None = None) -> int:
  return preparer.main(
    argv,
    prog=command.as_called('python -m tools.prepare_voc'),
    description=command.as_called(__doc__) or '',
    add_arguments=add_arguments,
    open_sources=open_sources,
  )


if __name__ == '__main__':
  sys.exit(main())
