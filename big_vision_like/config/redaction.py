"""Secrets are left out of whatever is written: logs, configs, checkpoints.

Three things are secrets: what stands before the @ of a URL, with or without its
scheme, the values of a URL's parameters and of options whose names say so
(token, password, ...), and the values of such environment variables. Those of a
config that was looked at (`learn`) and of the environment are left out wherever
they stand, also escaped: as Python, JSON, URLs, HTML and shells do it. What is
stored has PLACE instead; configs are compared in that form, so that a run goes
on with the same command, or with another token.
"""

import contextlib
import functools
import os
import re
import sys
import traceback
from collections.abc import Iterator, Mapping
from typing import Any

PLACE = '***'
_KEYS = (
  r'(?:api|access|secret|private|account|encryption|signing|master|license|'
  r'service|storage|client|session|subscription|ssh|deploy)[_-]?key'
)
# Words that say so whatever stands before them, as in PGPASSWORD.
_SURE = rf'(?:token|secret|passw(?:or)?d|passphrase|pwd|credentials?|{_KEYS})'
_NAMES = (
  rf'(?:{_SURE}|pass|signature|auth)'  # the others are words of their own
)
_OPTION = re.compile(rf'(?:.*[^a-z])?{_NAMES}|.*{_SURE}', re.IGNORECASE)
_VARIABLE = re.compile(rf'.*(?:{_NAMES}|dsn)', re.IGNORECASE)
_USER = re.compile(
  r'((?:\b[a-z][a-z0-9+.-]*:|(?<![\w:/]))//)([^/?#\s\"<>]+)@', re.IGNORECASE
)
_HEADER = re.compile(r'(authorization\W{1,4}\w+ +)([^\s\'"]+)', re.IGNORECASE)
# In a URL also key=, sig= and code=, which elsewhere are no secrets.
_PARAMETER = re.compile(
  rf'((?:[?&;](?:[\w.-]*[^a-z\W])?(?:{_NAMES}|key|sig|code)|'
  rf'(?<![\w-])(?:(?:[\w.-]*[_.-])?{_NAMES}|[\w.-]*{_SURE}))=)'
  r"('[^'\n]+'|\"[^\"\n]+\"|[^&;#\s'\"<>]+)",
  re.IGNORECASE,
)
_LEAST = 8  # characters of what is left out anywhere: 'false' is no secret
_learnt: set[str] = set()


def text(line: str) -> str:
  """The text without its secrets."""
  if '//' in line:
    line = _USER.sub(rf'\1{PLACE}@', line)
  if '=' in line:
    line = _PARAMETER.sub(rf'\1{PLACE}', line)
  if 'uthorization' in line:
    line = _HEADER.sub(rf'\1{PLACE}', line)
  # The longest first: another may be a part of it.
  for value in sorted({*_of_environment(), *_learnt}, key=len, reverse=True):
    line = _anyhow(value).sub(PLACE, line)
  return line


@functools.lru_cache(maxsize=1000)
def _anyhow(value: str) -> re.Pattern[str]:
  """Matches a text as it is, and escaped in the ways there are."""
  # Backslashes in a row as one: how many there are is not tried out.
  parts = re.findall(r'\\+|[^\\]', value)
  return re.compile(''.join(map(_character_anyhow, parts)))


def _character_anyhow(c: str) -> str:
  """Matches a character, or backslashes in a row."""
  if c.startswith('\\'):
    n = len(c)
    ways = ('(?i:%5c)', '&#92;', '(?i:&#x0*5c;)')
    return rf'(?:\\{{{n},}}|(?:{"|".join(ways)}){{{n}}})'
  octets = c.encode('utf-8', 'surrogatepass')
  ways = ['(?i:' + ''.join(f'%{octet:02x}' for octet in octets) + ')']
  if c.isascii() and c.isalnum():
    return f'(?:{c}|{ways[0]})'
  number = ord(c)
  ways += [
    rf'(?i:\\+(?:x0*{number:x}(?![0-9a-f])|u0*{number:x}))',
    f'&#{number};',
  ]
  ways.append(rf'(?i:&#x0*{number:x};)')
  ways += [f'&{name};' for name in _ENTITIES.get(c, ())]
  ways += [r'\\+' + letter for letter in _ESCAPES.get(c, ())]
  if c == ' ':
    ways.append(r'\+')
  if c == "'":
    ways.append(re.escape("'\"'\"'"))  # as shells quote it
  if number > 0xFFFF:  # as JSON has it
    pair = [0xD800 + (number - 0x10000 >> 10), 0xDC00 + (number & 0x3FF)]
    ways.append('(?i:' + ''.join(rf'\\+u{half:x}' for half in pair) + ')')
  if number > 127:  # a byte at a time
    ways.append('(?i:' + ''.join(rf'\\+x{octet:02x}' for octet in octets) + ')')
  ways.append(r'\\*' + re.escape(c))
  return f'(?:{"|".join(ways)})'


