"""A table of (image path, labels): CSV, TSV or JSONL, .gz too.

  path,labels,split                   {"path": "a/1.jpg", "labels": ["cat"]}
  a/1.jpg,cat;indoor,train            {"path": "a/2.jpg", "labels": []}

Nothing in a table is interpreted: names that look like commands are names;
formulas, which spreadsheets would run, are refused. A row without labels is an
image on which no label applies.
"""

import array
import collections
import dataclasses
import os
from collections.abc import Iterator, Sequence
from typing import Annotated, Any

import numpy as np

from big_vision_like.config import plugins
from big_vision_like.config.option_types import AtLeast, Count, NonEmpty
from input_pipeline.files import image_files
from input_pipeline.image_sets import holdout, labelled_files
from input_pipeline.image_sets.fingerprint import Seen
from input_pipeline.labels import hierarchy as hierarchies
from input_pipeline.labels import ragged, text_lines
from input_pipeline.labels import vocabulary as vocabularies
from input_pipeline.labels.vocabulary import Vocabulary

Row = tuple[int, str, list[str], str | None]  # line, image, labels, split
_DELIMITERS = {'.csv': ',', '.tsv': '\t'}


@dataclasses.dataclass(frozen=True)
class Columns:
  """Names of the columns, and how labels are divided."""

  image: str
  labels: str
  split: str
  separator: str | None


class Source(labelled_files.LabelledFiles):
  """Any number of labels an image, from a table.

  Args (options):
    path: the table; its suffix says which kind.
    split: rows whose split column says so; 'all' for every row. A table
      without that column is one set: 'train' and 'all' are all of it.
    root: folder that image paths are relative to; default: the table's. A
      path that leads out of it is refused.
    image_column, labels_column, split_column: names of the columns.
    label_separator: between the labels of a field (white space around them and
      empty ones are dropped); None if a field is one label. JSONL may hold a
      list instead.
    holdout_percent: part of a table without a split column that is 'val';
      decided by each image's own path.
    merge_rows: rows of the same image are one example with all their labels;
      otherwise a second row of an image is an error.
    check_files: so many of the first images must exist at the start; a file
      missing later is a bad record.
    vocabulary: file of the labels, or their names; default: those of the train
      rows, sorted.
    hierarchy, hierarchy_unlisted, hierarchy_max_depth, fingerprint: as in the
      folder source.

  Raises (at construction):
    FileNotFoundError: table or image missing.
    ValueError: malformed row, unknown column, split or label; names the line.
  """

  def __init__(
    self,
    *,
    path: str,
    split: str = 'train',
    root: str | None = None,
    image_column: str = 'path',
    labels_column: str = 'labels',
    split_column: str = 'split',
    label_separator: Annotated[str, NonEmpty()] | None = ';',
    holdout_percent: holdout.Percent | None = None,
    merge_rows: bool = False,
    check_files: Annotated[int, AtLeast(0)] = 100,
    vocabulary: str | Sequence[str] | None = None,
    hierarchy: str | None = None,
    hierarchy_unlisted: hierarchies.Unlisted = 'error',
    hierarchy_max_depth: Count | None = None,
    fingerprint: Seen = 'names',
  ):
    path = image_files.check_path('path', path)
    root = os.path.dirname(path) or '.' if root is None else root
    root = image_files.check_path('root', root)
    if not os.path.isdir(root):
      raise FileNotFoundError(f'root={root!r}: no such folder')
    if holdout_percent is not None:
      holdout.check_split(split)
    columns = Columns(
      image_column, labels_column, split_column, label_separator
    )
    labels = None if vocabulary is None else vocabularies.given(vocabulary)
    table = _Table(path, root, split, holdout_percent, merge_rows, labels)
    table.read(columns)
    labels, ids = table.resolve()
    pairs = np.array(table.rows, np.int64)
    if split == 'train' and labels.counts is None:
      unique = ragged.sorted_unique(pairs * len(labels) + ids)
      counts = np.bincount(unique % len(labels), minlength=len(labels))
      labels = dataclasses.replace(labels, counts=counts)
    labels, closed = hierarchies.attach(
      labels,
      hierarchy,
      unlisted=hierarchy_unlisted,
      max_depth=hierarchy_max_depth,
    )
    paths = [os.fsencode(image) for image in table.images]
    for image, line in zip(paths[:check_files], table.lines):
      if not os.path.exists(os.path.join(os.fsencode(root), image)):
        raise FileNotFoundError(
          f'{path}:{line}: no image {os.path.join(root, os.fsdecode(image))!r}'
          f'; image paths are relative to root={root!r}'
        )
    super().__init__(root, paths, pairs, ids, labels, closed, fingerprint)


