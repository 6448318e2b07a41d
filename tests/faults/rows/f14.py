"""F14: shards of a data set are missing, half written, renamed, swapped."""

import pathlib
import random
import re
import shutil
import time

from input_pipeline.prepared import manifest as manifests
from input_pipeline.sources.records import Source
from tests.faults import record_sets
from tests.faults.field import Field
from tests.faults.rows import Row

_SHARDS, _MOST_S = 1000, 5.0
_RECORDS = 3 * _SHARDS


def _whole(field: Field) -> pathlib.Path:
  folder = field.folder / 'f14-whole'
  if not folder.exists():
    record_sets.write(folder, _RECORDS, _SHARDS)
  return folder


def _delete(shard: pathlib.Path, rng: random.Random) -> set[str]:
  shard.unlink()
  return {shard.name}


def _cut(shard: pathlib.Path, rng: random.Random) -> set[str]:
  data = shard.read_bytes()
  shard.write_bytes(data[: rng.randrange(len(data))])
  return {shard.name}


def _rename(shard: pathlib.Path, rng: random.Random) -> set[str]:
  shard.rename(shard.with_name(f'old-{shard.name}'))
  return {shard.name}


def _swap(shard: pathlib.Path, rng: random.Random) -> set[str]:
  others = [p for p in shard.parent.glob('*.array_record') if p != shard]
  other = rng.choice(sorted(others))
  aside = shard.with_name('aside')
  shard.rename(aside)
  other.rename(shard)
  aside.rename(other)
  return {shard.name, other.name}


_FAULTS = (_delete, _cut, _rename, _swap)


def trial(field: Field, number: int, rng: random.Random) -> str:
  whole = _whole(field)
  folder = field.folder / f'f14-{number}'
  shutil.copytree(whole, folder, copy_function=shutil.copy)
  fault = _FAULTS[number % len(_FAULTS)]
  names: set[str] = set()
  for _ in range(rng.choice((1, 1, 3))):
    left = [
      p for p in sorted(folder.glob('train-*.array_record'))
      if p.name not in names
    ]  # fmt: skip
    names |= fault(rng.choice(left), rng)
  begun = time.monotonic()
  try:
    Source(path=str(folder))
    raise AssertionError('opened as if nothing were')
  except ValueError as error:
    said = str(error)
  seconds = time.monotonic() - begun
  found = set(re.findall(r'^  (\S+):', said, re.MULTILINE))
  assert found == names, f'{names} damaged, {found} named'
  assert f'{len(names)} of {_SHARDS} files' in said, said
  assert seconds <= _MOST_S, f'{seconds:.1f} s'
  # What is beyond sizes and heads is for the whole comparison.
  manifest = manifests.load(str(folder))
  problems = manifests.verify(str(folder), manifest, 'train')
  assert {p.partition(':')[0] for p in problems} == names, problems
  shutil.rmtree(folder)
  what = fault.__name__[1:]
  return f'{what}: {len(names)} of {_SHARDS} shards, {seconds:.2f} s'


ROW = Row(
  'F14',
  'of 1,000 shards one to six are missing, half written, renamed or swapped',
  'refused at the start within 5 s with exactly their list, by the whole '
  'comparison too',
  trial,
  trials=20,
  per_commit=0,
)
