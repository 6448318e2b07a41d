"""report.html of tools/dedup.py: the pairs side by side, to be looked at."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from big_vision_like.pages import html_page
from big_vision_like.protocols import Source
from input_pipeline.examples.errors import BadExample

from . import workers

_SIDE = 160  # pixels of a thumbnail


def write(
  path: str,
  summary: dict[str, Any],
  found: Any,
  rows: Any,
  sources: Sequence[Source],
  num: int,
) -> None:
  """Writes the page.

  Args:
    path: of the page.
    summary: content of summary.json.
    found: the pairs, by score.
    rows: gives a row its set and key.
    sources: the sets.
    num: pairs shown of each kind.
  """
  accepted = np.flatnonzero(found.accepted)
  rejected = np.flatnonzero(~found.accepted)
  kinds = {
    f'Near-duplicates, the best of {len(accepted):,}': accepted[:num],
    'Near-duplicates, the last ones accepted': accepted[num:][-num:],
    f'Candidates refused, the best of {len(rejected):,}': rejected[:num],
  }
  parts = [_summary(summary)]
  for title, shown in kinds.items():
    if len(shown):
      parts.append(html_page.element('h2', title))
      parts += [_pair(found, int(i), rows, sources) for i in shown]
  html_page.save(path, 'Near-duplicates', *parts)


def _summary(summary: dict[str, Any]) -> html_page.Markup:
  counts = summary['counts']
  lines: list[tuple[Any, Any]] = [
    (f'records of {name}', num) for name, num in counts['records'].items()
  ]
  lines += [
    ('images that cannot be used', counts['unreadable']),
    ('candidates', counts['candidates']),
    (
      'candidates beyond max_neighbours, left out',
      counts['candidates_beyond_max_neighbours'],
    ),
    ('near-duplicate pairs', counts['near_duplicate_pairs']),
  ]
  lines += [
    (f'to drop from {name}', num) for name, num in counts['dropped'].items()
  ]
  used = (
    'hash_distance',
    'cosine',
    'mirrored',
    'crops',
    'threshold',
    'no_verify',
  )
  lines += [(name, str(summary['settings'][name])) for name in used]
  lines.append(('vectors', summary['vectors']))
  return html_page.table(('', 'value'), lines)


def _pair(
  found: Any, i: int, rows: Any, sources: Sequence[Source]
) -> html_page.Markup:
  """Two figures and the numbers of the pair."""
  figures = []
  for row in (int(found.first[i]), int(found.second[i])):
    caption = f'{rows.set_label(row)}\n{rows.key(row)}'
    image = _thumbnail(sources, rows.place(row))
    figures.append(html_page.figure(image, caption))
  numbers = []
  if not np.isnan(found.score[i]):
    numbers.append(f'score {found.score[i]:.3f}')
  if found.bits[i] >= 0:
    numbers.append(f'{found.bits[i]} bits')
  if not np.isnan(found.cosine[i]):
    numbers.append(f'cosine {found.cosine[i]:.3f}')
  if found.mirrored[i]:
    numbers.append('mirrored')
  text = html_page.element('div', ', '.join(numbers))
  style = (
    'display: inline-block; border: 1px solid #ddd; padding: 8px; '
    'margin: 0 8px 8px 0; vertical-align: top'
  )
  return html_page.element('div', text, *figures, style=style)


def _thumbnail(sources: Sequence[Source], place: tuple[int, int]) -> np.ndarray:
  """uint8 [h, w, 3], grey where the image cannot be read."""
  try:
    image = workers.read_image(sources[place[0]], place[1], _SIDE)
  except BadExample:
    return np.full((_SIDE, _SIDE, 3), 200, np.uint8)
  picture = Image.fromarray(image)
  scale = _SIDE / max(picture.size)
  if scale < 1:
    width, height = (max(1, round(n * scale)) for n in picture.size)
    picture = picture.resize((width, height), Image.Resampling.BILINEAR)
  return np.asarray(picture)