class _Table:
  """Reads the rows of one split and numbers their labels as they come."""

  def __init__(
    self,
    path: str,
    root: str,
    split: str,
    holdout_percent: float | None,
    merge_rows: bool,
    vocabulary: Vocabulary | None,
  ):
    self.path, self.root, self.split = path, root, split
    self.holdout_percent, self.merge_rows = holdout_percent, merge_rows
    self.vocabulary = vocabulary
    self.images: dict[str, int] = {}  # path -> row of the source
    self.lines = array.array('q')  # of each image's first row
    self.rows = array.array('q')  # pairs (row of the source, number of label)
    self.numbers = array.array('q')
    self.names: dict[str, int] = {}  # label -> number
    self.first_line: dict[int, int] = {}  # of a label in the wanted split
    self.in_train: set[int] = set()

  def read(self, columns: Columns) -> None:
    """Reads all rows, keeps those of the wanted split."""
    splits: collections.Counter[str | None] = collections.Counter()
    for line, image, labels, split in _rows(self.path, columns):
      image = self._literal_path(image, line)
      split = self._split_of(image, split, columns.split)
      splits[split] += 1
      numbers = [self._number(name, line) for name in labels]
      if split in ('train', None) or self.holdout_percent is not None:
        self.in_train.update(numbers)
      if split in (self.split, None) or self.split == 'all':
        self._keep(line, image, numbers)
    if not splits:
      raise ValueError(f'{self.path}: no rows')
    found = sorted(f'{name} ({n:,} rows)' for name, n in splits.items() if name)
    if not found and self.split not in ('train', 'all'):
      raise ValueError(
        f'{self.path}: unknown split {self.split!r}: the table has no column '
        f'{columns.split!r}; name it by split_column, or divide the rows into '
        f'train and val by holdout_percent'
      )
    if not self.images:
      raise ValueError(
        f'{self.path}: no rows of split {self.split!r}'
        f'{plugins.suggest(self.split, (s for s in splits if s))}; '
        f'there are: {", ".join(found)}, all'
      )

  def _split_of(self, image: str, split: str | None, column: str) -> str | None:
    if self.holdout_percent is None:
      return split
    if split is not None:
      raise ValueError(
        f'{self.path}: has a column {column!r}, so it cannot be divided by '
        f'holdout_percent too'
      )
    out = holdout.held_out(os.fsencode(image), self.holdout_percent)
    return 'val' if out else 'train'

  def _number(self, name: str, line: int) -> int:
    number = self.names.get(name)
    if number is None:
      where = f'{self.path}:{line}'
      text_lines.check_name(name, where)
      if self.vocabulary is not None and name not in self.vocabulary:
        raise ValueError(
          f'{where}: label {name!r} is not in the vocabulary '
          f'{self.vocabulary.origin}'
          f'{vocabularies.suggestion(name, self.vocabulary.names)}'
        )
      number = self.names[name] = len(self.names)
    return number

  def _literal_path(self, image: str, line: int) -> str:
    """The path as written, if it stays inside the root."""
    if not image or '\0' in image or not _encodable(image):
      raise ValueError(f'{self.path}:{line}: not a path: {image!a:.80}')
    odd = '..' in image or './' in image or '//' in image
    if not odd and not image.startswith('/'):
      return image
    base = os.path.abspath(self.root)
    inside = os.path.relpath(os.path.join(base, image), base)
    if inside == '..' or inside.startswith('../'):
      raise ValueError(
        f'{self.path}:{line}: the path {image!r} leads out of '
        f'root={self.root!r}'
      )
    return inside

  def _keep(self, line: int, image: str, numbers: Sequence[int]) -> None:
    row = self.images.setdefault(image, len(self.images))
    if row == len(self.lines):
      self.lines.append(line)
    elif not self.merge_rows:
      raise ValueError(
        f'{self.path}:{line}: image {image!r} is already at line '
        f'{self.lines[row]}; merge_rows=True joins the labels of such rows'
      )
    for number in numbers:
      self.rows.append(row)
      self.numbers.append(number)
      if number not in self.first_line:
        self.first_line[number] = line

  def resolve(self) -> tuple[Vocabulary, np.ndarray]:
    """The vocabulary, and the label ids int64 [m] of the pairs."""
    labels = self.vocabulary
    if labels is None:
      train = [n for n, number in self.names.items() if number in self.in_train]
      if not train:
        raise vocabularies.NotToldError(
          f'{self.path}: no train row has a label, so there is no vocabulary; '
          f'give the option vocabulary'
        )
      labels = Vocabulary(tuple(sorted(train)))
    ids = np.zeros(len(self.names), np.int64)
    for name, number in self.names.items():
      if name in labels:
        ids[number] = labels.index(name)
      elif number in self.first_line:
        raise ValueError(
          f'{self.path}:{self.first_line[number]}: label {name!r} is in no '
          f'train row{vocabularies.suggestion(name, labels.names)}; to allow '
          f'it, give the option vocabulary'
        )
    return labels, ids[np.array(self.numbers, np.int64)]


