"""Batches of images that keep their aspect ratio, on few canvases.

All images of a batch lie on one canvas (ops/canvas.py), so that one program a
canvas is compiled. Which canvas a batch has is a pure function of (seed, step)
and the sizes of the stored images: processes agree without a word, and a run
seeks to any step at the same cost.

Records of one canvas are a bucket, an endless shuffled stream of its own:
every record comes once in each pass of its bucket. N_b records of a bucket
give, in epoch e, floor((e + 1) N_b / B) - floor(e N_b / B) batches of B; the
batches of all buckets stand in an order drawn from (seed, e).
"""

import bisect
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import grain
import numpy as np

from big_vision_like import protocols
from big_vision_like.protocols import Records
from input_pipeline.ops import canvas, chains

Size = tuple[int, int]
Positions = list[tuple[int, int]]


@dataclasses.dataclass(frozen=True, eq=False)
class Canvases:
  """The canvases of a chain of ops for the records of a source.

  Attributes:
    sizes: (height, width) of each canvas that is used, K of them; one None
      where the chain has no op `canvas`.
    records: ascending indices of the records on each.
    num_records: N, of the source.
    report: a line for people; ''.
  """

  sizes: tuple[Size | None, ...]
  records: tuple[Sequence[int] | np.ndarray, ...]
  num_records: int
  report: str


def choose(source: Records, ops: Sequence[Any]) -> Canvases:
  """The canvases for the records of a source.

  They follow from the sizes of the stored images, `source.sizes()` int32
  [N, 2], and from what the ops before `canvas` say of sizes. Where either is
  not known, all images share the one canvas that holds all others. An image
  that fits into none lies in the bucket of the largest, where it is a bad
  example.
  """
  op, num = canvas.of(ops), len(source)
  if op is None:
    return Canvases((None,), (range(num),), num, '')
  before = list(ops[: list(ops).index(op)])
  sized = isinstance(source, protocols.WithSizes)
  stored = source.sizes() if sized else None
  if stored is None:
    return _one(op, num, 'the source does not know the sizes of its images')
  # An image without a size cannot be decoded: any canvas will do.
  stored = np.maximum(stored, 1)
  pairs, of_record = np.unique(stored, axis=0, return_inverse=True)
  after = [_size_after(before, *pair) for pair in pairs.tolist()]
  if None in after:
    return _one(op, num, 'an op before it does not say what size it makes')
  fitting = [op.smallest(*size) for size in after if size]
  outside = np.array([size is None for size in fitting])[of_record.reshape(-1)]
  number = {size: i for i, size in enumerate(op.sizes)}
  numbers = [number[size or op.sizes[-1]] for size in fitting]
  canvas_of = np.array(numbers, np.int8)[of_record.reshape(-1)]
  buckets = [np.flatnonzero(canvas_of == i) for i in range(len(op.sizes))]
  used = [i for i, records in enumerate(buckets) if len(records)]
  shares = (f'{len(buckets[i]):,} on {_text(op.sizes[i])}' for i in used)
  text = f'canvases: {", ".join(shares)}'
  if outside.any():
    text += f'; {outside.sum():,} images fit into none of {op.where}'
  return Canvases(
    tuple(op.sizes[i] for i in used),
    tuple(buckets[i] for i in used),
    num,
    text,
  )


def report(source: Records, ops: Sequence[Any]) -> list[str]:
  """What people should know before a run: of the data, and of the canvases."""
  told = isinstance(source, protocols.Reporting)
  lines = list(source.report_lines()) if told else []
  text = choose(source, ops).report
  return [*lines, text] if text else lines


def _one(op: canvas.Canvas, num_records: int, reason: str) -> Canvases:
  """One canvas for all images."""
  text = f'one canvas of {_text(op.around)} for all images: {reason}'
  return Canvases((op.around,), (range(num_records),), num_records, text)


def _text(size: Size) -> str:
  return f'{size[0]}x{size[1]}'


def _size_after(ops: Sequence[Any], height: int, width: int) -> Size | None:
  """Size of an image after some ops; None where one does not say."""
  size: Size | None = height, width
  for op in ops:
    # What a user's own op inherits from ours was not said of it.
    if not chains.declared(op):
      size = None
    elif isinstance(op, protocols.Sizing):
      size = op.size_after(*size)
    elif 'image' in op.makes:
      size = None
    if size is None:
      return None
  return size


