"""Label files made to do harm, and what is said of each."""

import gzip
import pathlib

import pytest

from input_pipeline.labels import hierarchy, vocabulary
from input_pipeline.labels.vocabulary import Vocabulary

GIGABYTE = 10**9
MIB = 1 << 20


def bomb(path, block: bytes) -> str:
  """A gzip file of a gigabyte of `block`, made in no time.

  Its members are copies of one: gzip files joined are a gzip file.
  """
  member = gzip.compress(block * (16 * MIB // len(block)))
  path.write_bytes(member * (GIGABYTE // (16 * MIB) + 1))
  return str(path)


NAMES = ('a', 'b', 'c')
# kind -> (reader, file name, text, message behind 'path')
FILES = {
  'cycle': ('edges', 'e.tsv', 'a\tb\nb\tc\nc\ta\n', ':1: cycle of 3 edges'),
  'depth of a million in JSON': (
    'edges',
    'e.json',
    '{"is_a":\n' + ('[' * 1000 + '\n') * 1000,
    ': JSON nested too deeply at line 1001',
  ),
  'duplicate id': (
    'names',
    'v.jsonl',
    '{"id": 0, "name": "a"}\n{"id": 0, "name": "b"}\n',
    ':2: id 0',
  ),
  'duplicate name': (
    'names', 'v.jsonl', '{"name": "a"}\n{"name": "a"}\n', ":2: ",
  ),
  'duplicate edge': ('edges', 'e.tsv', 'a\tb\na\tb\n', ":2: edge 'a' -> 'b'"),
  'NaN in JSON': (
    'edges',
    'e.json',
    '{"note": "NaN",\n "is_a": [["a", NaN]]}',
    ': NaN is not a JSON number at line 2',
  ),
  'NaN of a weight': (
    'names',
    'v.jsonl',
    '{"name": "a"}\n{"name": "b", "popularity_weight": NaN}\n',
    ':2: NaN is not a JSON number',
  ),
  'surrogate': (
    'edges', 'e.json', '{"is_a": [["a", "b"],\n["\\udfff", "a"]]}', ':2: ',
  ),
  'bytes of a surrogate': ('names', 'v.txt', b'a\n\xed\xbf\xbf\n', ':2: not U'),
  'line separator': ('names', 'v.txt', 'a\nb\u2028c\n', ':2: character'),
}  # fmt: skip


def check(kind: str, folder: pathlib.Path, before: int = 0) -> str:
  """Reads the file of a kind, below so many lines that are fine.

  Raises:
    AssertionError: not refused in one line that names its own.
  """
  reader, name, text, message = FILES[kind]
  path = folder / name
  content = text if isinstance(text, bytes) else text.encode()
  if before and path.suffix != '.json' and kind != 'duplicate id':
    lines = {
      '.tsv': 'node{0}\tother{0}\n',
      '.txt': 'name{0}\n',
      '.jsonl': '{{"name": "name{0}"}}\n',
    }[path.suffix]
    content = ''.join(map(lines.format, range(before))).encode() + content
    digits = message[1 : message.index(':', 1)]
    message = f':{int(digits) + before}:' + message[len(digits) + 2 :]
  unlisted = 'traverse' if before else 'error'
  path.write_bytes(content)
  with pytest.raises(ValueError) as raised:
    if reader == 'edges':
      hierarchy.load(str(path), Vocabulary(NAMES), unlisted=unlisted)
    else:
      vocabulary.load(str(path))
  said = str(raised.value)
  assert said.startswith(f'{path}{message}'), said
  assert '\n' not in said and len(said) < 500
  return said
