"""Tables of a study: mean and standard deviation over seeds, as CSV and HTML.

Published figures stand in columns of their own and say where they come from.
A run without figures keeps its row.
"""

import math
import pathlib
from collections.abc import Sequence
from typing import Any

from big_vision_like.pages import html_page

from . import results as outcomes
from .entries import Column, Row, Table
from .plan import Study
from .results import Result, Summary


def html(
  study: Study, table: Table, results: Sequence[Result]
) -> html_page.Markup:
  """The table as it stands in the report."""
  published = _has_published(table)
  header = ['']
  for column in table.columns:
    title = column.title or column.metric
    header.append(title)
    header += ['gain'] if table.baseline else []
    header += [f'{title}, published'] if published else []
  header.append('seeds')
  rows = []
  for row in table.rows:
    cells: list[Any] = [_title(study, row)]
    for column in table.columns:
      summary = _summary(row, column, results)
      cells.append(_shown(summary, column.digits) if summary else '')
      if table.baseline:
        cells.append(_gain_shown(table, row, column, results))
      if published:
        value = row.published.get(column.metric)
        cells.append('' if value is None else _muted(f'{value:g}'))
    first = _summary(row, table.columns[0], results)
    cells.append(f'{first.num} of {first.planned}' if first else '')
    rows.append(cells)
  parts = [html_page.element('h2', table.title or table.name)]
  if table.text:
    parts.append(html_page.element('p', table.text))
  parts.append(html_page.table(header, rows))
  notes = 'Mean ± standard deviation over seeds.'
  if table.baseline:
    notes += (
      f' Gain: over {study.title_of(table.baseline)}, ± standard error of the '
      'difference.'
    )
  if published:
    notes += f' Published: {table.published or "figures of the paper"}.'
  parts.append(html_page.element('p', notes, class_='muted'))
  return html_page.Markup('\n'.join(parts))


def write_csv(
  study: Study, table: Table, results: Sequence[Result], folder: pathlib.Path
) -> pathlib.Path:
  """`NAME.csv`: a line a row and column of the table."""
  lines = []
  for row in table.rows:
    for column in table.columns:
      summary = _summary(row, column, results)
      gain, error = _gain(table, row, column, results)
      lines.append(
        [
          _title(study, row),
          row.run,
          column.metric,
          _finite(summary.mean) if summary and summary.num else None,
          _known(summary.std) if summary else None,
          summary.num if summary else None,
          summary.planned if summary else None,
          _known(gain),
          _known(error),
          row.published.get(column.metric),
        ]
      )
  path = folder / f'{table.name}.csv'
  header = (
    'row', 'run', 'metric', 'mean', 'std', 'seeds', 'seeds_planned', 'gain',
    'gain_error', 'published',
  )  # fmt: skip
  outcomes.write_csv(path, header, lines)
  return path


def text(study: Study, table: Table, results: Sequence[Result]) -> str:
  """The table for the console."""
  header = ['', *(c.title or c.metric for c in table.columns), 'seeds']
  rows = [header]
  for row in table.rows:
    if not row.run:
      continue
    summaries = [_summary(row, column, results) for column in table.columns]
    given = [s for s in summaries if s is not None]
    cells = [_shown(s, c.digits) for s, c in zip(given, table.columns)]
    seeds = f'{given[0].num} of {given[0].planned}'
    rows.append([_title(study, row), *cells, seeds])
  widths = [max(len(row[i]) for row in rows) for i in range(len(header))]
  lines = [
    '  '.join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip()
    for row in rows
  ]
  return '\n'.join([table.title or table.name, *lines])


def _summary(
  row: Row, column: Column, results: Sequence[Result]
) -> Summary | None:
  if not row.run:
    return None
  return outcomes.summarise(results, row.run, column.metric)


def _gain(
  table: Table, row: Row, column: Column, results: Sequence[Result]
) -> tuple[float, float]:
  summary = _summary(row, column, results)
  if not table.baseline or summary is None or row.run == table.baseline:
    return math.nan, math.nan
  over = outcomes.summarise(results, table.baseline, column.metric)
  return outcomes.gain(summary, over)


def _gain_shown(
  table: Table, row: Row, column: Column, results: Sequence[Result]
) -> str:
  gain, error = _gain(table, row, column, results)
  if math.isnan(gain):
    return ''
  more = '' if math.isnan(error) else f' ± {error:.{column.digits}f}'
  return f'{gain:+.{column.digits}f}{more}'


def _shown(summary: Summary, digits: int) -> str:
  """'45.2 ± 0.4'; says what is missing."""
  if not summary.num:
    return 'missing'
  if math.isnan(summary.mean):
    return 'not finite'
  more = '' if math.isnan(summary.std) else f' ± {summary.std:.{digits}f}'
  return f'{summary.mean:.{digits}f}{more}'


def _title(study: Study, row: Row) -> str:
  return row.title or study.title_of(row.run)


def _has_published(table: Table) -> bool:
  return any(row.published for row in table.rows)


def _muted(value: str) -> html_page.Markup:
  return html_page.element('span', value, class_='muted')


def _finite(value: float) -> float | str:
  return 'not finite' if math.isnan(value) else value


def _known(value: float) -> float | None:
  return None if math.isnan(value) else value