class Shuffled:
  """Step -> (epoch, index) of this process's rows of the batch after it.

  Args:
    chosen: the buckets.
    seed: of the order, 32 bits.
    batch_size: B, global.
    rows: of a global batch, those of this process.
  """

  def __init__(self, chosen: Canvases, seed: int, batch_size: int, rows: range):
    self._records = chosen.records
    self._nums = [len(records) for records in chosen.records]
    self._seed = seed
    self._batch_size = batch_size
    self._rows = rows
    self._orders: list[Any] = [
      _shuffle(num, (seed, 0, bucket)).repeat()
      for bucket, num in enumerate(self._nums)
    ]
    self._epoch: tuple[int, Any] = -1, None  # the last one, and its order

  def canvas(self, step: int) -> int:
    """Which of the canvases the batch after a step has."""
    return self._place(int(step))[0]

  def __call__(self, step: int) -> Positions:
    bucket, number = self._place(int(step))
    num, records = self._nums[bucket], self._records[bucket]
    first = number * self._batch_size
    places = (first + row for row in self._rows)
    order = self._orders[bucket]
    return [(p // num, int(records[int(order[p])])) for p in places]

  def _before(self, bucket: int, epoch: int) -> int:
    """Batches of a bucket in all epochs before one."""
    return epoch * self._nums[bucket] // self._batch_size

  def _all_before(self, epoch: int) -> int:
    return sum(self._before(b, epoch) for b in range(len(self._nums)))

  def _place(self, step: int) -> tuple[int, int]:
    """(bucket, which of its batches) of the batch after a step."""
    size, total = self._batch_size, sum(self._nums)
    # Rounding down takes less than one batch a bucket from step * B / N.
    low = step * size // total
    high = (step + len(self._nums)) * size // total + 2
    epochs = range(low, high)
    epoch = epochs[bisect.bisect_right(epochs, step, key=self._all_before) - 1]
    starts = [self._before(b, epoch) for b in range(len(self._nums))]
    ends = [self._before(b, epoch + 1) for b in range(len(self._nums))]
    upto = np.cumsum([end - start for start, end in zip(starts, ends)])
    place = int(self._order_of(epoch, int(upto[-1]))[step - sum(starts)])
    bucket = int(np.searchsorted(upto, place, side='right'))
    return bucket, ends[bucket] - int(upto[bucket]) + place

  def _order_of(self, epoch: int, num_batches: int) -> Any:
    """The order of the batches of an epoch, by their place in it."""
    known, order = self._epoch
    if known != epoch:
      order = _shuffle(num_batches, (self._seed, 1, epoch))
      self._epoch = epoch, order
    return order


class InOrder:
  """Number of an evaluation batch -> (0, index) of this process's rows.

  Canvas after canvas, every record once; N stands where a batch is padded.
  """

  def __init__(self, chosen: Canvases, batch_size: int, rows: range):
    self._records = chosen.records
    self._padding = chosen.num_records
    self._batch_size = batch_size
    self._rows = rows
    counts = [-(-len(records) // batch_size) for records in chosen.records]
    self._ends = np.cumsum(counts)

  def __len__(self) -> int:
    """Number of batches."""
    return int(self._ends[-1])

  def canvas(self, number: int) -> int:
    """Which of the canvases a batch has."""
    return int(np.searchsorted(self._ends, int(number), side='right'))

  def __call__(self, number: int) -> Positions:
    bucket = self.canvas(number)
    records = self._records[bucket]
    before = int(self._ends[bucket - 1]) if bucket else 0
    first = (int(number) - before) * self._batch_size
    places = (first + row for row in self._rows)
    return [
      (0, int(records[p]) if p < len(records) else self._padding)
      for p in places
    ]


class Batches:
  """Number of a batch -> the batch, by the loader of its canvas.

  Args:
    order: `Shuffled` or `InOrder`, or an order of one canvas.
    loaders: of each canvas, positions -> batch.
  """

  def __init__(self, order: Any, loaders: Sequence[Callable[[Any], Any]]):
    self._order, self._loaders = order, tuple(loaders)

  def __call__(self, number: int) -> Any:
    which = self._order.canvas(number) if len(self._loaders) > 1 else 0
    return self._loaders[which](self._order(number))


def _shuffle(num: int, seed: tuple[int, ...]) -> grain.MapDataset:
  """The numbers below `num` in an order of their own, computed as asked for."""
  mixed = int(np.random.SeedSequence(seed).generate_state(1)[0])
  return grain.MapDataset.range(num).seed(mixed).shuffle()
