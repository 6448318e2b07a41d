"""What belongs to a stream of training data, and how it is called.

`config.input` is the main stream, whose name is empty; `config.input.also.NAME`
are further ones (docs/streams.md).
"""

import hashlib
import keyword
import re
from collections.abc import Iterable
from typing import Any

MAIN = ''
# What the main stream is called where a name cannot be empty.
SHOWN = 'main'


def sections(config: Any) -> dict[str, Any]:
  """Name of each stream -> its section of a config; the main one first."""
  return {MAIN: config.input, **also(config)}


def also(config: Any) -> dict[str, Any]:
  """Those of `config.input.also`, by name in alphabetical order."""
  found = config.input.get('also', {})
  return {name: found[name] for name in sorted(found)}


def config_key(name: str) -> str:
  """'input', or 'input.also.NAME'."""
  return f'input.also.{name}' if name else 'input'


def as_main(key: str) -> str:
  """A dotted key of a config, that of a stream as if of the main one."""
  return re.sub(r'^input\.also\.\w+(?=\.)', 'input', key)


def field(name: str, of_stream: str) -> str:
  """A field of a stream as a batch has it, 'image' or 'NAME/image'."""
  return f'{name}/{of_stream}' if name else of_stream


def stream_of(field_name: str) -> str:
  """The stream of a field of a batch, or of a figure."""
  return field_name.rpartition('/')[0].partition('/')[0]


def record(name: str, key: str) -> str:
  """The key of a record with its stream, for people."""
  return f'[{name}] {key}' if name else key


def seed_of(seed: int, name: str) -> int:
  """That of a stream's order and chance; of the main one `seed` itself."""
  if not name:
    return seed
  digest = hashlib.blake2b(f'{seed} {name}'.encode(), digest_size=8).digest()
  return int.from_bytes(digest) >> 1


def check(names: Iterable[str]) -> None:
  """Refuses what cannot name a stream.

  Raises:
    ValueError: naming the key.
  """
  for name in names:
    if not re.fullmatch(r'[A-Za-z]\w*', name, re.ASCII) or keyword.iskeyword(
      name
    ):
      raise ValueError(
        f'input.also: {name!r} cannot name a stream; use letters, digits and '
        '_, a letter first'
      )
    if name == SHOWN:
      raise ValueError(
        f'input.also: {name!r} is config.input itself; use another name'
      )
