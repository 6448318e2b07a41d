"""JSON of files that others may have written; all that is wrong is ValueError.

Python's reader ends with a RecursionError where brackets nest too deeply, and
what passes it may be too deep for who walks through it.
"""

import json
from typing import Any

MAX_DEPTH = 100  # of brackets; our own files have less than 20


def parse(text: str | bytes, where: str = '') -> Any:
  """json.loads of a file's content.

  Args:
    text: of the file; bytes are UTF-8, 16 or 32.
    where: the file, for the message; '' where the caller names it.

  Raises:
    ValueError: not JSON, in one line.
  """
  try:
    found = json.loads(text)
    check_depth(found)
    return found
  except RecursionError:
    reason = _TOO_DEEP
  except ValueError as error:
    reason = str(error)
    if not where:
      raise
  raise ValueError(f'{where}: not JSON: {reason}' if where else reason)


def check_depth(value: Any) -> None:
  """ValueError where dicts and lists nest more than MAX_DEPTH deep."""
  level = [value]
  for _ in range(MAX_DEPTH):
    level = [child for each in level for child in _children(each)]
    if not level:
      return
  raise ValueError(_TOO_DEEP)


def _children(value: Any) -> list[Any]:
  if isinstance(value, dict):
    return [x for x in value.values() if isinstance(x, dict | list)]
  if isinstance(value, list):
    return [x for x in value if isinstance(x, dict | list)]
  return []


_TOO_DEEP = f'JSON nested more than {MAX_DEPTH} deep'
