"""Counts the labels of a data set, before and after the hierarchy's fill-in.

  python -m tools.dataset_stats --config configs/x.py[:args] [--split train]
      [--key input.source] [--fractions 0.01,0.1,1] [--limit 100000] [--out DIR]

Prints a table, a column for each fraction; with --out also writes stats.json,
long_tail.png, and (when all records of one set were read) vocabulary.jsonl, the
labels with the images counted for each. Images are not decoded.
docs/label-hierarchy.md explains the figures, docs/subsets.md the fractions; the
paper's own are in Sun et al. 2017, section 3.

Exit codes: 0 done; 2 a mistake in the command or its input; 130 interrupted.
"""

import dataclasses
import functools
import json
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from big_vision_like.config import redaction, stream_names
from big_vision_like.protocols import LabelReader, Source
from input_pipeline.files import atomic

from .cli import command, config_flags, output_folder


def counted_vocabulary(source: Source, found: Any) -> Any:
  """The vocabulary with the images counted, and parents where known."""
  vocabulary, hierarchy = source.vocabulary, source.hierarchy
  parents = vocabulary.parents
  if hierarchy is not None and hierarchy.statistics.num_unlisted == 0:
    parents = tuple(
      tuple(vocabulary.names[p] for p in row) for row in hierarchy.parents
    )
  return dataclasses.replace(
    vocabulary, counts=found.raw.images, parents=parents, origin=''
  )


def run(
  config: Mapping[str, Any],
  *,
  split: str | None = None,
  fractions: Sequence[float] = (1.0,),
  limit: int | None = None,
  out: str | None = None,
  where: str = 'input.source',
) -> list[dict[str, Any]]:
  """Scans the source that `config` describes, prints and writes the results.

  Args:
    config: dict(type=..., **options) of a source, its `subset` included.
    split: replaces the config's split.
    fractions: nested random subsets of it to count, one after the other.
    limit: reads so many records of each, evenly spread, instead of all.
    out: folder to write to, made if need be.
    where: config key, for messages.

  Returns:
    A summary for each fraction, as in stats.json.
  """
  from input_pipeline import pipeline
  from input_pipeline.labels import subset

  from .statistics import label_statistics, statistics_table

  if limit is not None and limit < 1:
    raise ValueError(f'--limit must be at least 1, got {limit}')
  options = dict(config)
  if out is not None:
    places = output_folder.places(options)
    output_folder.refuse_inside(out, places, flag='--out', of=f'{where}.path')
    output_folder.make(out, '--out')
  if split is not None:
    options['split'] = split
  whole = pipeline.open_source(options, where)
  sources = [subset.take(whole, f, '--fractions') for f in fractions]
  if label_statistics.has_states(whole):
    print('records hold negatives or confidences: whole records are read')
  elif not isinstance(whole, LabelReader):
    print('this source has no labels(index): whole records are read')
  scans, summaries = [], []
  for source, fraction in zip(sources, fractions):
    num_read = len(source) if limit is None else min(limit, len(source))
    found = _scan(source, num_read)
    scans.append(found)
    summary = label_statistics.summarise(source, found, num_read)
    told = {'source': redaction.plain(options), 'fraction': fraction}
    summaries.append({**told, **summary})
  print(statistics_table.table(summaries))
  if out is not None:
    _write(out, sources, scans, summaries)
    print(f'written to {out}: {", ".join(sorted(os.listdir(out)))}')
  return summaries


def _scan(source: Source, num_read: int) -> Any:
  """Counts `num_read` records, evenly spread, under a progress bar."""
  from tqdm import tqdm

  from .statistics import label_statistics

  total = len(source)
  chosen: np.ndarray | range = range(total)
  if num_read < total:
    chosen = np.arange(num_read) * total // num_read
  with tqdm(total=num_read, unit=' images', disable=None) as bar:
    return label_statistics.scan(source, chosen, bar.update)


