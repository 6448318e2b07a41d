"""Counts the labels of a data set, before and after the hierarchy's fill-in.

  python -m tools.dataset_stats --config configs/x.py[:args] [--split train]
      [--key input.source] [--limit 100000] [--out DIR]

Prints a table; with --out also writes stats.json, long_tail.png, and (when all
records were read) vocabulary.jsonl, the labels with the images counted for
each. Images are not decoded. docs/label-hierarchy.md explains the figures; the
paper's own are in Sun et al. 2017, section 3.
"""

import dataclasses
import itertools
import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

TAIL = (20, 100, 1_000, 10_000, 100_000)  # classes with fewer images than
_CHUNK = 20_000


@dataclasses.dataclass
class LabelCounts:
  """What one pass over the records counts, for one of raw and filled labels.

  Attributes:
    images: int64 [C] images per class.
    per_image: int64 [n] images with 0, 1, 2, ... labels.
  """

  images: np.ndarray
  per_image: np.ndarray

  @classmethod
  def empty(cls, num_labels: int) -> 'LabelCounts':
    return cls(np.zeros(num_labels, np.int64), np.zeros(1, np.int64))

  def add(self, ids: Sequence[np.ndarray]) -> None:
    """Adds images with unique ids each."""
    self.images += np.bincount(
      np.concatenate([*ids, np.empty(0, np.int32)]).astype(np.int64),
      minlength=len(self.images),
    )
    sizes = np.bincount([len(i) for i in ids], minlength=len(self.per_image))
    sizes[: len(self.per_image)] += self.per_image
    self.per_image = sizes


@dataclasses.dataclass
class Scan:
  """One pass over (a sample of) the records."""

  raw: LabelCounts
  filled: LabelCounts | None  # None without a hierarchy
  num_gaining: int  # images with more labels after fill-in
  bad: dict[str, str]  # key -> reason, of records that cannot be used


def scan(source: Any, indices: Iterable[int]) -> Scan:
  """Counts labels of the records; uses `source.labels` where it exists."""
  from input_pipeline.errors import BadExample

  labels_of = getattr(source, 'labels', None) or (
    lambda index: source[index]['labels']
  )
  num_labels = len(source.vocabulary.names)
  hierarchy = source.hierarchy
  filled = None if hierarchy is None else LabelCounts.empty(num_labels)
  result = Scan(LabelCounts.empty(num_labels), filled, 0, {})
  raw_ids: list[np.ndarray] = []

  def flush() -> None:
    result.raw.add(raw_ids)
    if hierarchy is not None and result.filled is not None:
      closed = [hierarchy.close(ids) for ids in raw_ids]
      result.filled.add(closed)
      result.num_gaining += sum(
        len(after) > len(before)
        for before, after in zip(raw_ids, closed, strict=True)
      )
    raw_ids.clear()

  for index in indices:
    try:
      raw_ids.append(np.unique(labels_of(index)))
    except BadExample as bad:
      result.bad[source.key(index)] = bad.reason
    if len(raw_ids) == _CHUNK:
      flush()
  flush()
  return result


def summarise(source: Any, found: Scan, num_read: int) -> dict[str, Any]:
  """Everything that stats.json holds, as plain data."""
  names = source.vocabulary.names
  labels = {'raw': _summarise_labels(found.raw, names)}
  if found.filled is not None:
    labels['filled'] = _summarise_labels(found.filled, names)
  num_images = num_read - len(found.bad)
  summary = {
    'records': len(source),
    'records_read': num_read,
    'records_bad': len(found.bad),
    'bad_keys': dict(list(found.bad.items())[:10]),
    'images': num_images,
    'classes': len(names),
    'labels': labels,
    'fingerprint': source.fingerprint(),
  }
  if found.filled is not None:
    summary['images_gaining_labels'] = found.num_gaining
    summary['hierarchy'] = dataclasses.asdict(source.hierarchy.statistics)
  return summary


def _summarise_labels(
  counts: LabelCounts, names: Sequence[str]
) -> dict[str, Any]:
  images, per_image = counts.images, counts.per_image
  total, num_images = int(images.sum()), int(per_image.sum())
  largest = int(images.argmax())
  return {
    'total': total,
    'per_image_mean': total / num_images if num_images else 0.0,
    'per_image_max': len(per_image) - 1,
    'images_without': int(per_image[0]),
    'classes_with_images': int((images > 0).sum()),
    'classes_without_images': int((images == 0).sum()),
    'classes_with_fewer_images_than': {
      str(limit): int((images < limit).sum()) for limit in TAIL
    },
    'largest_class': names[largest],
    'largest_class_images': int(images[largest]),
    'median_class_images': float(np.median(images)),
    'images_by_number_of_labels': per_image.tolist(),
  }