def _encodable(text: str) -> bool:
  if text.isascii():
    return True
  try:
    return bool(os.fsencode(text))
  except UnicodeEncodeError:
    return False


def _rows(path: str, columns: Columns) -> Iterator[Row]:
  suffix = os.path.splitext(path.removesuffix('.gz'))[1]
  if suffix not in (*_DELIMITERS, '.jsonl'):
    raise ValueError(
      f'{path}: unknown kind of table {suffix!r}; valid suffixes: .csv, .tsv, '
      f'.jsonl (.gz too)'
    )
  lines = text_lines.read(path)
  if suffix == '.jsonl':
    return _json_rows(path, lines, columns)
  return _delimited_rows(path, lines, _DELIMITERS[suffix], columns)


def _delimited_rows(
  path: str, lines: Sequence[str], delimiter: str, columns: Columns
) -> Iterator[Row]:
  table = text_lines.rows(path, lines, delimiter)
  line, header = next(table, (1, []))
  repeated = [n for n, k in collections.Counter(header).items() if k > 1]
  if repeated:
    raise ValueError(f'{path}:{line}: column {repeated[0]!r} occurs twice')
  for option, name in (('image', columns.image), ('labels', columns.labels)):
    if name not in header:
      raise ValueError(
        f'{path}:{line}: no column {name!r}{plugins.suggest(name, header)} '
        f'(option {option}_column); columns: {", ".join(header) or "none"}'
      )
  if columns.split not in header and columns.split != 'split':
    raise ValueError(
      f'{path}:{line}: no column {columns.split!r} (option split_column); '
      f'columns: {", ".join(header)}'
    )
  image, labels = header.index(columns.image), header.index(columns.labels)
  split = header.index(columns.split) if columns.split in header else None
  for line, fields in table:
    if len(fields) != len(header):
      raise ValueError(
        f'{path}:{line}: {len(fields)} fields, but the header has {len(header)}'
      )
    if split is not None and not fields[split]:
      raise ValueError(f'{path}:{line}: the column {columns.split!r} is empty')
    yield (
      line,
      fields[image],
      _divided(fields[labels], columns.separator),
      None if split is None else fields[split],
    )


def _divided(field: str, separator: str | None) -> list[str]:
  parts = [field] if separator is None else field.split(separator)
  return [name for part in parts if (name := part.strip())]


def _json_rows(
  path: str, lines: Sequence[str], columns: Columns
) -> Iterator[Row]:
  has_split: bool | None = None
  for line, text in enumerate(lines, 1):
    if not text.strip():
      continue
    where = f'{path}:{line}'
    row = text_lines.parse_json(text, where)
    if not isinstance(row, dict):
      raise ValueError(f'{where}: not a JSON object')
    for option, name in (('image', columns.image), ('labels', columns.labels)):
      if name not in row:
        raise ValueError(
          f'{where}: no {name!r}{plugins.suggest(name, row)} (option '
          f'{option}_column); keys: {", ".join(row) or "none"}'
        )
    if has_split is None:
      has_split = columns.split in row or columns.split != 'split'
    if (columns.split in row) != has_split:
      raise ValueError(
        f'{where}: {columns.split!r} (option split_column) must be in every '
        f'row or in none'
      )
    image, split = row[columns.image], row.get(columns.split)
    if not isinstance(image, str):
      raise ValueError(f'{where}: {columns.image} is no string: {image!r:.80}')
    if has_split and not (isinstance(split, str) and split):
      raise ValueError(f'{where}: {columns.split} is no name: {split!r:.80}')
    labels = row[columns.labels]
    if isinstance(labels, str):
      names = _divided(labels, columns.separator)
    else:
      names = [
        _label_name(label, where)
        for label in (labels if isinstance(labels, list) else [labels])
      ]
    yield line, image, names, split


def _label_name(label: Any, where: str) -> str:
  """A label in JSON: a string, or a number taken as it is written."""
  if type(label) is int:
    return str(label)
  if not isinstance(label, str):
    raise ValueError(
      f'{where}: a label must be a string or a whole number, got {label!r:.80}'
    )
  return label
