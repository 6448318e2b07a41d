"""Files that say something about classes or records, for evaluators.

Class values are CSV (`name,<column>` with a header) or JSONL (one object a
line with `name` and the value; a vocabulary file is one), lists are text, one
entry a line. Every mistake is named by file and line.
"""

import math
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from input_pipeline.labels import text_lines


def read_list(path: str | os.PathLike[str]) -> list[str]:
  """The lines of a text file that are not empty."""
  return [line.strip() for line in text_lines.read(path) if line.strip()]


def read_values(
  path: str | os.PathLike[str], vocabulary: Any, columns: Sequence[str]
) -> np.ndarray:
  """One number a class: float64 [C], NaN where the file has none.

  Args:
    path: .csv or .jsonl file.
    vocabulary: gives each name its id.
    columns: names that the value may have; the first one present is read.

  Raises:
    FileNotFoundError: no such file.
    ValueError: naming file and line: unknown or repeated class, a value that
      is no finite number >= 0, or no such column.
  """
  path = os.fspath(path)
  if not path.endswith(('.csv', '.jsonl')):
    raise ValueError(f'{path}: a file of class values is .csv or .jsonl')
  lines = text_lines.read(path)
  rows = _csv_rows if path.endswith('.csv') else _jsonl_rows
  values = np.full(len(vocabulary.names), np.nan)
  for where, row in rows(path, lines):
    column = next((c for c in columns if row.get(c) is not None), None)
    if column is None or 'name' not in row:
      raise ValueError(
        f'{where}: needs "name" and "{columns[0]}", got {", ".join(row)}'
      )
    label = _index(vocabulary, row['name'], where)
    if not math.isnan(values[label]):
      raise ValueError(f'{where}: class {row["name"]!r} appears twice')
    values[label] = _number(row[column], f'{where}: {column}')
  return values


def class_mask(names: Sequence[str], vocabulary: Any, where: str) -> np.ndarray:
  """bool [C], True at the classes named; unknown names are a ValueError."""
  mask = np.zeros(len(vocabulary.names), bool)
  for name in names:
    mask[_index(vocabulary, name, where)] = True
  return mask


def _csv_rows(path: str, lines: list[str]):
  rows = text_lines.rows(path, lines, ',')
  _, header = next(rows, (1, []))
  for number, fields in rows:
    if len(fields) != len(header):
      raise ValueError(
        f'{path}:{number}: {len(fields)} fields under the header '
        f'{",".join(header)}'
      )
    yield f'{path}:{number}', dict(zip(header, fields))


def _jsonl_rows(path: str, lines: list[str]):
  for number, line in enumerate(lines, 1):
    where = f'{path}:{number}'
    row = text_lines.parse_json(line, where)
    if not isinstance(row, dict):
      raise ValueError(f'{where}: not an object')
    yield where, row


def _index(vocabulary: Any, name: Any, where: str) -> int:
  try:
    return vocabulary.index(name)
  except ValueError as error:
    raise ValueError(f'{where}: {error}') from None


def _number(value: Any, where: str) -> float:
  try:
    number = float(value)
  except (TypeError, ValueError):
    number = math.nan
  if isinstance(value, bool) or not (math.isfinite(number) and number >= 0):
    raise ValueError(f'{where} must be a finite number >= 0, got {value!r:.80}')
  return number
