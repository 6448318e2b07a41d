"""What label_noise found, for the console, as CSV and as a page."""

import csv
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from big_vision_like.metrics import label_noise as metrics
from big_vision_like.pages import html_page
from input_pipeline.files import atomic

from .label_comparison import Estimate, Pairs, overall

CSV_FILE, PAGE = 'label_noise.csv', 'report.html'
_NUM_CONFUSIONS = 3
_CSV_HEADER: tuple[str, ...] = (
  'labels', 'label', 'uses', 'checked', 'right', 'precision', 'precision_low',
  'precision_high', 'shown', 'found', 'recall', 'recall_low', 'recall_high',
  'instead',
)  # fmt: skip


def class_rows(result: Estimate, names: Sequence[str]) -> list[dict[str, Any]]:
  """One row a class that was checked or shown; most wrong labels first."""
  c = result.counts
  precision, recall = c.precision, c.recall
  p_low, p_high = metrics.wilson_interval(c.right, c.given)
  r_low, r_high = metrics.wilson_interval(c.right, c.true)
  wrong = c.given - c.right
  order = np.lexsort((-c.given, -wrong))
  rows = []
  for i in order.tolist():
    if not (c.given[i] or c.true[i]):
      continue
    values = (
      result.name, names[i], int(result.uses[i]), int(c.given[i]),
      int(c.right[i]), float(precision[i]), float(p_low[i]), float(p_high[i]),
      int(c.true[i]), int(c.right[i]), float(recall[i]), float(r_low[i]),
      float(r_high[i]), _instead(result.instead.get(i), names),
    )  # fmt: skip
    rows.append(dict(zip(_CSV_HEADER, values, strict=True)))
  return rows


def _instead(counter: Any, names: Sequence[str]) -> str:
  """'pear (12), plum (3)': what images of the wrong labels show."""
  if counter is None:
    return ''
  return ', '.join(
    f'{"nothing else" if i == metrics.NOTHING else names[i]} ({n})'
    for i, n in counter.most_common(_NUM_CONFUSIONS)
  )


def percent(rate: float, low: float, high: float) -> str:
  """'81.0% (75.2 to 85.6)', or '-' for a rate of nothing."""
  if np.isnan(rate):
    return '-'
  return f'{rate:.1%} ({100 * low:.1f} to {100 * high:.1f})'


def report(pairs: Pairs, found: Sequence[Estimate], top: int) -> str:
  """The text for the console."""
  lines = [f'{fact}: {value:,}' for fact, value in _facts(pairs)]
  for result in found:
    lines += ['', f'{_title(result)}: rate (95% interval)']
    for name, rate, low, high, remark in overall(result):
      lines.append(f'  {name:<28}{percent(rate, low, high):<26}{remark}')
  lines += ['', f'{"raw label":<24}{"wrong":>7}{"checked":>9}  precision']
  for row in class_rows(found[0], _readable(pairs))[:top]:
    rate = percent(
      row['precision'], row['precision_low'], row['precision_high']
    )
    name = row['label'] if len(row['label']) < 24 else f'{row["label"][:20]}...'
    wrong = row['checked'] - row['right']
    lines.append(
      f'{name:<24}{wrong:>7,}{row["checked"]:>9,}  {rate:<25}{row["instead"]}'
    )
  for key, reason in list(pairs.bad.items())[:top]:
    lines.append(f'cannot be used: {key}: {reason}')
  return '\n'.join(lines)


def _readable(pairs: Pairs) -> list[str]:
  """Names for people; in the CSV they are those of the data."""
  vocabulary = pairs.vocabulary
  return [vocabulary.readable_name(i) for i in range(len(vocabulary))]


def _facts(pairs: Pairs) -> list[tuple[str, int]]:
  return [
    ('records', pairs.num_records),
    ('records with clean labels', len(pairs.given)),
    ('clean labels of unknown records', pairs.num_unmatched),
    ('records that cannot be used', len(pairs.bad)),
  ]


def _title(result: Estimate) -> str:
  return {'raw': 'labels as given', 'filled': 'labels after fill-in'}[
    result.name
  ]


def write(
  folder: str, pairs: Pairs, found: Sequence[Estimate], title: str
) -> None:
  """Writes the CSV, all classes, and the page."""
  names = pairs.vocabulary.names
  rows = [row for result in found for row in class_rows(result, names)]
  path = os.path.join(folder, CSV_FILE)
  with atomic.writing_text(path) as file:
    writer = csv.DictWriter(file, _CSV_HEADER, lineterminator='\n')
    writer.writeheader()
    for row in rows:
      writer.writerow(
        {k: f'{v:.6g}' if isinstance(v, float) else v for k, v in row.items()}
      )
  parts: list[Any] = [
    html_page.element('p', f'{title}', class_='muted'),
    html_page.table(('', ''), _facts(pairs)),
  ]
  for result in found:
    parts.append(html_page.element('h2', _title(result)))
    parts.append(
      html_page.table(
        ('', 'rate (95% interval)', ''),
        [
          (name, percent(rate, low, high), remark)
          for name, rate, low, high, remark in overall(result)
        ],
      )
    )
    parts.append(html_page.element('p', ''))
    parts.append(_class_table(class_rows(result, _readable(pairs))))
  page = os.path.join(folder, PAGE)
  html_page.save(page, 'Label noise', *parts)


def _class_table(rows: Sequence[Mapping[str, Any]]) -> html_page.Markup:
  header = (
    'label', 'uses', 'checked', 'wrong', 'precision', '', 'shown', 'found',
    'recall', '', 'images of wrong labels show',
  )  # fmt: skip
  body = []
  for row in rows:
    cells: list[Any] = [
      row['label'], row['uses'], row['checked'], row['checked'] - row['right']
    ]  # fmt: skip
    for name in ('precision', 'recall'):
      rate = (row[name], row[f'{name}_low'], row[f'{name}_high'])
      if name == 'recall':
        cells += [row['shown'], row['found']]
      cells += [percent(*rate), _bar(*rate)]
    body.append((*cells, row['instead']))
  return html_page.table(header, body)


def _bar(rate: float, low: float, high: float) -> html_page.Markup:
  """The interval as a grey span from 0 to 100%, the rate as a tick in it."""
  if np.isnan(rate):
    return html_page.Markup('')
  span = html_page.element(
    'div',
    style=f'position:absolute; left:{100 * low:.1f}%; top:4px; height:6px; '
    f'width:{100 * (high - low):.1f}%; background:#9cc3dd',
  )
  tick = html_page.element(
    'div',
    style=f'position:absolute; left:calc({100 * rate:.1f}% - 1px); top:1px; '
    'height:12px; width:2px; background:#0b6e99',
  )
  return html_page.element(
    'div',
    span,
    tick,
    style='position:relative; width:120px; height:14px; background:#f3f3f3',
  )
