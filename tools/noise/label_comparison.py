"""Two labellings of the same records, matched and compared.

Used by tools/label_noise.py; the arithmetic is in metrics/label_noise.py.
"""

import argparse
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tqdm

from big_vision_like.metrics import label_noise as metrics
from big_vision_like.protocols import Source
from input_pipeline.labels import hierarchy as hierarchies
from input_pipeline.labels import vocabulary as vocabularies
from input_pipeline.labels.hierarchy import Hierarchy
from input_pipeline.labels.vocabulary import Vocabulary

from ..cli import data_argument
from . import label_lists


@dataclasses.dataclass(frozen=True, eq=False)
class Pairs:
  """The records that have both given and clean labels.

  Attributes:
    vocabulary, hierarchy: of the labels; hierarchy None where there is none.
    given, clean: raw label ids of each record.
    uses: int64 [C] records of the whole data set that carry each label.
    num_records: of the data set.
    num_unmatched: clean rows whose record the data set lacks.
    bad: key -> reason of the records that cannot be used.
  """

  vocabulary: Vocabulary
  hierarchy: Hierarchy | None
  given: list[np.ndarray]
  clean: list[np.ndarray]
  uses: np.ndarray
  num_records: int
  num_unmatched: int
  bad: Mapping[str, str]


@dataclasses.dataclass(frozen=True, eq=False)
class Estimate:
  """What was found for one form of the labels.

  Attributes:
    name: 'raw', or 'filled' after the hierarchy's fill-in.
    counts: checked records by class.
    uses: int64 [C] as of Pairs, in this form.
    instead: class -> what the images of its wrong labels show.
  """

  name: str
  counts: metrics.LabelCounts
  uses: np.ndarray
  instead: Mapping[int, Any]


def estimate(pairs: Pairs, fill_in: bool) -> list[Estimate]:
  """Raw labels against the clean ones; with fill_in the filled ones too.

  With fill_in the clean labels are completed in both cases: an ancestor of
  what an image shows is right, and missing where it is not given.
  """
  hierarchy = pairs.hierarchy if fill_in else None
  close = (lambda ids: ids) if hierarchy is None else hierarchy.close
  clean = [close(ids) for ids in pairs.clean]
  size = len(pairs.vocabulary)
  instead = metrics.confusions(pairs.given, clean, pairs.clean)
  raw = metrics.count(pairs.given, clean, size)
  found = [Estimate('raw', raw, pairs.uses, instead)]
  if hierarchy is not None:
    filled = [close(ids) for ids in pairs.given]
    counts = metrics.count(filled, clean, size)
    uses = hierarchy.close_counts(pairs.uses)
    found.append(Estimate('filled', counts, uses, {}))
  return found


def overall(result: Estimate) -> list[tuple[str, float, float, float, str]]:
  """(name, rate, low, high, remark) of all labels together."""
  c = result.counts
  rows = []
  for name, right, whole in (
    ('precision', c.right, c.given),
    ('recall', c.right, c.true),
  ):
    k, n = int(right.sum()), int(whole.sum())
    low, high = metrics.wilson_interval(k, n)
    rate = k / n if n else float('nan')
    rows.append((name, rate, float(low), float(high), f'{k:,} of {n:,} labels'))
  weighted = metrics.weighted_precision(c, result.uses)
  rows.insert(
    1,
    (
      'precision, weighted by use', weighted.rate, weighted.low, weighted.high,
      f'classes with {weighted.covered:.1%} of all labels',
    ),
  )  # fmt: skip
  return rows


def read_pairs(args: argparse.Namespace) -> Pairs:
  """Both labellings, matched by key or by position."""
  columns = [
    label_lists.Columns(
      args.key_column, column, args.label_separator, _only(args.rows)
    )
    for column in (args.labels_column, args.clean_column)
  ]
  bad: dict[str, str] = {}
  given, given_source = _labelling(args, 'data', columns[0], bad)
  clean, _ = _labelling(args, 'clean', columns[1], bad)
  clean = _unique(_keyed(clean, args.match), f'--clean={args.clean}')
  vocabulary, hierarchy = _labels_of(args, given_source, given, clean)
  for key, names in clean.items():
    for name in names:
      if name not in vocabulary:
        near = vocabularies.suggestion(name, vocabulary.names)
        raise ValueError(
          f'--clean={args.clean}: label {name!r} of {key!r} is not a label of '
          f'the data{near}; leave out what is none'
        )
  uses = np.zeros(len(vocabulary), np.int64)
  found: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
  num_records = 0
  total = None if given_source is None else len(given_source)
  shown = tqdm.tqdm(given, total=total, unit=' records', disable=None)
  for key, names in _keyed(shown, args.match):
    ids = _ids(names, vocabulary)
    uses[ids] += 1
    num_records += 1
    if key in clean:
      found[0].append(ids)
      found[1].append(_ids(clean[key], vocabulary))
  if not found[0]:
    first = next(iter(clean))
    raise ValueError(
      f'none of the {len(clean):,} keys of --clean is in --data; the first is '
      f'{first!r} (--match=position pairs records by their places)'
    )
  return Pairs(
    vocabulary, hierarchy, *found, uses, num_records,
    len(clean) - len(found[0]), bad,
  )  # fmt: skip


def _labelling(
  args: Any, name: str, columns: label_lists.Columns, bad: dict[str, str]
) -> tuple[Any, Any]:
  """(rows, source); rows of a file are a list, its source is None."""
  text, flag = getattr(args, name), f'--{name}'
  if label_lists.is_file(text):
    return list(label_lists.read_file(text, columns).items()), None
  source = data_argument.open_data(text, flag, trusted=args.trust)
  return label_lists.read_source(source, bad), source


def _keyed(rows: Any, match: str) -> Iterator[label_lists.Row]:
  for position, (key, names) in enumerate(rows):
    yield (str(position) if match == 'position' else key), names


def _unique(rows: Iterator[label_lists.Row], where: str) -> dict[str, Any]:
  found: dict[str, Any] = {}
  for key, names in rows:
    if key in found:
      raise ValueError(f'{where}: the key {key!r} twice')
    found[key] = names
  return found


def _labels_of(
  args: argparse.Namespace, source: Source | None, given: Any, clean: Any
) -> tuple[Vocabulary, Hierarchy | None]:
  """Vocabulary and hierarchy of the data, or of both files together."""
  if source is not None:
    vocabulary, hierarchy = source.vocabulary, source.hierarchy
  else:
    lists = [*(names for _, names in given), *clean.values()]
    vocabulary = Vocabulary(
      tuple(sorted({n for names in lists for n in names}))
    )
    hierarchy = None
  if args.hierarchy is not None:
    vocabulary, hierarchy = hierarchies.attach(
      vocabulary, args.hierarchy, unlisted='add'
    )
  if args.fill_in and hierarchy is None:
    raise ValueError(
      '--fill_in needs a hierarchy, and --data has none; give --hierarchy'
    )
  return vocabulary, hierarchy


def _ids(names: Sequence[str], vocabulary: Vocabulary) -> np.ndarray:
  return np.unique(np.array([vocabulary.index(n) for n in names], np.int32))


def _only(text: str | None) -> tuple[str, str] | None:
  if text is None:
    return None
  column, equals, value = text.partition('=')
  if not (column and equals):
    raise ValueError(f'--rows={text!r} is not of the form COLUMN=VALUE')
  return column, value
