"""Text files of names, read so that every mistake can name its line.

Vocabularies, hierarchies and image tables are written by hand or by other
programs, and may be hostile: compression bombs, lines without end, broken
UTF-8, JSON with NaN, repeated keys or lone surrogates. Each is refused with
one message that starts with `file:line`.
"""

import csv
import gzip
import json
import math
import os
import re
import zlib
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO, NoReturn, TextIO

from input_pipeline.files import retries

MAX_BYTES = 1 << 32  # of the text, after decompression
MAX_LINE = 1 << 20  # characters
MAX_RATIO = 200  # of text: below 20; deflate can reach 1,000
_RATIO_FROM = 16 << 20  # bytes of text from which on the ratio is looked at
_MAX_LINE_BYTES = 4 * MAX_LINE  # UTF-8 has up to four a character
_CHUNK = 1 << 20
# What spreadsheets run when a file with the name in it is opened; a sign alone,
# such as '=' or '@home', is none.
_FORMULA = re.compile(r'=[+\-@]*\w|[+\-@]+\w[\w.]*[(|!]')
_NUMBER = re.compile(r'[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d{1,3})?', re.ASCII | re.I)
_FORBIDDEN = re.compile('[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]')


def read(path: str | os.PathLike[str]) -> list[str]:
  """Lines of a UTF-8 text file (gzipped if it ends in .gz), without newlines.

  Raises:
    FileNotFoundError: no such file.
    ValueError: unreadable, not UTF-8, a line longer than MAX_LINE or a text
      larger than MAX_BYTES; names the file and the line.
  """
  path = os.fspath(path)
  try:
    with retries.open_binary(path) as raw:
      data = _bytes(path, raw)
  except FileNotFoundError:
    raise FileNotFoundError(f'{path}: no such file') from None
  except retries.StorageError:
    raise
  except (OSError, EOFError, zlib.error) as error:
    reason = getattr(error, 'strerror', None) or error
    raise ValueError(f'{path}: cannot be read: {reason}') from None
  try:
    text = data.decode('utf-8')
  except UnicodeDecodeError as error:
    line = data.count(b'\n', 0, error.start) + 1
    raise ValueError(f'{path}:{line}: not UTF-8: {error.reason}') from None
  lines = text.removeprefix('\ufeff').split('\n')
  if not lines[-1]:
    lines.pop()
  if max(map(len, lines), default=0) > MAX_LINE:
    line = next(i for i, s in enumerate(lines, 1) if len(s) > MAX_LINE)
    raise ValueError(f'{path}:{line}: longer than {MAX_LINE:,} characters')
  if '\r' in text:
    lines = [line.removesuffix('\r') for line in lines]
  return lines


def _bytes(path: str, raw: BinaryIO) -> bytearray:
  """The content, decompressed; a bomb is refused while it is still small."""
  zipped = path.endswith('.gz')
  file = gzip.GzipFile(fileobj=raw) if zipped else raw
  data = bytearray()
  last_end = 0  # of the last whole line
  while chunk := file.read(_CHUNK):
    if (end := chunk.rfind(b'\n')) >= 0:
      last_end = len(data) + end + 1
    data += chunk
    if len(data) > MAX_BYTES:
      raise ValueError(f'{path}: more than {MAX_BYTES:,} bytes of text')
    if len(data) - last_end > _MAX_LINE_BYTES:
      line = data.count(b'\n') + 1
      raise ValueError(f'{path}:{line}: longer than {MAX_LINE:,} characters')
    if zipped and len(data) > max(_RATIO_FROM, MAX_RATIO * raw.tell()):
      raise ValueError(
        f'{path}: {len(data):,} bytes from {raw.tell():,}, above {MAX_RATIO}:1:'
        ' refused'
      )
  return data


def bounded(path: str, file: TextIO) -> Iterator[str]:
  """The lines of an open text, for files too large for `read`.

  Raises:
    ValueError: a line longer than MAX_LINE, before it is read whole.
  """
  number = 0
  while line := file.readline(MAX_LINE + 1):
    number += 1
    if len(line) > MAX_LINE:
      raise ValueError(f'{path}:{number}: longer than {MAX_LINE:,} characters')
    yield line


