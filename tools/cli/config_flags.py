"""Flags of commands that take --config with overrides, as `python -m main`."""

import sys
from collections.abc import Callable, Sequence
from typing import Any

from big_vision_like.config import overrides
from tools.cli import command


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
  from ml_collections import config_flags

  values = flags.FlagValues()
  config_flags.DEFINE_config_file(
    'config',
    None,
    'config file, file:args',
    flag_values=values,
    sys_argv=list(argv),
  )
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
  try:
    values.config.keys()  # a config that failed to load says so here
  except OSError as error:
    raise overrides.unreadable(error) from None
  return values


def run(work: Callable[[], Any]) -> None:
  """Does the work of a command; ends the process where it goes wrong."""
  from absl import flags

  code = command.run(
    work, mistakes=(ValueError, OSError, flags.Error), text=_message
  )
  if code:
    sys.exit(code)


def _message(error: Exception) -> str:
  text = str(error).strip()
  if 'Traceback' in text:  # a config's own error, as absl wraps it
    text = text.splitlines()[-1].partition('Error: ')[2]
  return text
