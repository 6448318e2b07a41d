"""Statistics of one or several data sets side by side, as text for people."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from .label_statistics import TAIL

_TITLE = 34  # characters
_TITLES = {'raw': 'raw', 'filled': 'after fill-in'}


def table(summaries: Sequence[Mapping[str, Any]]) -> str:
  """Rows of figures; of each summary a column for raw and filled labels."""
  writer = _Writer(summaries)
  if len(summaries) > 1:
    writer.head('fraction', [f'{s["fraction"]:g}' for s in summaries])
  writer.once('images', lambda s: s['images'])
  writer.once('records that cannot be used', lambda s: s['records_bad'])
  writer.once('classes', lambda s: s['classes'])
  writer.gap()
  writer.kinds('labels')
  writer.each('total', lambda part: part['total'])
  writer.each('per image, mean', lambda part: part['per_image_mean'])
  writer.each('per image, most', lambda part: part['per_image_max'])
  writer.each('images without a label', lambda part: part['images_without'])
  writer.each('classes with images', lambda part: part['classes_with_images'])
  writer.each(
    'classes without images', lambda part: part['classes_without_images']
  )
  for limit in map(str, TAIL):
    writer.each(
      f'classes with fewer than {int(limit):,}',
      lambda part, limit=limit: part['classes_with_fewer_images_than'][limit],
    )
  writer.each(
    'images of the median class', lambda part: part['median_class_images']
  )
  writer.each(
    'images of the largest class', lambda part: part['largest_class_images']
  )
  writer.each('largest class', lambda part: part['largest_class'])
  _states(writer)
  _hierarchy(writer)
  lines = [line.rstrip() for line in writer.lines]
  for summary in summaries:
    read, records = summary['records_read'], summary['records']
    sample = '' if read == records else 'evenly spread over '
    lines.append(f'{summary["images"]:,} images: {sample}{summary["subset"]}')
    for key, reason in summary['bad_keys'].items():
      lines.append(f'cannot be used: {key}: {reason}')
  return '\n'.join(lines)


class _Writer:
  """Lines of a table whose columns are (summary, raw or filled)."""

  def __init__(self, summaries: Sequence[Mapping[str, Any]]):
    self._summaries = summaries
    self._kinds = [tuple(s['labels']) for s in summaries]
    self._width = 22 if sum(map(len, self._kinds)) <= 2 else 16
    self.lines: list[str] = []

  def _row(self, title: str, cells: Sequence[Any]) -> None:
    shown = ''.join(f'{_cell(c, self._width):>{self._width}}' for c in cells)
    self.lines.append(f'{title:<{_TITLE}}{shown}')

  def head(self, title: str, cells: Sequence[str]) -> None:
    """One cell a summary, over its first column."""
    self._row(
      title,
      [
        cell if i == 0 else ''
        for cell, kinds in zip(cells, self._kinds)
        for i in range(len(kinds))
      ],
    )

  def once(self, title: str, figure: Any) -> None:
    """One figure a summary."""
    self.head(title, [_number(figure(s)) for s in self._summaries])

  def kinds(self, title: str) -> None:
    self._row(title, [_TITLES[k] for kinds in self._kinds for k in kinds])

  def each(self, title: str, figure: Any) -> None:
    """A figure of the raw and of the filled labels."""
    parts = [part for s in self._summaries for part in s['labels'].values()]
    self._row(title, [_number(figure(part)) for part in parts])

  def columns(self, title: str, figure: Any) -> None:
    """figure(summary, kind) in every column."""
    cells = [
      _number(figure(s, kind))
      for s, kinds in zip(self._summaries, self._kinds)
      for kind in kinds
    ]
    self._row(title, cells)

  def gap(self) -> None:
    self.lines.append('')

  def all_have(self, *path: str) -> bool:
    """Whether every summary holds this entry."""

    def has(node: Any) -> bool:
      for key in path:
        if key not in node:
          return False
        node = node[key]
      return True

    return all(map(has, self._summaries))


def _number(value: Any) -> str:
  if isinstance(value, float):
    return f'{value:,.2f}'
  return f'{value:,}' if isinstance(value, int) else str(value)


def _cell(text: str, width: int) -> str:
  return text if len(text) < width - 1 else f'{text[: width - 5]}...'


def _states(writer: _Writer) -> None:
  """Present, absent, unknown, and confidences, where records have them."""
  if writer.all_have('label_states', 'per_image'):
    writer.gap()
    writer.kinds('labels of an image, mean')
    for state, title in (
      ('positive', 'present'),
      ('negative', 'known to be absent'),
      ('unknown', 'unknown'),
    ):
      writer.columns(
        title,
        lambda s, kind, state=state: s['label_states']['per_image'][kind][
          state
        ],
      )
    writer.once(
      'negatives that contradict a label',
      lambda s: s['label_states']['negatives_contradicted'],
    )
  if writer.all_have('label_states', 'confidence'):
    writer.gap()

    def of(summary: Mapping[str, Any], key: str) -> Any:
      return summary['label_states']['confidence'][key]

    writer.once('confidence of labels, mean', lambda s: of(s, 'mean'))
    writer.once('labels with confidence 1', lambda s: of(s, 'exactly_1'))
    edges = of(writer._summaries[0], 'bin_edges')
    for i, (low, high) in enumerate(itertools.pairwise(edges)):
      last = ', 1 included' if high == 1 else ''
      writer.once(
        f'  {low:.1f} to {high:.1f}{last}',
        lambda s, i=i: of(s, 'labels_by_bin')[i],
      )


def _hierarchy(writer: _Writer) -> None:
  if not writer.all_have('hierarchy'):
    return
  writer.gap()
  writer.head('hierarchy', ['' for _ in writer._summaries])

  def share(summary: Mapping[str, Any]) -> str:
    gaining = summary['images_gaining_labels']
    return f'{gaining / max(summary["images"], 1):.1%}'

  writer.once('images that gain labels', share)
  for title, key in (
    ('depth, edges from a root', 'max_depth'),
    ('most children of a node', 'max_children'),
    ('node with the most children', 'max_children_node'),
    ('most ancestors of a label', 'max_ancestors'),
    ('edges', 'num_edges'),
    ('roots', 'num_roots'),
    ('leaves', 'num_leaves'),
    ('labels with several parents', 'num_multi_parent'),
    ('labels in no edge', 'num_isolated'),
    ('nodes without an output id', 'num_unlisted'),
  ):
    writer.once(title, lambda s, key=key: s['hierarchy'][key])