def table(summary: Mapping[str, Any]) -> str:
  """The summary for people."""
  labels = summary['labels']
  columns = list(labels)

  def row(title: str, *cells: Any) -> str:
    shown = [f'{c:,.2f}' if isinstance(c, float) else _cell(c) for c in cells]
    return f'{title:<34}' + ''.join(f'{cell:>22}' for cell in shown)

  def each(title: str, key: str) -> str:
    return row(title, *(labels[c][key] for c in columns))

  read, records = summary['records_read'], summary['records']
  sample = '' if read == records else f'  (sampled from {records:,} records)'
  lines = [
    row('images', summary['images']) + sample,
    row('records that cannot be used', summary['records_bad']),
    row('classes', summary['classes']),
    '',
    row('labels', *('raw' if c == 'raw' else 'after fill-in' for c in columns)),
    each('total', 'total'),
    each('per image, mean', 'per_image_mean'),
    each('per image, most', 'per_image_max'),
    each('images without a label', 'images_without'),
    each('classes with images', 'classes_with_images'),
    each('classes without images', 'classes_without_images'),
    *(
      row(
        f'classes with fewer than {limit:,}',
        *(
          labels[c]['classes_with_fewer_images_than'][str(limit)]
          for c in columns
        ),
      )
      for limit in TAIL
    ),
    each('images of the median class', 'median_class_images'),
    each('images of the largest class', 'largest_class_images'),
    each('largest class', 'largest_class'),
  ]
  if 'hierarchy' in summary:
    lines += ['', *_hierarchy_rows(row, summary)]
  for key, reason in summary['bad_keys'].items():
    lines.append(f'cannot be used: {key}: {reason}')
  return '\n'.join(lines)


def _cell(value: Any) -> str:
  if isinstance(value, int):
    return f'{value:,}'
  return value if len(value) <= 20 else f'{value[:17]}...'


def _hierarchy_rows(row: Any, summary: Mapping[str, Any]) -> list[str]:
  graph = summary['hierarchy']
  share = summary['images_gaining_labels'] / max(summary['images'], 1)
  return [
    row('hierarchy'),
    row('images that gain labels', f'{share:.1%}'),
    row('depth, edges from a root', graph['max_depth']),
    row('most children of a node', graph['max_children'])
    + f'  {graph["max_children_node"]}',
    row('most ancestors of a label', graph['max_ancestors']),
    row('edges', graph['num_edges']),
    row('roots', graph['num_roots']),
    row('leaves', graph['num_leaves']),
    row('labels with several parents', graph['num_multi_parent']),
    row('labels in no edge', graph['num_isolated']),
    row('nodes without an output id', graph['num_unlisted']),
  ]


def plot(found: Scan, path: str, title: str) -> None:
  """Rank-frequency curve of the classes, and labels per image."""
  import matplotlib

  matplotlib.use('Agg')
  from matplotlib import pyplot

  series = [('raw labels', '#0b6e99', found.raw)]
  if found.filled is not None:
    series.append(('after fill-in', '#d9622b', found.filled))
  figure, (left, right) = pyplot.subplots(
    1, 2, figsize=(11, 4.2), width_ratios=(3, 2), layout='constrained'
  )
  for name, colour, counts in series:
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
  bottom, top = left.get_ylim()
  for limit in (20, 100):  # the paper counts the classes below these
    if bottom < limit < top:
      left.axhline(limit, color='0.6', lw=0.8, ls=':', zorder=0)
      left.annotate(
        f'{limit} images ',
        (1, limit),
        xycoords=('axes fraction', 'data'),
        ha='right',
        va='bottom',
        fontsize=8,
        color='0.4',
      )
  left.set(
    xlabel='class, by rank',
    ylabel='images',
    title='Images per class',
    xlim=(0.9, None),
  )
  left.grid(alpha=0.2)
  left.legend(frameon=False, loc='upper right')
  width = 0.8 / len(series)
  for i, (name, colour, counts) in enumerate(series):
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


def counted_vocabulary(source: Any, found: Scan) -> Any:
  """The vocabulary with the images counted, and parents where known."""
  vocabulary, hierarchy = source.vocabulary, source.hierarchy
  parents = vocabulary.parents
  if hierarchy is not None and hierarchy.statistics.num_unlisted == 0:
    ends = hierarchy.parents_indptr.tolist()
    parents = tuple(
      tuple(vocabulary.names[p] for p in hierarchy.parents[a:b])
      for a, b in itertools.pairwise(ends)
    )
  return dataclasses.replace(
    vocabulary, counts=found.raw.images, parents=parents, origin=''
  )


