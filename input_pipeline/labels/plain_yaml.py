"""YAML of people's data sets, read within bounds.

A few lines of YAML can stand for more than any memory holds, by aliases of
aliases, or for hours of work, by one long number. What data sets need has
neither: lists, keys and values, and text.
"""

import re
from typing import Any

import yaml

MAX_BYTES = 1 << 20
MAX_NODES = 45_000  # values and keys; about 35 MiB while they are read
MAX_DEPTH = 50
# What the library's readers of single values raise, of `!!int ""` for one.
_OF_VALUES = (
  ValueError, TypeError, LookupError, ArithmeticError, AttributeError,
)  # fmt: skip
_LIKE_A_NUMBER = re.compile(r'[-+0-9._:eExXa-fA-F]{100}')


def parse(data: bytes, where: str) -> Any:
  """The value in a document.

  Args:
    data: of the file; UTF-8 or UTF-16.
    where: the file, for messages.

  Raises:
    ValueError: not YAML, or out of bounds; names the line where it is known.
  """
  if len(data) > MAX_BYTES:
    raise ValueError(f'{where}: more than {MAX_BYTES:,} bytes')
  try:
    _check(data, where)
    return yaml.safe_load(data)
  except yaml.YAMLError as error:
    mark: Any = getattr(error, 'problem_mark', None)
    reason = getattr(error, 'problem', None) or str(error).splitlines()[0]
    raise _mistake(where, mark, f'not YAML: {reason}') from None
  except _OutOfBoundsError as error:
    raise ValueError(str(error)) from None
  except _OF_VALUES as error:
    raise ValueError(f'{where}: not YAML: {error}') from None


class _OutOfBoundsError(ValueError):
  """With the whole message."""


def _mistake(
  where: str, mark: Any, text: str, kind: type[ValueError] = ValueError
) -> ValueError:
  line = f':{mark.line + 1}' if mark is not None else ''
  return kind(f'{where}{line}: {text}')


def _check(data: bytes, where: str) -> None:
  """Goes through a document piece by piece, before any of it is kept."""
  depth = nodes = 0
  for event in yaml.parse(data, Loader=yaml.SafeLoader):
    wrong = ''
    nodes += isinstance(event, yaml.NodeEvent)
    if isinstance(event, yaml.CollectionStartEvent):
      depth += 1
    elif isinstance(event, yaml.CollectionEndEvent):
      depth -= 1
    elif isinstance(event, yaml.AliasEvent):
      wrong = f'the alias *{event.anchor}: write out what it stands for'
    elif isinstance(event, yaml.ScalarEvent) and _LIKE_A_NUMBER.match(
      event.value.strip()
    ):
      wrong = f'a number of {len(event.value):,} characters'
    if depth > MAX_DEPTH:
      wrong = f'nested more than {MAX_DEPTH} deep'
    elif nodes > MAX_NODES:
      wrong = f'more than {MAX_NODES:,} values'
    if wrong:
      raise _mistake(where, event.start_mark, wrong, _OutOfBoundsError)
