"""Flags of commands that take --config with overrides, as `python -m main`."""

import sys
from collections.abc import Callable, Sequence
from typing import Any

from big_vision_like.config import loading, overrides

from . import command


def parse(argv: Sequence[str], text: str, define: Callable[[Any], None]) -> Any:
  """The values of --config and of the command's own flags.

  --help prints `text` and the flags, and ends the command.

  Args:
    argv: command line, the program's name first.
    text: what the command is, for --help.
    define: adds the command's own flags to the absl FlagValues given.

  Raises:
    ValueError, absl.flags.Error: an unknown flag, key or argument, a value
      that does not fit, or no config.
  """
  from absl import flags

  values = flags.FlagValues()
  loading.define_flag(values, argv)
  define(values)
  if '--help' in argv or '-h' in argv:
    print(f'{text}\n{values.get_help()}')
    sys.exit(0)
  try:
    rest = values(list(argv))
  except Exception as error:  # what a wrong override raises has many types
    raise overrides.explain(values, argv, error) from None
  if len(rest) > 1:
    raise ValueError(f'unknown argument {rest[1]!r}; see --help')
  if values.config is None:
    raise ValueError('--config is missing, such as configs/quickstart.py')
  return values


def run(work: Callable[[], Any]) -> None:
  """Does the work of a command; ends the process where it goes wrong."""
  from absl import flags

  code = command.run(work, mistakes=(ValueError, OSError, flags.Error))
  if code:
    sys.exit(code)
