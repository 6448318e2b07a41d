"""Labels by record, from a file or a data set, to compare two labellings.

  key,labels                     {"key": "a/1.jpg", "labels": ["cat", "mat"]}
  a/1.jpg,cat;mat                {"key": "a/2.jpg", "labels": []}

A record without labels is one on which no label applies.
"""

import dataclasses
import os
from collections.abc import Iterator
from typing import Any

from big_vision_like.config import plugins
from big_vision_like.protocols import LabelReader, RecordReader, Source
from input_pipeline.labels import text_lines

Row = tuple[str, list[str]]  # key of a record, names of its labels
_SUFFIXES = {'.csv': ',', '.tsv': '\t', '.jsonl': ''}


@dataclasses.dataclass(frozen=True)
class Columns:
  """Where in a file the key and the labels are.

  Attributes:
    key, labels: names of the columns, or keys of the JSON objects.
    separator: between the labels of one field; '' where it is one label.
    only: (column, value) of the rows to read; None for all.
  """

  key: str = 'key'
  labels: str = 'labels'
  separator: str = ';'
  only: tuple[str, str] | None = None


def is_file(text: str) -> bool:
  """Whether an argument names a file of labels, by its suffix."""
  return _suffix(text) in _SUFFIXES and ':' not in text.partition('/')[0]


def read_file(path: str, columns: Columns) -> dict[str, list[str]]:
  """Key -> names of labels.

  Raises:
    FileNotFoundError: no such file.
    ValueError: unknown column, malformed row or a key twice; names the line.
  """
  lines = text_lines.read(path)
  delimiter = _SUFFIXES[_suffix(path)]
  rows = _csv(path, lines, delimiter) if delimiter else _json(path, lines)
  found: dict[str, list[str]] = {}
  first: dict[str, int] = {}
  for line, row in rows:
    where = f'{path}:{line}'
    if columns.only and _field(row, columns.only[0], where) != columns.only[1]:
      continue
    key = _field(row, columns.key, where)
    if not isinstance(key, str) or not key:
      raise ValueError(f'{where}: {columns.key!r} is no key: {key!r:.80}')
    if first.setdefault(key, line) != line:
      raise ValueError(f'{where}: {key!r} is already at line {first[key]}')
    labels = _field(row, columns.labels, where)
    found[key] = [
      text_lines.check_name(name, where)
      for name in _names(labels, columns.separator, where)
    ]
  if not found:
    only = f' with {columns.only[0]}={columns.only[1]}' if columns.only else ''
    raise ValueError(f'{path}: no rows{only}')
  return found


def read_source(source: Source, bad: dict[str, str]) -> Iterator[Row]:
  """Keys and labels of the records of a source; images are not decoded.

  Args:
    source: any source; the key is that inside the record, where it has one.
    bad: gets the key and reason of every record that cannot be used.
  """
  from input_pipeline.examples.errors import BadExample

  read = source.read if isinstance(source, RecordReader) else None
  labels_of = source.labels if isinstance(source, LabelReader) else None
  names = source.vocabulary.names
  for index in range(len(source)):
    try:
      if read is not None:
        record = read(index)
        key, labels = record.key, record.labels
      elif labels_of is not None:
        key, labels = source.key(index), labels_of(index)
      else:
        example = source[index]
        key = example.get('key', source.key(index))
        labels = example['labels']
    except BadExample as error:
      bad[source.key(index)] = error.reason
      continue
    yield key, [names[label] for label in labels]


def _suffix(path: str) -> str:
  return os.path.splitext(path.removesuffix('.gz'))[1]


def _field(row: dict[str, Any], name: str, where: str) -> Any:
  if name not in row:
    raise ValueError(
      f'{where}: no column {name!r}{plugins.suggest(name, row)}; there are: '
      f'{", ".join(row) or "none"}'
    )
  return row[name]


def _names(labels: Any, separator: str, where: str) -> list[str]:
  if isinstance(labels, str):
    parts = labels.split(separator) if separator else [labels]
    return list(dict.fromkeys(n for part in parts if (n := part.strip())))
  names = labels if isinstance(labels, list) else [labels]
  if not all(isinstance(n, str) or type(n) is int for n in names):
    raise ValueError(f'{where}: labels must be names, got {labels!r:.80}')
  return list(dict.fromkeys(map(str, names)))


def _csv(
  path: str, lines: list[str], delimiter: str
) -> Iterator[tuple[int, dict[str, Any]]]:
  table = text_lines.rows(path, lines, delimiter)
  line, header = next(table, (1, []))
  if len(set(header)) < len(header):
    raise ValueError(f'{path}:{line}: a column twice: {", ".join(header)}')
  for line, fields in table:
    if len(fields) != len(header):
      raise ValueError(
        f'{path}:{line}: {len(fields)} fields, but the header has {len(header)}'
      )
    yield line, dict(zip(header, fields))


def _json(path: str, lines: list[str]) -> Iterator[tuple[int, dict[str, Any]]]:
  for line, text in enumerate(lines, 1):
    if text.strip():
      row = text_lines.parse_json(text, f'{path}:{line}')
      if not isinstance(row, dict):
        raise ValueError(f'{path}:{line}: not a JSON object')
      yield line, row
