"""F11: records of a data set have a byte changed."""

import copy
import pathlib
import random
import re
import shutil
from typing import Any

import numpy as np

from input_pipeline import pipeline
from input_pipeline.prepared import records
from input_pipeline.sources.records import Source
from tests.faults import record_sets
from tests.faults.field import Field
from tests.faults.rows import Row

_NUM, _SHARDS, _BATCH = 2000, 4, 50
_COUNTS = (1, 10, _NUM // 100)
_OPS = [
  dict(op='decode'), dict(op='resize', size=record_sets.SIDE),
  dict(op='labels', max_labels=3),
]  # fmt: skip


def _feed(source: Source, fraction: float, workers: int = 0) -> Any:
  return pipeline.train(
    source,
    pipeline.build_ops(_OPS, source),
    batch_size=_BATCH,
    seed=0,
    workers=workers,
    max_bad_fraction=fraction,
  )


def _epoch(feed: Any) -> list[dict[str, np.ndarray]]:
  try:
    return [next(feed) for _ in range(_NUM // _BATCH)]
  finally:
    feed.close()


def _flip(folder: pathlib.Path, number: int, rng: random.Random) -> None:
  """Changes a bit of the bytes of a record."""
  record = record_sets.record(number)
  for shard in folder.glob('*.array_record'):
    data = bytearray(shard.read_bytes())
    # The header of a block may lie within a record: then a bit of its key.
    for part in (records.encode(record), record.key.encode()):
      start = data.find(part)
      if start >= 0:
        data[start + rng.randrange(len(part))] ^= 1 << rng.randrange(8)
        with shard.open('r+b') as file:
          file.write(data)
        return
  raise AssertionError(f'record {number} is in no shard')


def trial(field: Field, number: int, rng: random.Random) -> str:
  folder = field.folder / f'f11-{number}'
  record_sets.write(folder, _NUM, _SHARDS)
  # What the head of a shard shows is found at the start (F14): open it before.
  source = Source(path=str(folder))
  expected = _epoch(_feed(source, 0.0))
  count = _COUNTS[number % len(_COUNTS)]
  workers = 2 * (number % 10 == 0)
  victims = set(rng.sample(range(_NUM), count))
  for victim in victims:
    _flip(folder, victim, rng)
  damaged = copy.copy(source)
  damaged._reader = records.ShardReader(source._reader.paths)
  keys = {damaged.key(victim) for victim in victims}

  feed = _feed(damaged, 1.0, workers)
  for before, after in zip(expected, _epoch(feed)):
    bad = np.isin(before['_id'], [*victims])
    np.testing.assert_array_equal(after['_mask'], ~bad)
    for name, value in before.items():
      if name != '_mask':
        kept = slice(None) if name == '_id' else ~bad
        np.testing.assert_array_equal(value[kept], after[name][kept])
  assert (feed.bad.count, set(feed.bad.reasons)) == (count, keys)

  try:
    _epoch(_feed(damaged, (count - 0.5) / _NUM))
    raise AssertionError('the budget was not held')
  except ValueError as error:
    said = str(error).splitlines()
    assert 'max_bad_fraction' in said[0], said
    assert len(said) == 1 + min(count, 10), said
    assert all(re.match(r'  (\S+): corrupt', s)[1] in keys for s in said[1:])
  ops = pipeline.build_ops(_OPS, damaged)
  try:
    list(pipeline.evaluation(damaged, ops, batch_size=_BATCH))
    raise AssertionError('an evaluation did without a record')
  except ValueError as error:
    first = damaged.key(min(victims))
    assert f'needs every record, and {first} cannot' in str(error), error
  shutil.rmtree(folder)
  return f'{count} of {_NUM} records, {workers} workers'


ROW = Row(
  'F11',
  'a bit changed in 1, 10 or 1% of 2,000 records',
  'masked, counted and named, none more and none less; order and looks of all '
  'others unchanged; above the budget the run stops with ten keys, an '
  'evaluation at the first',
  trial,
  trials=30,
  per_commit=0,
)
