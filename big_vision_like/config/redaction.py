"""Secrets are left out of whatever is written: logs, configs, checkpoints.

Three things are secrets: what stands before the @ of a URL, the values of a
URL's parameters and of options whose names say so (token, password, ...), and
the values of such environment variables. Those of a config that was looked at
(`learn`) and of the environment are left out wherever they stand. What is
stored has PLACE instead; configs are compared in that form, so that a run goes
on with the same command, or with another token.
"""

import contextlib
import os
import re
import sys
from collections.abc import Iterator, Mapping
from typing import Any

PLACE = '***'
_NAMES = (
  r'(?:token|secret|passw(?:or)?d|pwd|signature|credentials?|auth|'
  r'(?:api|access|secret|private|account)[_-]?key)'
)
_OPTION = re.compile(rf'(?:.*[^a-z])?{_NAMES}', re.IGNORECASE)
_USER = re.compile(r"(\b[a-z][a-z0-9+.-]*://)([^/?#\s'\"<>]+)@", re.IGNORECASE)
# In a URL also key=, sig= and code=, which elsewhere are no secrets.
_PARAMETER = re.compile(
  rf'((?:[?&;](?:[\w.-]*[^a-z\W])?(?:{_NAMES}|key|sig|code)|'
  rf"(?<![\w-])(?:[\w.-]*[_-])?{_NAMES})=)([^&;#\s'\"<>]+)",
  re.IGNORECASE,
)
_LEAST = 8  # characters of what is left out anywhere: 'false' is no secret
_learnt: set[str] = set()


def text(line: str) -> str:
  """The text without its secrets."""
  if '://' in line:
    line = _USER.sub(rf'\1{PLACE}@', line)
  if '=' in line:
    line = _PARAMETER.sub(rf'\1{PLACE}', line)
  for value in (*_of_environment(), *_learnt):
    line = line.replace(value, PLACE)
  return line


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
    found += [parameter[1] for parameter in _PARAMETER.findall(value)]
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


@contextlib.contextmanager
def streams() -> Iterator[None]:
  """Around a command: what it prints has no secrets."""
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
    and _OPTION.fullmatch(name)
  ]
