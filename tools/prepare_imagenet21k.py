"""ImageNet-21k as published -> data set in the record format.

  python -m tools.prepare_imagenet21k --input winter21_whole.tar.gz \\
      --scratch /scratch --hierarchy wordnet.is_a.txt \\
      --output data/imagenet21k --resize 340
  python -m tools.prepare_imagenet21k --input class_tars/ --output data/in21k
  python -m tools.prepare_imagenet21k --output data/in21k --verify

The splits are train and val; archives are read in place
(docs/preparing-data.md, "ImageNet-21k").
"""

import argparse
import sys
from collections.abc import Sequence

from big_vision_like.protocols import Source
from input_pipeline.publishers.imagenet import imagenet21k

from .cli import command, preparer, wordnet_arguments


def main(argv: Sequence[str] | None = None) -> int:
  return preparer.main(
    argv,
    prog=command.as_called('python -m tools.prepare_imagenet21k'),
    description=command.as_called(__doc__) or '',
    add_arguments=add_arguments,
    open_sources=open_sources,
  )


def add_arguments(parser: argparse.ArgumentParser) -> None:
  add = parser.add_argument
  add(
    '--input',
    help='winter21_whole.tar.gz, fall11_whole.tar, or a folder of class tars '
    'or of class folders',
  )
  add(
    '--holdout_percent', type=float, default=1.0,
    help='part of the images that is val, by a hash of the file name; '
    'default: %(default)s',
  )  # fmt: skip
  add(
    '--min_images', type=int, default=1,
    help='leave out classes with fewer images; default: %(default)s',
  )  # fmt: skip
  add('--synsets', help='the classes to keep, a wnid a line; default: all')
  add(
    '--ilsvrc_synsets',
    help='the classes of ImageNet-1k, a wnid a line: they get an imagenet_id',
  )
  add('--descriptions', help='words.txt: what the synsets mean')
  add('--scratch', help='folder to decompress the .tar.gz in')
  wordnet_arguments.add(parser, 'add')


def open_sources(args: argparse.Namespace) -> dict[str, Source]:
  """split -> source."""
  if args.input is None:
    raise ValueError('--input is missing: archive or folder of the images')
  return dict(
    imagenet21k.open_splits(
      args.input,
      holdout_percent=args.holdout_percent,
      min_images=args.min_images,
      synset_file=args.synsets,
      ilsvrc_synset_file=args.ilsvrc_synsets,
      descriptions=args.descriptions,
      scratch=args.scratch,
      **wordnet_arguments.given(args),
    )
  )


if __name__ == '__main__':
  sys.exit(main())
