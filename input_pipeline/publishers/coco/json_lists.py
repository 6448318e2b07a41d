"""The entries of the lists of a large JSON object, one at a time.

COCO's annotations are one line of half a gigabyte. As Python objects they take
several times that; here an entry is turned into an object, handed out and
forgotten, so that only the text itself is held.
"""

import json
import re
from collections.abc import Iterator
from typing import Any

from input_pipeline.labels import text_lines

_SPACE = re.compile(r'[ \t\r\n]*')


class JsonLists:
  """A JSON object, read from its text.

  Args:
    data: the file's bytes.
    origin: its name, for messages.

  Raises:
    ValueError: not UTF-8; names the line.
  """

  def __init__(self, data: bytes, origin: str):
    self.origin = origin
    try:
      self._text = data.decode('utf-8')
    except UnicodeDecodeError as error:
      line = data.count(b'\n', 0, error.start) + 1
      raise ValueError(f'{origin}:{line}: not UTF-8: {error.reason}') from None
    self._at = 0
    self._keys: set[str] = set()

  def has(self, key: str) -> bool:
    """Whether `entries` has come past this key, also with an empty list."""
    return key in self._keys

  def where(self, offset: int) -> str:
    """'file:line column c' of an offset in the text."""
    line = self._text.count('\n', 0, offset) + 1
    column = offset - self._text.rfind('\n', 0, offset)
    return f'{self.origin}:{line} column {column}'

  def entries(self) -> Iterator[tuple[str, int, Any]]:
    """(key, offset, entry) of the lists, in the order of the file.

    The value of a key that is no list comes as one entry.

    Raises:
      ValueError: not a JSON object, cut short, NaN or Infinity, a repeated
        key; names the place.
    """
    self._at = 0
    self._expect('{', 'a JSON object')
    self._keys = seen = set()
    while not self._skip('}'):
      if seen:
        self._expect(',', "',' or '}'")
      start, key = self._value()
      if not isinstance(key, str) or key in seen:
        problem = 'a repeated key' if key in seen else 'a key must be text'
        raise ValueError(f'{self.where(start)}: {problem}: {key!r:.60}')
      seen.add(key)
      self._expect(':', "':'")
      if self._skip('['):
        yield from self._list(key)
      else:
        yield key, *self._value()
    if self._next() < len(self._text):
      raise ValueError(f'{self.where(self._at)}: text behind the JSON object')

  def _list(self, key: str) -> Iterator[tuple[str, int, Any]]:
    """Entries of a list, from behind its '['."""
    if self._skip(']'):
      return
    while True:
      yield key, *self._value()
      if self._skip(']'):
        return
      self._expect(',', "',' or ']'")

  def _next(self) -> int:
    """Moves on to the next character that is no white space."""
    match = _SPACE.match(self._text, self._at)
    assert match is not None  # it matches the empty string too
    self._at = match.end()
    return self._at

  def _skip(self, character: str) -> bool:
    if not self._text.startswith(character, self._next()):
      return False
    self._at += 1
    return True

  def _expect(self, character: str, wanted: str) -> None:
    if not self._skip(character):
      found = self._text[self._at : self._at + 20]
      raise ValueError(
        f'{self.where(self._at)}: expected {wanted}, got {found!r}'
        if found
        else f'{self.where(self._at)}: the file ends too early, expected '
        f'{wanted}'
      )

  def _value(self) -> tuple[int, Any]:
    """(offset, the JSON value there)."""
    start = self._next()
    try:
      value, self._at = text_lines.DECODER.raw_decode(self._text, start)
    except json.JSONDecodeError as error:
      raise ValueError(
        f'{self.where(error.pos)}: not JSON: {error.msg}'
      ) from None
    except RecursionError:
      raise ValueError(f'{self.where(start)}: JSON nested too deeply') from None
    except ValueError as error:
      raise ValueError(f'{self.where(start)}: {error}') from None
    return start, value
