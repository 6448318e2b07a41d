"""Folders, tables, shards: whatever a source reads -> the record format.

  python -m tools.prepare_images --input photos/ --output data/photos
  python -m tools.prepare_images --input labels.csv --output data/x \\
      --image_column file --labels_column wnid --hierarchy is_a.tsv
  python -m tools.prepare_images --type tfds --option name=cifar10 \\
      --splits train,test --output data/cifar10
  python -m tools.prepare_images --output data/x --verify

What lies at --input decides how it is read: an image folder, a .csv, .tsv or
.jsonl table (.gz too), WebDataset shards, or a prepared data set; --type names
any other source, the import path of your own too. They are the sources that
training reads directly (docs/preparing-data.md). Interrupted work goes on where
it stopped when the command is repeated; the result is the same for any
--workers.
"""

import argparse
import contextlib
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, get_args

from big_vision_like.config import option_types, plugins
from big_vision_like.protocols import Source
from input_pipeline.labels import hierarchy
from input_pipeline.sources import detect

from .cli import command, preparer

# Handed to the source as they are, where given; --option does the same.
_SOURCE_OPTIONS = {
  'root': 'folder that the images of a table are relative to',
  'image_column': 'of a table: paths of the images',
  'labels_column': 'of a table: their labels',
  'split_column': 'of a table: train, val, ...',
  'label_separator': "between the labels of a field; '' for one label a field",
  'holdout_percent': 'part of the images that is val, by their names',
  'merge_rows': 'rows of the same image are one image with all their labels',
  'vocabulary': 'file of the label names (.jsonl, .txt)',
  'hierarchy': 'file of child and parent (.tsv, .csv, .txt, .json, .jsonl)',
  'hierarchy_unlisted': (
    'what its nodes outside the vocabulary are: a mistake (error), passed '
    'through (traverse), or labels of their own if above one (add)'
  ),
  'hierarchy_max_depth': 'longest path allowed, in edges',
}
_WORDS = {'true': True, 'false': False, 'none': None}


def main(argv: Sequence[str] | None = None) -> int:
  return preparer.main(
    argv,
    prog=command.as_called('python -m tools.prepare_images'),
    description=command.as_called(__doc__) or '',
    add_arguments=add_arguments,
    open_sources=open_sources,
  )


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """--input, --splits, --type, --option, and the label options of sources."""
  add = parser.add_argument
  add('--input', help='what to read: a folder, a table, shards')
  add('--splits', default='train,val', help='default: %(default)s')
  add(
    '--type', default='detect',
    help='source to read with; default: what lies at --input decides',
  )  # fmt: skip
  add(
    '--option', action='append', default=[], metavar='NAME=VALUE',
    help='option of the source; may be repeated',
  )  # fmt: skip
  group = parser.add_argument_group(
    'labels', 'options of the source, if it has them'
  )
  special: dict[str, dict[str, Any]] = {
    'merge_rows': dict(action='store_true', default=None),
    'holdout_percent': dict(type=float),
    'hierarchy_unlisted': dict(choices=get_args(hierarchy.Unlisted)),
    'hierarchy_max_depth': dict(type=int),
  }
  for name, text in _SOURCE_OPTIONS.items():
    group.add_argument(f'--{name}', help=text, **special.get(name, {}))


def open_sources(args: argparse.Namespace) -> dict[str, Source]:
  """split -> source."""
  from input_pipeline import pipeline

  kind = args.type
  if kind == 'detect':
    if args.input is None:
      raise ValueError(
        '--input is missing: an image folder, a table, or WebDataset shards'
      )
    kind = _kind_of(args.input)
  source_class = plugins.get('source', kind)
  valid, required = plugins.option_names(source_class)
  options = _options(args, source_class)
  if args.input is not None:
    options['path'] = args.input
  elif 'path' in required and 'path' not in options:
    raise ValueError(f'--input is missing: source type {kind!r} reads a path')
  where = f'--type {kind}' + (f' (--input {args.input})' if args.input else '')
  plugins.check_kwargs(where, source_class, options)
  splits = [name.strip() for name in args.splits.split(',')]
  if len(set(splits)) < len(splits) or not all(splits):
    wrong = 'names a split twice' if all(splits) else 'is not a list of names'
    raise ValueError(f'--splits {args.splits!r} {wrong}')
  for name in splits:
    if name != os.path.basename(name):
      raise ValueError(f'--splits: {name!r} cannot be part of a file name')
  if 'split' not in valid:
    if len(splits) > 1:
      raise ValueError(
        f'--splits {args.splits}: source type {kind!r} has no splits; name one'
      )
    return {splits[0]: pipeline.make_source(source_class, options, where)}
  return {
    split: pipeline.make_source(
      source_class, {'split': split, **options}, where
    )
    for split in splits
  }


def _kind_of(path: str) -> str:
  try:
    return detect.kind_of(path)
  except FileNotFoundError:
    raise FileNotFoundError(f'--input {path!r} does not exist') from None
  except ValueError as error:
    reason = str(error).partition(': ')[2]
    raise ValueError(f'--input {path!r}: {reason}; see --type') from None


def _options(
  args: argparse.Namespace, source_class: Callable[..., Any]
) -> dict[str, Any]:
  """Options of the source from the label options and --option."""
  options = {
    name: getattr(args, name)
    for name in _SOURCE_OPTIONS
    if getattr(args, name) is not None
  }
  if options.get('label_separator') == '':
    options['label_separator'] = None
  for text in args.option:
    name, equals, value = text.partition('=')
    if not equals or not name:
      raise ValueError(f'--option {text!r} is not of the form NAME=VALUE')
    if name in ('path', 'split'):
      raise ValueError(
        f'--option {text!r}: say it by '
        f'{dict(path="--input", split="--splits")[name]}'
      )
    if name in options:
      raise ValueError(f'--option {text!r}: {name!r} is given twice')
    options[name] = _value(source_class, name, value)
  return options


def _value(source_class: Callable[..., Any], name: str, text: str) -> Any:
  """The text as the first type that the option takes; else the text."""
  candidates: list[Any] = []
  for number in (int, float):
    with contextlib.suppress(ValueError):
      candidates.append(number(text))
  if text.lower() in _WORDS:
    candidates.append(_WORDS[text.lower()])
  for value in (*candidates, text, text.split(',')):
    with contextlib.suppress(ValueError):
      option_types.check('', source_class, {name: value})
      return value
  return text


if __name__ == '__main__':
  sys.exit(main())