def run(
  config: Mapping[str, Any],
  *,
  split: str | None = None,
  limit: int | None = None,
  out: str | None = None,
  where: str = 'input.source',
) -> dict[str, Any]:
  """Scans the source that `config` describes, prints and writes the results.

  Args:
    config: dict(type=..., **options) of a source.
    split: replaces the config's split.
    limit: reads so many records, evenly spread, instead of all.
    out: folder to write to, made if need be.
    where: config key, for messages.

  Returns:
    The summary, as in stats.json.
  """
  from tqdm import tqdm

  from input_pipeline import pipeline

  if limit is not None and limit < 1:
    raise ValueError(f'--limit must be at least 1, got {limit}')
  if out is not None:
    try:
      os.makedirs(out, exist_ok=True)
    except OSError as error:
      raise ValueError(f'--out={out}: {error.strerror}') from None
  options = dict(config)
  if split is not None:
    options['split'] = split
  source = pipeline.open_source(options, where)
  total = len(source)
  num_read = total if limit is None else min(limit, total)
  if not hasattr(source, 'labels'):
    print('this source has no labels(index): whole records are read')
  indices = (i * total // num_read for i in range(num_read))
  shown = tqdm(indices, total=num_read, unit=' images', disable=None)
  found = scan(source, shown)
  summary = {'source': options, **summarise(source, found, num_read)}
  print(table(summary))
  if out is not None:
    with open(os.path.join(out, 'stats.json'), 'w', encoding='utf-8') as file:
      json.dump(summary, file, indent=1, ensure_ascii=False, default=str)
    described = options.get('path') or options.get('name') or options['type']
    images = f'{summary["images"]:,} images, {summary["classes"]:,} classes'
    if num_read < total:
      images = f'{images}, sampled from {total:,} records'
    plot(
      found,
      os.path.join(out, 'long_tail.png'),
      f'{described} ({options.get("split", "train")}): {images}',
    )
    if num_read == total:
      labels = counted_vocabulary(source, found)
      labels.save(os.path.join(out, 'vocabulary.jsonl'))
    print(f'written to {out}: {", ".join(sorted(os.listdir(out)))}')
  return summary


def _parse(argv: Sequence[str]) -> Any:
  """Flags of the command; the config grammar is that of `python -m main`."""
  from absl import flags
  from ml_collections import config_flags

  values = flags.FlagValues()
  config_flags.DEFINE_config_file(
    'config', None, 'config file, file:args', flag_values=values
  )
  flags.DEFINE_string(
    'key', 'input.source', 'config key of the source', flag_values=values
  )
  flags.DEFINE_string('split', None, 'split', flag_values=values)
  flags.DEFINE_integer(
    'limit', None, 'read so many records, evenly spread', flag_values=values
  )
  flags.DEFINE_string('out', None, 'folder for results', flag_values=values)
  if '--help' in argv or '-h' in argv:
    print(f'{__doc__}\n{values.get_help()}')
    sys.exit(0)
  try:
    rest = values(list(argv))
  except (AttributeError, KeyError) as error:
    lines = str(error).splitlines()
    raise ValueError(f'no such config key: {lines[0].strip(chr(34))}') from None
  if len(rest) > 1:
    raise ValueError(f'unknown argument {rest[1]!r}; see --help')
  if values.config is None:
    raise ValueError('--config is missing, such as configs/quickstart.py')
  try:
    values.config.keys()  # a config that failed to load says so here
  except OSError as error:
    lines = str(error).splitlines()
    raise ValueError(f'--config: {lines[-1].strip()}') from None
  return values


def main(argv: Sequence[str]) -> None:
  """Runs the command; a mistake of the user ends it with one message."""
  from absl import flags

  try:
    values = _parse(argv)
    node: Any = values.config
    for part in values.key.split('.'):
      if part not in node:
        raise ValueError(
          f'--key={values.key}: no {part!r} in the config; keys there: '
          f'{", ".join(node)}'
        )
      node = node[part]
    run(
      node.to_dict(),
      split=values.split,
      limit=values.limit,
      out=values.out,
      where=values.key,
    )
  except (ValueError, FileNotFoundError, flags.Error) as error:
    print(f'error: {error}', file=sys.stderr)
    sys.exit(2)


if __name__ == '__main__':
  main(sys.argv)
