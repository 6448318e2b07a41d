"""The hierarchy of WordNet on the command lines that prepare ImageNet."""

import argparse
from typing import Any, get_args

from input_pipeline.labels.hierarchy import Unlisted


def add(parser: argparse.ArgumentParser, unlisted: str) -> None:
  """Adds the arguments; `unlisted` is the default of one of them."""
  add = parser.add_argument
  add('--hierarchy', help="ImageNet's wordnet.is_a.txt, or .tsv, .json (.gz)")
  add(
    '--hierarchy_unlisted', choices=get_args(Unlisted), default=unlisted,
    help='what its nodes without images are: a mistake (error), passed through '
    '(traverse), or labels of their own if above one (add); default: '
    '%(default)s',
  )  # fmt: skip
  add('--hierarchy_max_depth', type=int, help='longest path allowed, in edges')


def given(args: argparse.Namespace) -> dict[str, Any]:
  """Their values, as `open_splits` of both takes them."""
  names = ('hierarchy', 'hierarchy_unlisted', 'hierarchy_max_depth')
  return {name: getattr(args, name) for name in names}
