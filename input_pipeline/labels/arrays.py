"""The labels of all records as two flat arrays, read in blocks.

Choosing records by their labels, and counting labels, must not read records:
300 million of them are 300 million seeks, but 4 bytes a label and 8 a record in
one array each. Prepared data sets have these arrays on disk, memory-mapped;
image folders and tables in memory; for other sources `build` makes them.
"""

import functools
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

import numpy as np

from big_vision_like.protocols import LabelIndexed, LabelReader, Source
from input_pipeline.examples.errors import BadExample
from input_pipeline.labels import ragged
from input_pipeline.labels.ragged import Ragged

BLOCK = 1 << 20  # records
READ_BLOCK = 1 << 14  # records that are read one by one


class LabelIndex(NamedTuple):
  """Raw labels of n records.

  Attributes:
    ends: int64 [n]; the labels of record i end before position ends[i].
    labels: int32 [m] label ids.
    unreadable: int64 [b] records whose labels could not be read, ascending.
  """

  ends: np.ndarray
  labels: np.ndarray
  unreadable: np.ndarray = np.empty(0, np.int64)


class Block(NamedTuple):
  """The labels of some consecutive records of a selection.

  Attributes:
    first: position of the first record in the selection.
    num: number of records.
    rows: int64 [l] record of each label, counted from `first`, ascending.
    labels: int32 [l].
    bad: record, counted from `first`, -> why it could not be read.
  """

  first: int
  num: int
  rows: np.ndarray
  labels: np.ndarray
  bad: Mapping[int, str] = types.MappingProxyType({})


def of(source: Source) -> LabelIndex | None:
  """The index that a source has by itself (`label_index()`), or None."""
  arrays = source.label_index() if isinstance(source, LabelIndexed) else None
  return None if arrays is None else LabelIndex(*arrays)


def reader(source: Source) -> Callable[[int], np.ndarray]:
  """Raw label ids of a record: `source.labels`, or those of whole records."""
  if isinstance(source, LabelReader):
    return source.labels
  return functools.partial(_of_record, source)


def _of_record(source: Source, index: int) -> np.ndarray:
  return np.asarray(source[index]['labels'], np.int32)


def build(source: Source) -> LabelIndex:
  """Reads the labels of every record: 12 bytes and more a record in memory."""
  unreadable: list[int] = []

  def noted(block: Block) -> Block:
    unreadable.extend(block.first + row for row in block.bad)
    return block

  index = joined(map(noted, read(source, range(len(source)))))
  return index._replace(unreadable=np.array(unreadable, np.int64))


def read(
  source: Source,
  chosen: np.ndarray | range,
  labels_of: Callable[[int], np.ndarray] | None = None,
) -> Iterator[Block]:
  """The labels of the chosen records, asked for one by one.

  Args:
    source: random-access source.
    chosen: its records.
    labels_of: labels of a record; default: those of `reader`.
  """
  ask = labels_of or reader(source)
  for first in range(0, len(chosen), READ_BLOCK):
    part = chosen[first : first + READ_BLOCK]
    found, bad = [np.empty(0, np.int32)], {}
    for row, index in enumerate(part):
      try:
        found.append(np.asarray(ask(int(index)), np.int32))
      except BadExample as error:
        found.append(found[0])
        bad[row] = error.reason
    rows = np.repeat(np.arange(len(part)), [len(ids) for ids in found[1:]])
    yield Block(first, len(part), rows, np.concatenate(found), bad)


def blocks(
  index: LabelIndex, chosen: np.ndarray | range | None = None
) -> Iterator[Block]:
  """The labels of the chosen records (None: of all), in their order."""
  if chosen is None:
    chosen = range(len(index.ends))
  for first in range(0, len(chosen), BLOCK):
    part = chosen[first : first + BLOCK]
    if isinstance(part, range):
      assert part.step == 1
      ends = index.ends[part.start : part.stop]
      begin = int(index.ends[part.start - 1]) if part.start else 0
      lengths = np.diff(ends, prepend=begin)
      labels = index.labels[begin : int(ends[-1])]
    else:
      starts = np.where(part > 0, index.ends[part.astype(np.int64) - 1], 0)
      lengths = index.ends[part] - starts
      labels = index.labels[ragged.positions(starts, lengths)]
    rows = np.repeat(np.arange(len(part)), lengths)
    yield Block(first, len(part), rows, np.asarray(labels))


