"""Pictures of label statistics: images per class by rank, labels per image."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from .label_statistics import LabelCounts

_COLOURS = ('#0b6e99', '#d9622b', '#3b8f4d', '#8a4fae', '#b8860b', '#555555')
_LIMITS = (20, 100)  # the paper counts the classes with fewer images


def plot(
  series: Sequence[tuple[str, LabelCounts]], path: str, title: str
) -> None:
  """Writes a PNG: rank-frequency curves, and labels per image as bars.

  Args:
    series: (name, counts), a curve and a set of bars each.
    path: of the PNG.
    title: of the picture.
  """
  import matplotlib

  matplotlib.use('Agg')
  from matplotlib import pyplot

  figure, (left, right) = pyplot.subplots(
    1, 2, figsize=(11, 4.2), width_ratios=(3, 2), layout='constrained'
  )
  coloured = [
    (name, _COLOURS[i % len(_COLOURS)], counts)
    for i, (name, counts) in enumerate(series)
  ]
  for name, colour, counts in coloured:
    images = np.sort(counts.images)[::-1]
    images = images[images > 0]
    left.loglog(
      np.arange(1, len(images) + 1),
      images,
      color=colour,
      lw=2,
      marker='o' if len(images) <= 12 else '',
      ms=3.5,
      label=f'{name}: {len(images):,} classes',
    )
  _mark_limits(left)
  left.set(
    xlabel='class, by rank',
    ylabel='images',
    title='Images per class',
    xlim=(0.9, None),
  )
  left.grid(alpha=0.2)
  left.legend(frameon=False, loc='upper right')
  width = 0.8 / len(series)
  for i, (name, colour, counts) in enumerate(coloured):
    num_images = max(int(counts.per_image.sum()), 1)
    mean = (counts.per_image * np.arange(len(counts.per_image))).sum()
    right.bar(
      np.arange(len(counts.per_image)) + (i - (len(series) - 1) / 2) * width,
      100 * counts.per_image / num_images,
      width,
      color=colour,
      label=f'{name}: mean {mean / num_images:.2f}',
    )
  right.set(
    xlabel='labels of an image',
    ylabel='% of images',
    title='Labels per image',
  )
  right.xaxis.get_major_locator().set_params(integer=True)
  right.grid(axis='y', alpha=0.2)
  right.set_axisbelow(True)
  right.legend(frameon=False)
  for axes in (left, right):
    axes.spines[['top', 'right']].set_visible(False)
  figure.suptitle(title.replace('$', r'\$'), fontsize=11)
  figure.savefig(path, dpi=150)
  pyplot.close(figure)


def _mark_limits(axes: Any) -> None:
  bottom, top = axes.get_ylim()
  for limit in _LIMITS:
    if bottom < limit < top:
      axes.axhline(limit, color='0.6', lw=0.8, ls=':', zorder=0)
      axes.annotate(
        f'{limit} images ',
        (1, limit),
        xycoords=('axes fraction', 'data'),
        ha='right',
        va='bottom',
        fontsize=8,
        color='0.4',
      )
