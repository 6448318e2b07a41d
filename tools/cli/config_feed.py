"""Records of a config's data as its run would see them, one at a time.

The order, the crops and the flips are those of the run: they follow from its
seed, the epoch and the record (pipeline.py). Nothing is read ahead.
"""

import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from big_vision_like.protocols import Op, Source

MAX_SCANNED = 200_000  # records looked through for those of some classes


@dataclasses.dataclass(frozen=True)
class Feed:
  """A place of a config where records become examples.

  Attributes:
    key: 'input', 'input.also.NAME' or 'evals.NAME'.
    source, ops: as the run would open and build them.
    spec: zero arrays, the fields of a batch.
    described: source and ops as the config has them.
    seed: of order and chance; None for evaluations, which have neither.
    background: whether class 0 of masks comes before those of the vocabulary.
  """

  key: str
  source: Source
  ops: Sequence[Op]
  spec: Mapping[str, np.ndarray]
  described: Mapping[str, Any]
  seed: int | None
  background: bool


@dataclasses.dataclass(frozen=True)
class Look:
  """One record as it comes out of the ops.

  Attributes:
    epoch, index: which look at which record.
    key: name of the record.
    raw: the record itself.
    example: what the ops make of it, fields outside the batch included.
    reason: why it cannot be used (`_mask` False); '' where it can.
  """

  epoch: int
  index: int
  key: str
  raw: Mapping[str, Any]
  example: Mapping[str, Any]
  reason: str


def open_feed(config: Any, key: str, seed: int | None) -> Feed:
  """Opens the data of `input`, of a further stream or of an evaluator.

  Raises:
    ValueError, FileNotFoundError: unknown key, or what the run itself would
      complain about.
  """
  from big_vision_like.config import settings, stream_names
  from input_pipeline import pipeline, streams
  from input_pipeline.labels.space import LabelSpace

  if 'input' not in config or 'evals' not in config:
    raise ValueError('--config: no config of a run: it has no input, no evals')
  of_key = {stream_names.config_key(n): n for n in ('', *_also(config))}
  places = [
    *of_key,
    *(f'evals.{n}' for n in config.evals if 'ops' in config.evals[n]),
  ]
  if key not in places:
    raise ValueError(f'--key={key}: valid here: {", ".join(places)}')
  name = of_key.get(key)
  if name is not None:
    config = settings.complete(config) if name else config
    node, where = stream_names.sections(config)[name], f'{key}.source'
    source = streams.open_source(config, name)
  else:
    node, where = config.evals[key.partition('.')[2]], f'{key}.data'
    if seed is not None:
      raise ValueError(f'--seed={seed}: {key} has no chance; leave it out')
    source = pipeline.open_source(node.data.to_dict(), where)
  specs = [dict(op) for op in node.ops]
  ops = pipeline.build_ops(specs, source, f'{key}.ops')
  options = (node.data if name is None else node.source).to_dict()
  if name is not None:
    seed = stream_names.seed_of(config.seed if seed is None else seed, name)
  background = config.task.get('background', True)
  if name:
    background = LabelSpace.of_source(source).background is not False
  return Feed(
    key=key,
    source=source,
    ops=ops,
    spec=pipeline.example_spec(ops, f'{key}.ops'),
    described={where: options, f'{key}.ops': specs},
    seed=seed,
    background=bool(background),
  )


def _also(config: Any) -> list[str]:
  """Names of the further streams; old configs have no such section."""
  return sorted(config.input.get('also', {}))


def positions(feed: Feed, epoch: int, num: int) -> Iterator[tuple[int, int]]:
  """(epoch, index) in the order of the run: one epoch of training, or all.

  An evaluation reads everything in order, often class by class: `num` are
  taken evenly spread first, then the others.
  """
  from input_pipeline import pipeline

  total = len(feed.source)
  if feed.seed is None:
    spread = list(dict.fromkeys(i * total // num for i in range(num)))
    chosen = frozenset(spread)
    rest = (i for i in range(total) if i not in chosen)
    return ((0, index) for index in itertools.chain(spread, rest))
  order = pipeline.training_order(total, feed.seed, epoch * total)
  return itertools.islice(order, total)


def look(feed: Feed, epoch: int, index: int) -> Look:
  """Runs the ops on a record, with the chance of this epoch."""
  from input_pipeline.examples.errors import BadExample

  key = feed.source.key(index)
  raw: dict[str, Any] = {}
  try:
    raw = dict(feed.source[index])
    example = _after_ops(feed, {'key': key, **raw}, epoch, index)
  except BadExample as bad:
    return Look(epoch, index, key, raw, {}, bad.reason)
  except ValueError as error:
    raise ValueError(f'{error} (in record {key})') from None
  return Look(epoch, index, str(raw.get('key', key)), raw, example, '')


def _after_ops(
  feed: Feed, record: dict[str, Any], epoch: int, index: int
) -> dict[str, Any]:
  """The example; with targets that the run leaves behind, where they pass."""
  from input_pipeline import batch_fields, pipeline
  from input_pipeline.ops import chains

  read = chains.only(record, chains.needed(feed.ops))
  for given in (record, read):
    if feed.seed is None:
      rng = batch_fields.record_rng(0, 0, index)
    else:
      rng = pipeline.training_rng(feed.seed, epoch, index)
    try:
      return batch_fields.apply(feed.ops, given, rng)
    except ValueError:
      if given is read or len(read) == len(record):
        raise
  raise AssertionError('the last of the two returns or raises')


def find_classes(text: str, vocabulary: Any) -> frozenset[int]:
  """Ids of 'a,b', names or descriptions; a name may contain commas.

  Raises:
    ValueError: no such label; near ones are named.
  """
  readable = {
    vocabulary.readable_name(i): i for i in reversed(range(len(vocabulary)))
  }
  parts = [text] if text in vocabulary or text in readable else text.split(',')
  return frozenset(
    vocabulary.index(part)
    if part in vocabulary
    else readable[part]
    if part in readable
    else vocabulary.index(part)
    for part in map(str.strip, parts)
  )


def with_classes(
  feed: Feed, places: Iterable[tuple[int, int]], classes: frozenset[int]
) -> Iterator[tuple[int, int]]:
  """Those of the first records that have one of the labels, fill-in counted."""
  from input_pipeline.examples.errors import BadExample
  from input_pipeline.labels import arrays

  source = feed.source
  labels_of = arrays.reader(source)
  for epoch, index in itertools.islice(places, MAX_SCANNED):
    try:
      ids = np.asarray(labels_of(index))
    except BadExample:
      continue
    if source.hierarchy is not None:
      ids = source.hierarchy.close(ids)
    if not classes.isdisjoint(ids.tolist()):
      yield epoch, index