_ENTITIES = {
  '&': ['amp'], '<': ['lt'], '>': ['gt'], '"': ['quot'], "'": ['apos'],
}  # fmt: skip
_ESCAPES = {
  '\n': 'n', '\r': 'r', '\t': 't', '\a': 'a', '\b': 'b', '\f': 'f', '\v': 'v',
}  # fmt: skip


def learn(value: Any, name: str = '') -> None:
  """Secrets in a config are left out of texts from here on.

  Args:
    value: nested dicts and lists.
    name: of the option that it is of.
  """
  if isinstance(value, Mapping):
    for key, each in value.items():
      learn(each, str(key))
  elif isinstance(value, list | tuple):
    for each in value:
      learn(each, name)
  elif isinstance(value, str):
    found = [value] if _OPTION.fullmatch(name) else []
    for user in _USER.findall(value):
      found += [user[1], user[1].rpartition(':')[2]]
    found += [one[1].strip('\'"') for one in _PARAMETER.findall(value)]
    _learnt.update(each for each in found if len(each) >= _LEAST)


class _Stream:
  """A stream of text without secrets."""

  def __init__(self, stream: Any):
    self._stream = stream

  def write(self, line: str) -> int:
    self._stream.write(text(line))
    return len(line)

  def __getattr__(self, name: str) -> Any:
    return getattr(self._stream, name)


def shows_all(stream: Any) -> None:
  """Names of files that are not UTF-8 are shown escaped, and are no error."""
  if hasattr(stream, 'reconfigure'):
    with contextlib.suppress(OSError, ValueError):  # without a reader, closed
      stream.reconfigure(errors='backslashreplace')


def _say_traceback(*error: Any) -> None:
  """As Python ends where nobody caught an error."""
  sys.stderr.write(text(''.join(traceback.format_exception(*error))))


@contextlib.contextmanager
def streams() -> Iterator[None]:
  """Around a command: what it prints has no secrets, nor has its traceback."""
  if sys.excepthook is sys.__excepthook__:
    sys.excepthook = _say_traceback  # and stays: it is called at the very end
  shows_all(sys.stdout)
  out, err = _Stream(sys.stdout), _Stream(sys.stderr)
  with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):  # pyright: ignore[reportArgumentType]
    yield


def plain(value: Any, name: str = '') -> Any:
  """A JSON value without the secrets in it.

  Args:
    value: nested dicts and lists.
    name: of the option that it is of.
  """
  if isinstance(value, Mapping):
    return {key: plain(each, str(key)) for key, each in value.items()}
  if isinstance(value, list | tuple):
    return [plain(each, name) for each in value]
  if not isinstance(value, str):
    return value
  return PLACE if value and _OPTION.fullmatch(name) else text(value)


def check(value: Any, name: str) -> None:
  """ValueError naming an option of which not all was stored.

  Args:
    value: nested dicts and lists, from a config.
    name: config key or flag that it is of.
  """
  if isinstance(value, Mapping):
    for key, each in value.items():
      check(each, f'{name}.{key}')
  elif isinstance(value, list | tuple):
    for number, each in enumerate(value):
      check(each, f'{name}[{number}]')
  elif isinstance(value, str) and PLACE in value:
    raise ValueError(
      f'{name}={value!r}: its secret was not stored with the config; give the '
      'whole value'
    )


def _of_environment() -> list[str]:
  """Values of variables with such names; paths of key files are none."""
  return [
    value
    for name, value in os.environ.items()
    if len(value) >= _LEAST
    and not value.startswith('/')
    and _VARIABLE.fullmatch(name)
  ]
