"""ImageNet-1k as published -> data set in the record format.

  python -m tools.prepare_imagenet --input downloads/ --output data/imagenet
  python -m tools.prepare_imagenet --train ILSVRC2012_img_train.tar \\
      --val ILSVRC2012_img_val.tar --val_labels ILSVRC2012_devkit_t12.tar.gz \\
      --output data/imagenet --resize 340
  python -m tools.prepare_imagenet --output data/imagenet --verify

Archives are read in place, nothing is unpacked (docs/preparing-data.md,
"ImageNet-1k").
"""

import argparse
import dataclasses
import sys
from collections.abc import Sequence

from big_vision_like.protocols import Source
from input_pipeline.publishers.imagenet import source as imagenet

from .cli import command, preparer, wordnet_arguments

_SPLITS = ('train', 'val')


def main(argv: Sequence[str] | None = None) -> int:
  return preparer.main(
    argv,
    prog=command.as_called('python -m tools.prepare_imagenet'),
    description=command.as_called(__doc__) or '',
    add_arguments=add_arguments,
    open_sources=open_sources,
  )


def add_arguments(parser: argparse.ArgumentParser) -> None:
  add = parser.add_argument
  add(
    '--input',
    help="folder with the published files, packed or not, or Kaggle's zip",
  )
  add('--train', help='training images, where not as in --input')
  add('--val', help='validation images, where not as in --input')
  add(
    '--val_labels',
    help='their labels, where they lie in no class folders: development kit, '
    'LOC_val_solution.csv, or a .txt with a wnid a line',
  )
  add('--descriptions', help='LOC_synset_mapping.txt or words.txt')
  add('--synsets', help='the classes, a wnid a line; default: those of train')
  add('--splits', default='train,val', help='default: %(default)s')
  add('--scratch', help='folder to decompress a .tar.gz of images in')
  wordnet_arguments.add(parser, 'traverse')


def open_sources(args: argparse.Namespace) -> dict[str, Source]:
  """split -> source."""
  splits = [name.strip() for name in args.splits.split(',')]
  if len(set(splits)) < len(splits) or not set(splits) <= set(_SPLITS):
    raise ValueError(
      f'--splits {args.splits!r}: expected one or both of {", ".join(_SPLITS)}'
    )
  layout = imagenet.Layout()
  if args.input is not None:
    layout = imagenet.locate(args.input)
  elif args.train is None and args.val is None:
    raise ValueError('--input is missing, or --train and --val')
  given = {
    name: getattr(args, name)
    for name in ('train', 'val', 'val_labels', 'descriptions')
    if getattr(args, name) is not None
  }
  if given and layout.within is not None:
    raise ValueError(
      f"--{next(iter(given))} goes with a folder as --input, not with Kaggle's "
      f'zip'
    )
  return dict(
    imagenet.open_splits(
      dataclasses.replace(layout, **given),
      splits,
      synset_file=args.synsets,
      scratch=args.scratch,
      **wordnet_arguments.given(args),
    )
  )


if __name__ == '__main__':
  sys.exit(main())
