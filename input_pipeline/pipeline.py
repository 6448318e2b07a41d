"""Batches from a random-access source: `train` (resumable), `evaluation`.

Training order is a pure function of (seed, step): position p of the endless
stream is record `shuffle(seed, p // n)[p % n]`, an index permutation computed
on the fly, so a run seeks to step 10^8 as fast as to step 0. What a record
looks like is a function of (seed, epoch, index): neither workers, hosts nor a
resume change it. The data position is the step; there is no other state.

A record that cannot be used (`BadExample`) becomes a blank with `_mask` False:
the order and the looks of all others stay, it is counted and listed by key, and
the run stops above `max_bad_fraction`.
"""

import itertools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import grain
import numpy as np

from big_vision_like.config import plugins, redaction, stream_names
from big_vision_like.protocols import Records, Source, WithTruth
from input_pipeline import ahead, canvases, worker_room
from input_pipeline import ops as example_ops
from input_pipeline.bad_records import BadRecords
from input_pipeline.batch_fields import Example, Op, apply, record_rng, select
from input_pipeline.batch_fields import batch_spec as batch_spec  # for callers
from input_pipeline.batch_fields import example_spec as example_spec
from input_pipeline.examples.errors import BadExample
from input_pipeline.files import retries
from input_pipeline.labels import subset
from input_pipeline.labels.space import LabelSpace
from input_pipeline.ops import canvas, chains
from input_pipeline.ops import order as order_of_ops
from input_pipeline.ops.context import OpContext
from input_pipeline.truth import true_boxes

_REASON_BYTES = 160
_OF_THE_READER = ('_reason', '_retries')  # fields that stay in this module
_ENDLESS = 2**40  # steps
_EVALUATION_PREFETCH = 2  # batches held ready by this process or each worker


def open_source(
  config: Mapping[str, Any],
  where: str = 'input.source',
  *,
  fraction: float = 1.0,
) -> Source:
  """Builds the source that `dict(type=..., **options)` describes.

  Args:
    config: type and options of the source, and `subset` (subset.py).
    where: config key, for messages.
    fraction: of its records, a nested random subset (subset.py).

  Raises:
    ValueError: unknown type or option, or an empty data set.
  """
  source_class, options, chosen = checked_source(config, where)
  source = make_source(source_class, options, where)
  if len(source) == 0:
    raise ValueError(f'{where}: the data set is empty: {dict(config)}')
  source = subset.select(source, chosen, f'{where}.subset')
  return subset.take(source, fraction)


def checked_source(
  config: Mapping[str, Any], where: str
) -> tuple[Callable[..., Source], dict[str, Any], Any]:
  """(class, options, subset) of a source; names and types are checked.

  Raises:
    ValueError: unknown type or option.
  """
  options = dict(config)
  if 'type' not in options:
    raise ValueError(
      f'{where}: missing key "type"; valid: '
      f'{", ".join(plugins.names("source"))}'
    )
  source_class = plugins.get('source', options.pop('type'))
  redaction.learn(options)
  redaction.check(options, where)
  chosen = options.pop('subset', {})
  plugins.check_kwargs(where, source_class, options)
  return source_class, options, chosen


def make_source(
  source_class: Callable[..., Source], options: Mapping[str, Any], where: str
) -> Source:
  """The source itself; what it refuses names the key or flag given for it.

  Sources know their options only: 'path=...: no such folder' of one becomes
  'evals.val.data.path=...' or '--data: path=...'.
  """
  try:
    return source_class(**options)
  except (ValueError, FileNotFoundError) as error:
    text = str(error)
    if isinstance(error, OSError) and error.strerror:
      text = f'{error.filename}: {error.strerror}'
      raise FileNotFoundError(f'{where}: {text}') from None
    if len(error.args) == 1:  # not that of a codec
      of_option = text.partition('=')[0] in ('type', *options)
      dot = of_option and re.fullmatch(r'[\w.]+', where)
      error.args = (f'{where}{"." if dot else ": "}{text}',)
    raise


