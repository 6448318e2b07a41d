"""The folder that a command writes to: never part of what it reads.

A folder of results inside an image folder would be a class of it the next time
that it is read.
"""

import os
from collections.abc import Iterable, Mapping
from typing import Any


def refuse_inside(
  output: str,
  inputs: Iterable[str],
  *,
  flag: str = '--output',
  of: str = '--input',
) -> None:
  """Checks a folder or file to write against the folders that are read.

  Args:
    output: need not exist.
    inputs: places that are read; what is no folder cannot hold the output.
    flag, of: of the output and of the inputs, for the message.

  Raises:
    ValueError: the output is one of the inputs or lies inside it.
  """
  target = os.path.realpath(output)
  for path in inputs:
    source = os.path.realpath(path)
    if os.path.isdir(source) and os.path.commonpath([source, target]) == source:
      raise ValueError(f'{flag} {output!r} lies inside {of} {path!r}')


def places(config: Mapping[str, Any]) -> list[str]:
  """What a source config reads: its path, where it has one."""
  path = config.get('path')
  return [os.fspath(path)] if isinstance(path, str | os.PathLike) else []


def make(output: str, flag: str = '--output') -> None:
  """Makes the folder, where it is absent.

  Raises:
    ValueError: it cannot be made, or a file has its name.
  """
  try:
    os.makedirs(output, exist_ok=True)
  except OSError as error:
    reason = (
      'is a file, not a folder'
      if isinstance(error, FileExistsError)
      else error.strerror
    )
    raise ValueError(f'{flag} {output!r}: {reason}') from None
