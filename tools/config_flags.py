"""Flags of commands that take --config with overrides, as `python -m main`."""

import sys
from collections.abc import Callable, Sequence
from typing import Any


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
    'config', None, 'config file, file:args', flag_values=values
  )
  define(values)
  if '--help' in argv or '-h' in argv:
    print(f'{text}\n{values.get_help()}')
    sys.exit(0)
  try:
    rest = values(list(argv))
  except (AttributeError, KeyError) as error:
    lines = str(error).splitlines()
    raise ValueError(f'no such config key: {lines[0].strip(chr(34))}') from None
  if len(rest) > 1:
    raise ValueError(f'unknown argument {rest[1]!r}; see --help')
  if values.config is None:
    raise ValueError('--config is missing, such as configs/quickstart.py')
  try:
    values.config.keys()  # a config that failed to load says so here
  except OSError as error:
    lines = str(error).splitlines()
    raise ValueError(f'--config: {lines[-1].strip()}') from None
  return values


def fail(error: Exception) -> None:
  """Prints a mistake of the user in one message; exit code 2."""
  text = str(error).strip()
  if 'Traceback' in text:  # a config's own error, as absl wraps it
    text = text.splitlines()[-1].partition('Error: ')[2]
  print(f'error: {text}', file=sys.stderr)
  sys.exit(2)
