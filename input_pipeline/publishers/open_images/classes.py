"""Labels of Open Images: names (MIDs), what they mean, and their hierarchy.

A label's name is its MID ('/m/01yrx'), its description what the publisher
calls it ('Cat').
"""

from collections.abc import Sequence
from typing import Any

from input_pipeline.labels import edge_files, text_lines
from input_pipeline.labels import vocabulary as vocabularies

_HEADER = ['LabelName', 'DisplayName']
_CHILDREN = ('Subcategory', 'Part')


def read_descriptions(path: str) -> dict[str, str | None]:
  """MID -> display name, in the order of the file.

  Args:
    path: CSV of MID and name, with or without the header LabelName,DisplayName.

  Raises:
    FileNotFoundError: no such file.
    ValueError: not such a file, or a MID twice; names the line.
  """
  found: dict[str, str | None] = {}
  lines: dict[str, int] = {}
  for line, fields in text_lines.rows(path, text_lines.read(path), ','):
    if line == 1 and fields == _HEADER:
      continue
    where = f'{path}:{line}'
    if len(fields) != 2:
      raise ValueError(f'{where}: expected MID,name, got {fields!r:.80}')
    name = text_lines.check_name(fields[0], where)
    if lines.setdefault(name, line) != line:
      raise ValueError(f'{where}: {name!r} is already at line {lines[name]}')
    found[name] = ' '.join(fields[1].split()) or None
  if not found:
    raise ValueError(f'{path}: no labels in it')
  return found


def read_classes(path: str, known: Sequence[str]) -> list[str]:
  """Those of the known MIDs that a list names, in the order of the known.

  Args:
    path: text file, a MID a line, such as oidv7-classes-trainable.txt.
    known: the MIDs that have descriptions.

  Raises:
    FileNotFoundError: no such file.
    ValueError: an unknown MID, or one twice; names the line.
  """
  names, lines = set(known), dict[str, int]()
  for line, text in enumerate(text_lines.read(path), 1):
    name = text.strip()
    if not name or (line == 1 and name == _HEADER[0]):
      continue
    if name not in names:
      raise ValueError(
        f'{path}:{line}: {name!r:.60} is not among the {len(known):,} class '
        f'descriptions{vocabularies.suggestion(name, known)}'
      )
    if lines.setdefault(name, line) != line:
      raise ValueError(
        f'{path}:{line}: {name!r} is already at line {lines[name]}'
      )
  if not lines:
    raise ValueError(f'{path}: no labels in it')
  return [name for name in known if name in lines]


def read_hierarchy(path: str, *, parts: bool) -> list[tuple[str, str]]:
  """(child, parent) MIDs, each once.

  Args:
    path: the publisher's JSON tree, or any file of labels/edge_files.py.
    parts: a `Part` of a label is taken as its child too (an image of a wheel
      is then one of a car); otherwise only a `Subcategory` is.

  Raises:
    FileNotFoundError: no such file.
    ValueError: malformed; says where.
  """
  edges = dict.fromkeys(edge_files.read(path).pairs)
  if parts:
    content = text_lines.parse_json('\n'.join(text_lines.read(path)), path)
    if not isinstance(content, dict) or 'LabelName' not in content:
      raise ValueError(f'{path}: no tree of Open Images, so it has no parts')
    edges |= dict.fromkeys(_tree_edges(content, path))
  return list(edges)


def _tree_edges(root: dict[str, Any], path: str) -> list[tuple[str, str]]:
  """Edges to subcategories and parts of nested objects."""
  edges, waiting = [], [root]
  while waiting:
    node = waiting.pop()
    for key in _CHILDREN:
      below = node.get(key, [])
      if not isinstance(below, list):
        raise ValueError(f'{path}: {key} of {node["LabelName"]!r} is no list')
      for child in below:
        if not isinstance(child, dict) or 'LabelName' not in child:
          raise ValueError(
            f'{path}: {key} of {node["LabelName"]!r}: no "LabelName" in '
            f'{child!r:.80}'
          )
        where = f'{path}: {key} of {node["LabelName"]!r}'
        name = text_lines.check_name(child['LabelName'], where)
        edges.append((name, node['LabelName']))
        waiting.append(child)
  return edges