def taken(index: LabelIndex, chosen: np.ndarray | range) -> LabelIndex:
  """The index of some records, in their order; a prefix copies nothing."""
  if not isinstance(chosen, range) or chosen.start:
    return joined(blocks(index, chosen))
  assert chosen.step == 1
  ends = index.ends[: len(chosen)]
  return LabelIndex(ends, index.labels[: int(ends[-1]) if len(ends) else 0])


def joined(parts: Iterable[Block]) -> LabelIndex:
  """The index of consecutive blocks: 8 bytes a record and 4 a label."""
  lengths, labels = [np.empty(0, np.int64)], [np.empty(0, np.int32)]
  for block in parts:
    lengths.append(np.bincount(block.rows, minlength=block.num))
    labels.append(block.labels)
  return LabelIndex(np.cumsum(np.concatenate(lengths)), np.concatenate(labels))


def replaced(block: Block, by: Ragged) -> Block:
  """The block with each label replaced by those of its row.

  The closure of a hierarchy (`Hierarchy.closure`) fills the ancestors in.
  Labels may then repeat within a record (see `unique`).
  """
  lengths, labels = by.gather(block.labels)
  return block._replace(rows=np.repeat(block.rows, lengths), labels=labels)


def carrying(index: LabelIndex, wanted: np.ndarray) -> np.ndarray:
  """Records with at least one of the wanted labels, and the unreadable ones.

  Those are kept so that who reads the records meets and counts them.

  Args:
    wanted: bool [C].

  Returns:
    uint32 or int64 [k], ascending.
  """
  dtype = dtype_for(len(index.ends))
  found = [index.unreadable.astype(dtype)]
  for block in blocks(index):
    rows = block.rows[wanted[block.labels]]
    rows = rows[np.diff(rows, prepend=-1) > 0]
    found.append((rows + block.first).astype(dtype))
  chosen = np.concatenate(found)
  if len(index.unreadable):
    chosen.sort()
  return chosen


def counts(parts: Iterable[Block], num_labels: int) -> np.ndarray:
  """int64 [num_labels] images of each label; a repeated label counts once."""
  total = np.zeros(num_labels, np.int64)
  for block in parts:
    total += np.bincount(unique(block, num_labels).labels, minlength=num_labels)
  return total


def unique(block: Block, num_labels: int) -> Block:
  """The block with ascending labels in each record, each once."""
  keys = block.rows * num_labels + block.labels
  # Almost sorted, so a merge sort is linear; np.unique is far slower.
  keys.sort(kind='stable')
  keys = keys[np.diff(keys, prepend=-1) > 0]
  rows, labels = np.divmod(keys, num_labels)
  return block._replace(rows=rows, labels=labels.astype(np.int32))


def check(index: LabelIndex, num_labels: int, where: str) -> None:
  """ValueError for a label outside 0..num_labels-1."""
  for first in range(0, len(index.labels), BLOCK):
    block = index.labels[first : first + BLOCK]
    if block.min() < 0 or block.max() >= num_labels:
      bad = int(np.flatnonzero((block < 0) | (block >= num_labels))[0])
      record = int(np.searchsorted(index.ends, first + bad, side='right'))
      raise ValueError(
        f'{where}: label {block[bad]} of record {record} is outside the '
        f'vocabulary of {num_labels} names'
      )


def dtype_for(num_records: int) -> type:
  """Of record numbers: 4 bytes where they fit."""
  return np.uint32 if num_records <= 1 << 32 else np.int64
