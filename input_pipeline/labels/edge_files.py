"""Files of child -> parent edges, by suffix (docs/label-hierarchy.md).

  .tsv .csv  child, parent on each line; first '# ' comments, then a header
             'child parent' are allowed before the first edge
  .txt       parent and child on each line, a space between them: the order of
             ImageNet's wordnet.is_a.txt
  .json      {"is_a": [[child, parent], ...]}; other keys are ignored. Or the
             tree of Open Images: {"LabelName": ..., "Subcategory": [...]}
  .jsonl     a vocabulary with `parents` (vocabulary.py)
Each may be gzipped (.gz). Nothing here knows which nodes are labels.
"""

import json
import os
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from input_pipeline.labels import text_lines, vocabulary


class Edges(NamedTuple):
  """(child, parent) names in file order, and where each stands."""

  pairs: Sequence[tuple[str, str]]
  where: Callable[[int], str]  # index of an edge -> 'file:line'


def read(path: str | os.PathLike[str]) -> Edges:
  """Reads the edges of a file.

  Raises:
    FileNotFoundError: no such file.
    ValueError: unknown suffix, malformed, or without edges; names the line.
  """
  path = os.fspath(path)
  suffix = os.path.splitext(path.removesuffix('.gz'))[1]
  readers = {
    '.tsv': lambda path: _read_rows(path, '\t'),
    '.csv': lambda path: _read_rows(path, ','),
    '.txt': _read_is_a,
    '.json': _read_json,
    '.jsonl': lambda path: of_vocabulary(vocabulary.load(path)),
  }
  if not os.path.exists(path):
    raise FileNotFoundError(f'{path}: no such file')
  if suffix not in readers:
    raise ValueError(
      f'{path}: unknown kind of hierarchy file {suffix!r}; valid suffixes: '
      f'{", ".join(readers)} (.gz too)'
    )
  edges = readers[suffix](path)
  if not edges.pairs:
    raise ValueError(f'{path}: no child -> parent edges in it')
  return edges


def of_vocabulary(labels: vocabulary.Vocabulary) -> Edges:
  """Edges of the vocabulary's own `parents`."""
  pairs, owners = [], []
  for i, parents in enumerate(labels.parents or ()):
    pairs += [(labels.names[i], parent) for parent in parents]
    owners += [i] * len(parents)
  return Edges(pairs, lambda i: labels.where(owners[i]))


def _read_rows(path: str, delimiter: str) -> Edges:
  lines = text_lines.read(path)
  comments = 0
  while comments < len(lines) and lines[comments].startswith('# '):
    comments += 1
  pairs: list[tuple[str, str]] = []
  numbers: list[int] = []
  for number, fields in text_lines.rows(path, lines[comments:], delimiter):
    number += comments
    if len(fields) != 2:
      raise ValueError(
        f'{path}:{number}: expected child{delimiter!r}parent, '
        f'got {len(fields)} fields: {fields!r:.80}'
      )
    if not pairs and [f.lower() for f in fields] == ['child', 'parent']:
      continue
    for name in fields:
      text_lines.check_name(name, f'{path}:{number}')
    pairs.append((fields[0], fields[1]))
    numbers.append(number)
  return Edges(pairs, lambda i: f'{path}:{numbers[i]}')


def _read_is_a(path: str) -> Edges:
  """ImageNet's wordnet.is_a.txt: the parent comes first."""
  pairs: list[tuple[str, str]] = []
  numbers: list[int] = []
  for number, line in enumerate(text_lines.read(path), 1):
    fields = line.split()
    if not fields:
      continue
    if len(fields) != 2:
      raise ValueError(
        f'{path}:{number}: expected parent and child with a space between '
        f'them, got {len(fields)} fields: {line!r:.80}'
      )
    for name in fields:
      text_lines.check_name(name, f'{path}:{number}')
    pairs.append((fields[1], fields[0]))
    numbers.append(number)
  return Edges(pairs, lambda i: f'{path}:{numbers[i]}')


def _read_json(path: str) -> Edges:
  text = '\n'.join(text_lines.read(path))
  content = text_lines.parse_json(text, path)
  if isinstance(content, dict) and 'LabelName' in content:
    return _read_tree(path, content)
  entries = content.get('is_a') if isinstance(content, dict) else None
  if not isinstance(entries, list):
    raise ValueError(
      f'{path}: expected an object {{"is_a": [[child, parent], ...]}} or the '
      'tree of Open Images, {"LabelName": ..., "Subcategory": [...]}'
    )

  def where(i: int) -> str:
    return f'{path}:{_line_of_element(text, "is_a", i)}'

  pairs: list[tuple[str, str]] = []
  for i, entry in enumerate(entries):
    if not isinstance(entry, list) or len(entry) != 2:
      raise ValueError(
        f'{where(i)}: expected [child, parent], got {entry!r:.80}'
      )
    for name in entry:
      try:
        text_lines.check_name(name, '')
      except ValueError:
        text_lines.check_name(name, where(i))
    pairs.append((entry[0], entry[1]))
  return Edges(pairs, where)


def _read_tree(path: str, root: dict[str, Any]) -> Edges:
  """The nested objects of Open Images; a `Part` is no kind of its whole.

  A label with several parents stands below each of them with all that is below
  it, so an edge that occurs again says nothing new.
  """
  places: dict[tuple[str, str], str] = {}  # edge -> where it is first
  waiting = [(root, 'the root')]
  while waiting:
    node, place = waiting.pop()
    name, below = node['LabelName'], node.get('Subcategory', [])
    text_lines.check_name(name, f'{path}: {place}')
    if not isinstance(below, list):
      raise ValueError(
        f'{path}: Subcategory of {place} must be a list, got {below!r:.80}'
      )
    for i, child in enumerate(below):
      inside = f'Subcategory {i + 1} of {name!r}'
      if not isinstance(child, dict) or 'LabelName' not in child:
        raise ValueError(
          f'{path}: {inside}: not an object with a "LabelName": {child!r:.80}'
        )
      edge = (
        text_lines.check_name(child['LabelName'], f'{path}: {inside}'),
        name,
      )
      places.setdefault(edge, inside)
      waiting.append((child, inside))
  pairs, where = list(places), list(places.values())
  return Edges(pairs, lambda i: f'{path}: {where[i]}')


def _line_of_element(text: str, key: str, index: int) -> int:
  """1-based line of element `index` of the top-level list `key`."""
  decoder = json.JSONDecoder()
  space = re.compile(r'[\s,:]*')

  def skip(position: int) -> int:
    match = space.match(text, position)
    return match.end() if match else position

  position = skip(text.index('{') + 1)
  while True:
    found: Any
    found, position = decoder.raw_decode(text, position)
    position = skip(position)
    if found == key:
      break
    position = skip(decoder.raw_decode(text, position)[1])
  position = skip(position + 1)  # behind the '[' of the list
  for _ in range(index):
    position = skip(decoder.raw_decode(text, position)[1])
  return text.count('\n', 0, position) + 1