def _write(
  out: str,
  sources: Sequence[Source],
  scans: Sequence[Any],
  summaries: Sequence[Mapping[str, Any]],
) -> None:
  """stats.json, long_tail.png and perhaps vocabulary.jsonl."""
  from .statistics import long_tail_plot

  first = summaries[0]
  content = first if len(summaries) == 1 else {'subsets': summaries}
  text = json.dumps(content, indent=1, ensure_ascii=False, default=str)
  atomic.write_text(os.path.join(out, 'stats.json'), text)
  options = first['source']
  described = options.get('path') or options.get('name') or options['type']
  title = f'{described} ({options.get("split", "train")})'
  if len(summaries) == 1:
    title += f': {first["images"]:,} images, {first["classes"]:,} classes'
    if first['records_read'] < first['records']:
      title += f', sampled from {first["records"]:,} records'
    series = [('raw labels', scans[0].raw)]
    if scans[0].filled is not None:
      series.append(('after fill-in', scans[0].filled))
  else:
    filled = scans[0].filled is not None
    title += ', labels after fill-in' if filled else ', raw labels'
    series = [
      (f'{summary["images"]:,} images', found.filled or found.raw)
      for found, summary in zip(scans, summaries)
    ]
  long_tail_plot.plot(series, os.path.join(out, 'long_tail.png'), title)
  if len(summaries) == 1 and first['records_read'] == first['records']:
    labels = counted_vocabulary(sources[0], scans[0])
    labels.save(os.path.join(out, 'vocabulary.jsonl'))


def _fractions(text: str) -> list[float]:
  """'0.01,0.1,1' as numbers in (0, 1]."""
  found = []
  for part in text.split(','):
    try:
      fraction = float(part)
    except ValueError:
      fraction = 0.0
    if not 0 < fraction <= 1 or fraction in found:
      raise ValueError(
        f'--fractions={text}: {part!r} must be a number in (0, 1], each once'
      )
    found.append(fraction)
  return found


def _define(values: Any) -> None:
  from absl import flags

  text = functools.partial(flags.DEFINE_string, flag_values=values)
  text('key', 'input.source', 'config key of the source')
  text('split', None, 'split')
  text(
    'fractions',
    None,
    'nested random subsets to compare, such as 0.01,0.1,1; for the source of '
    'a stream the default is its fraction',
  )
  flags.DEFINE_integer(
    'limit', None, 'read so many records, evenly spread', flag_values=values
  )
  text('out', None, 'folder for results')


def main(argv: Sequence[str]) -> None:
  """Runs the command; a mistake of the user ends it with one message."""
  config_flags.run(lambda: _count(argv))


def _count(argv: Sequence[str]) -> None:
  values = config_flags.parse(argv, command.as_called(__doc__), _define)
  node = _source_at(values.config, values.key)
  if values.fractions is not None:
    fractions = _fractions(values.fractions)
  elif stream_names.as_main(values.key) == 'input.source':
    stream = _node(values.config, values.key.rpartition('.')[0], values.key)
    fractions = [stream.get('fraction', 1.0)]
  else:
    fractions = [1.0]
  run(
    node.to_dict(),
    split=values.split,
    fractions=fractions,
    limit=values.limit,
    out=values.out,
    where=values.key,
  )


def _node(config: Any, path: str, key: str) -> Any:
  """The part of the config at a path, which is that of --key or on its way."""
  node = config
  for part in path.split('.'):
    if not hasattr(node, 'keys') or part not in node:
      there = ', '.join(node) if hasattr(node, 'keys') else 'none'
      raise ValueError(
        f'--key={key}: no {part!r} in the config; keys there: {there}'
      )
    node = node[part]
  return node


def _source_at(config: Any, key: str) -> Any:
  """The part of the config that describes a source."""
  node = _node(config, key, key)
  if not hasattr(node, 'keys'):
    raise ValueError(f'--key={key}: {node!r} is no source')
  for inner in ('data', 'source'):
    if hasattr(node.get(inner), 'keys'):
      raise ValueError(f'--key={key} is no source; its data are {key}.{inner}')
  return node


if __name__ == '__main__':
  main(sys.argv)