def open_train(config: Any, where: str = 'input.source') -> Source:
  """The training source of a config, or the subset that it asks for.

  Args:
    config: the whole config.
    where: what `config.input.source` is called, for messages.

  Raises:
    ValueError: see `open_source`; or the masks of the source have a background
      where the task expects none, or the reverse; or it is a list of images
      without annotations, or without the boxes that the ops take.
  """
  source = open_source(
    config.input.source, where, fraction=config.input.fraction
  )
  if isinstance(source, WithTruth) and not source.has_truth:
    raise ValueError(
      f'{where}: a list of {len(source):,} images without truth is nothing to '
      f'learn from; choose another split'
    )
  if any(spec.get('op') == 'boxes' for spec in config.input.ops):
    true_boxes.check_any(source, where)
  found = LabelSpace.of_source(source).background
  if found is not None:
    task_class = plugins.get('task', config.task.type)
    if 'background' in plugins.option_names(task_class)[0]:
      wanted = plugins.option(task_class, config.task, 'background')
      if wanted not in (None, found):
        meaning = 'the background' if found else 'that of the first class'
        raise ValueError(
          f'task.background={wanted}, but in the masks of {where} the id 0 is '
          f'{meaning}: background={found} there'
        )
  return source


def build_ops(
  specs: Sequence[Mapping[str, Any]], source: Source, where: str = 'input.ops'
) -> list[Op]:
  """The op chain for a source; names and options are checked here."""
  context = OpContext.of_space(LabelSpace.of_source(source), where)
  return example_ops.build(specs, context)


class TrainIterator:
  """Endless host batches from `start_step` on; see the module docstring.

  A batch is a dict of numpy arrays: the fields that the ops leave, `_id` int32
  [B] (index in the source) and `_mask` bool [B] (False: does not count).
  `bad` counts the records that could not be used.
  """

  def __init__(
    self, iterator: Iterator[Example], source: Records, bad: BadRecords
  ):
    self._iterator = iterator
    self._source = source
    self.bad = bad

  def __iter__(self) -> 'TrainIterator':
    return self

  def __next__(self) -> dict[str, np.ndarray]:
    batch = dict(next(self._iterator))
    reasons = batch.pop('_reason')
    retries.book(int(batch.pop('_retries')[0]))
    rows = np.flatnonzero(~batch['_mask'])
    keys = [self.key(int(batch['_id'][row])) for row in rows]
    self.bad.update(
      keys, [_decode_reason(reasons[r]) for r in rows], len(batch['_mask'])
    )
    return batch

  def key(self, index: int) -> str:
    """That of a record, with its stream."""
    return stream_names.record(self.bad.stream, self._source.key(index))

  def close(self) -> None:
    """Stops workers and threads."""
    ahead.close(self._iterator)


def train(
  source: Records,
  ops: Sequence[Op],
  *,
  batch_size: int,
  seed: int,
  start_step: int = 0,
  workers: int = 0,
  threads: int = 2,
  prefetch: int = 4,
  max_bad_fraction: float = 1e-3,
  process_index: int = 0,
  process_count: int = 1,
  stream: str = stream_names.MAIN,
) -> TrainIterator:
  """Batches of step `start_step + 1` on (one global batch is a step).

  Args:
    source: random-access source (docs/add-a-source.md).
    ops: the op chain from `build_ops`.
    batch_size: global; this process gets one contiguous part of its rows.
    seed: of the order and of all random ops.
    start_step: number of batches to skip, at no cost.
    workers: decode processes; 0 reads in threads of this process.
    threads: reading threads of this process or of every worker.
    prefetch: batches held ready by this process or by every worker.
    max_bad_fraction: of records that may be unusable.
    process_index: which part of each global batch is read here.
    process_count: number of such parts.
    stream: whose data they are, for messages; `seed` decides all else.
  """
  _check_divides(batch_size, process_count)
  num = len(source)
  rows = _rows(batch_size, process_index, process_count)
  chosen = canvases.choose(source, ops)
  order_seed = _mixed(seed, 0) % 2**32
  order: Any = _Shuffled(num, order_seed, batch_size, rows)
  if len(chosen.sizes) > 1:
    order = canvases.Shuffled(chosen, order_seed, batch_size, rows)
  where = f'{stream_names.config_key(stream)}.ops'
  loaders = _loaders(
    source, ops, chosen, _mixed(seed, 1), where=where, stream=stream
  )
  load = canvases.Batches(order, loaders)
  batches = grain.MapDataset.range(start_step, _ENDLESS).map(load)
  room = worker_room.need(
    [one.row for one in loaders], len(rows), workers, prefetch
  )
  iterator = ahead.iterate(batches, room, threads)
  bad = BadRecords(max_bad_fraction, num, stream)
  return TrainIterator(iterator, source, bad)