def rows(
  path: str, lines: Sequence[str], delimiter: str
) -> Iterator[tuple[int, list[str]]]:
  """(1-based number of its first line, fields) of each row of a CSV or TSV.

  CSV fields may be quoted ("a, b"); in a TSV quotes are ordinary characters.
  Empty lines are skipped.
  """
  quoting = csv.QUOTE_MINIMAL if delimiter == ',' else csv.QUOTE_NONE
  reader = csv.reader(
    (f'{line}\n' for line in lines),
    delimiter=delimiter,
    quoting=quoting,
    strict=True,
  )
  start = 1
  while True:
    try:
      fields = next(reader)
    except StopIteration:
      return
    except csv.Error as error:
      raise ValueError(f'{path}:{start}: {error}') from None
    if fields:
      yield start, fields
    start = reader.line_num + 1


def _refuse_constant(constant: str) -> NoReturn:
  raise ValueError(f'{constant} is not a JSON number')


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
  found = dict(pairs)
  if len(found) < len(pairs):
    raise ValueError(f'a repeated key among {[key for key, _ in pairs]}')
  return found


DECODER = json.JSONDecoder(
  parse_constant=_refuse_constant, object_pairs_hook=_unique_keys
)


_WITH_CONSTANTS = json.JSONDecoder(object_pairs_hook=_unique_keys)


def parse_json(text: str, where: str, *, constants: bool = False) -> Any:
  """json.loads that refuses NaN, Infinity and repeated keys.

  Args:
    text: of the file.
    where: of messages.
    constants: let NaN and Infinity pass, for callers that name their place.

  Raises:
    ValueError: not such JSON; the message starts with `where`.
  """
  try:
    return (_WITH_CONSTANTS if constants else DECODER).decode(text)
  except json.JSONDecodeError as error:
    place = f'line {error.lineno} column {error.colno}'
    raise ValueError(f'{where}: not JSON: {error.msg} at {place}') from None
  except RecursionError:
    place = f'line {_line_of_deepest(text)}'
    raise ValueError(f'{where}: JSON nested too deeply at {place}') from None
  except ValueError as error:
    raise ValueError(f'{where}: {error}{_at_constant(text, error)}') from None


_STRINGS_OR = r'"(?:[^"\\]|\\.)*"|'
_BRACKETS = re.compile(_STRINGS_OR + r'([\[{])|([\]}])', re.DOTALL)
_CONSTANTS = re.compile(_STRINGS_OR + r'(NaN|-?Infinity)', re.DOTALL)


def _line_of_deepest(text: str) -> int:
  """The line on which JSON is nested most deeply."""
  depth = deepest = at = 0
  for found in _BRACKETS.finditer(text):
    depth += bool(found[1]) - bool(found[2])
    if depth > deepest:
      deepest, at = depth, found.start()
  return text.count('\n', 0, at) + 1


def _at_constant(text: str, error: ValueError) -> str:
  """Where the first number stands that is none, if that was refused."""
  if '\n' not in text or not str(error).endswith('is not a JSON number'):
    return ''
  places = (m.start(1) for m in _CONSTANTS.finditer(text) if m[1])
  return f' at line {text.count(chr(10), 0, next(places, 0)) + 1}'


def number(text: str) -> float:
  """A number as files write it, NaN for other text.

  Python's own reader takes '1_0' and digits of any script too.
  """
  return float(text) if _NUMBER.fullmatch(text.strip()) else math.nan


def check_name(name: Any, where: str) -> str:
  """`name`, if it can stand as one field of any of the project's files.

  Raises:
    ValueError: not a string, empty, surrounded by white space, with control
      characters, line separators or lone surrogates in it, or a formula.
  """
  if not isinstance(name, str):
    raise ValueError(f'{where}: a name must be a string, got {name!r:.80}')
  if not name or name != name.strip():
    raise ValueError(
      f'{where}: a name must not be empty or surrounded by white space, '
      f'got {name!r:.80}'
    )
  if not name.isprintable() and (bad := _FORBIDDEN.search(name)):
    raise ValueError(
      f'{where}: character {bad[0]!a} is not allowed in the name {name!a:.80}'
    )
  if _FORMULA.match(name):
    raise ValueError(
      f'{where}: the name {name!r:.80} is a formula, which a spreadsheet would '
      'run: refused'
    )
  return name