class Evaluation:
  """Every record of a source exactly once, in order; can be iterated again.

  With several canvases (canvases.py) in order on each. Batches all have the
  same number of rows: the last of a canvas is padded with blanks whose `_mask`
  is False. All processes see the same number of batches. A record that cannot
  be used is an error; with `strict=False` it is masked, and `bad` has its key
  and the reason once its batch is out.
  """

  def __init__(
    self,
    source: Records,
    ops: Sequence[Op],
    *,
    batch_size: int,
    process_index: int = 0,
    process_count: int = 1,
    threads: int = 2,
    workers: int = 0,
    where: str = 'ops',
    strict: bool = True,
  ):
    _check_divides(batch_size, process_count)
    self.source = source
    self.bad: dict[str, str] = {}
    chosen = canvases.choose(source, ops)
    rows = _rows(batch_size, process_index, process_count)
    self._order = canvases.InOrder(chosen, batch_size, rows)
    loaders = _loaders(source, ops, chosen, 0, where=where, strict=strict)
    self._load = canvases.Batches(self._order, loaders)
    self._threads = threads
    self._room = worker_room.need(
      [one.row for one in loaders], len(rows), workers, _EVALUATION_PREFETCH
    )

  def __len__(self) -> int:
    return len(self._order)

  def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
    batches = grain.MapDataset.range(len(self)).map(self._load)
    iterator = ahead.iterate(batches, self._room, self._threads)
    try:
      for batch in iterator:
        for row in np.flatnonzero(~batch['_mask'] & (batch['_id'] >= 0)):
          key = self.source.key(int(batch['_id'][row]))
          self.bad[key] = _decode_reason(batch['_reason'][row])
        retries.book(int(batch['_retries'][0]))
        yield {k: v for k, v in batch.items() if k not in _OF_THE_READER}
    finally:
      ahead.close(iterator)


def evaluation(
  source: Records, ops: Sequence[Op], **options: Any
) -> Evaluation:
  """See `Evaluation`."""
  return Evaluation(source, ops, **options)


class _Shuffled:
  """Step -> (epoch, index) of this process's rows of the batch after it."""

  def __init__(self, num: int, seed: int, batch_size: int, rows: range):
    self._num = num
    self._batch_size = batch_size
    self._rows = rows
    self._order = grain.MapDataset.range(num).seed(seed).shuffle().repeat()

  def __call__(self, step: int) -> list[tuple[int, int]]:
    first = int(step) * self._batch_size
    positions = (first + row for row in self._rows)
    return [(p // self._num, int(self._order[p])) for p in positions]  # type: ignore[arg-type]


def _loaders(
  source: Records,
  ops: Sequence[Op],
  chosen: canvases.Canvases,
  seed: int,
  *,
  where: str,
  **options: Any,
) -> list['_Load']:
  """What makes the batches of each canvas."""
  fixed = [canvas.fixed(ops, size) for size in chosen.sizes]
  return [
    _Load(source, one, example_spec(one, where), seed, **options)
    for one in fixed
  ]


class _Load:
  """[(epoch, index), ...] -> batch with `_id`, `_mask`, `_OF_THE_READER`.

  An index past the end is padding. Each example is copied into the batch while
  the cache still holds it.
  """

  def __init__(
    self,
    source: Records,
    ops: Sequence[Op],
    spec: Example,
    seed: int,
    strict: bool = False,
    stream: str = stream_names.MAIN,
  ):
    self._source = source
    self._ops = ops
    self._needed, self._finished = chains.needed(ops), chains.finished(ops)
    self._before_decoding = order_of_ops.before_decoding(ops)
    self._spec = spec
    self._seed = seed
    self._strict = strict
    self._stream = stream
    self._num = len(source)

  @property
  def row(self) -> Example:
    """One row of a batch."""
    reason = np.zeros(_REASON_BYTES, np.uint8)
    return {
      **self._spec, '_id': np.int32(-1), '_mask': np.bool_(0), '_reason': reason
    }  # fmt: skip

  def __call__(self, positions: Sequence[tuple[int, int]]) -> Example:
    num = len(positions)
    batch = {
      k: np.empty((num, *v.shape), v.dtype) for k, v in self._spec.items()
    }
    ids = np.full(num, -1, np.int32)
    mask = np.zeros(num, np.bool_)
    reasons = np.zeros((num, _REASON_BYTES), np.uint8)
    for row, (epoch, index) in enumerate(positions):
      example, reason = self._spec, 'padding'
      if index < self._num:
        ids[row] = index
        example, reason = self._example(epoch, index)
      if reason:
        text = reason.encode()[:_REASON_BYTES]
        reasons[row, : len(text)] = np.frombuffer(text, np.uint8)
      mask[row] = not reason
      for name, value in example.items():
        batch[name][row] = value
    told = {'_reason': reasons, '_retries': np.array([retries.take()])}
    return {**batch, '_id': ids, '_mask': mask, **told}

  def _example(self, epoch: int, index: int) -> tuple[Example, str]:
    """The example, or a blank and the reason why it cannot be used."""
    try:
      rng = record_rng(self._seed, epoch, index)
      record = retries.call(self._source.__getitem__, index)
      example = chains.only(record, self._needed)
      if 'key' not in example:
        example['key'] = self._source.key(index)
      if self._before_decoding and isinstance(example.get('image'), bytes):
        raise ValueError(self._before_decoding)
      example = select(apply(self._ops, example, rng), self._finished)
    except BadExample as bad:
      if self._strict:
        raise ValueError(
          f'evaluation needs every record, and {self._key(index)} cannot be '
          f'used: {bad.reason}'
        ) from bad
      return self._spec, bad.reason
    except ValueError as error:
      error.add_note(f'in record {self._key(index)}')
      raise
    self._check(example, index)
    return example, ''

  def _check(self, example: Example, index: int) -> None:
    fits = example.keys() == self._spec.keys() and all(
      v.shape == self._spec[k].shape and v.dtype == self._spec[k].dtype
      for k, v in example.items()
    )
    if not fits:
      raise ValueError(
        f'record {self._key(index)} gives {_shapes(example)} where the ops '
        f'promise {_shapes(self._spec)}'
      )

  def _key(self, index: int) -> str:
    return stream_names.record(self._stream, self._source.key(index))


def _shapes(example: Example) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
  return {k: (v.shape, v.dtype) for k, v in example.items()}


def _mixed(seed: int, purpose: int) -> int:
  """64 bits of a seed; plain ones would make seed 0, epoch 1 = seed 1, epoch 0.

  Grain shuffles epoch e with seed + e.
  """
  words = np.random.SeedSequence((seed % 2**64, purpose)).generate_state(2)
  return int(words[0]) << 32 | int(words[1])


def training_order(
  num: int, seed: int, start: int
) -> Iterator[tuple[int, int]]:
  """(epoch, index) of the records that `train` reads from a position on.

  Args:
    num: records of the source.
    seed: that of `train`.
    start: position in the stream; epoch e begins at e * num.
  """
  order = _Shuffled(num, _mixed(seed, 0) % 2**32, 1, range(1))
  for position in itertools.count(start):
    yield order(position)[0]


def training_rng(seed: int, epoch: int, index: int) -> np.random.Generator:
  """Generator of a record in one epoch of `train` with this seed."""
  return record_rng(_mixed(seed, 1), epoch, index)


def _decode_reason(packed: np.ndarray) -> str:
  return bytes(packed).rstrip(b'\0').decode(errors='replace')


def _rows(batch_size: int, process_index: int, process_count: int) -> range:
  """A process's rows of the global batch: one contiguous part."""
  num = batch_size // process_count
  return range(process_index * num, (process_index + 1) * num)


def _check_divides(batch_size: int, process_count: int) -> None:
  if batch_size <= 0 or batch_size % process_count:
    raise ValueError(
      f'batch_size={batch_size} must be a positive multiple of the '
      f'{process_count} processes'
    )
