"""S2: archives with members that lead outside, links, devices, bombs."""

import random
import re
import shutil

from tests.faults import memory
from tests.faults.field import Field
from tests.faults.rows import Row
from tests.input_pipeline.files import archives_made
from tests.input_pipeline.labels import hostile_files

_MOST_KIB = 200 << 10
_MOST_OF_A_MILLION_KIB = 400 << 10
_FAULTS = [
  *(('.tar', fault) for fault in archives_made.HOSTILE_TARS),
  *(('.zip', fault) for fault in archives_made.HOSTILE_ZIPS),
  ('.tar.gz', 'bomb of 1:1000'),
  ('.tar', 'a million members'),
]
_OPEN = 'from input_pipeline.files import archives'
_CALL = 'archives.open_files(sys.argv[1], scratch=sys.argv[2])'


def trial(field: Field, number: int, rng: random.Random) -> str:
  suffix, fault = _FAULTS[number % len(_FAULTS)]
  folder = field.folder / f's2-{number}'
  (folder / 'in').mkdir(parents=True)
  path = folder / 'in' / f'images{suffix}'
  most = _MOST_KIB
  if fault == 'a million members':
    archives_made.write_million(path)
    message, most = '^accepted$', _MOST_OF_A_MILLION_KIB
  elif suffix == '.tar.gz':
    hostile_files.bomb(path, bytes(1024))
    message = 'above 200:1: refused'
  else:
    good = [f'fine{i}.jpg' for i in range(rng.randrange(1, 30))]
    at = rng.randrange(1, len(good) + 1)
    message = archives_made.write_hostile(path, fault, good, at)
  before = {p for p in folder.rglob('*') if p.is_file()}
  said, kib = memory.of(_OPEN, _CALL, path, folder / 'scratch')
  assert re.search(message, said), f'{suffix} {fault}: {said}'
  assert said == 'accepted' or str(path) in said, said
  assert '\n' not in said
  assert kib <= most, f'{suffix} {fault}: {kib} KiB'
  left = {p for p in folder.rglob('*') if p.is_file() and p.suffix != '.lock'}
  assert left == before, f'{suffix} {fault}: wrote {left - before}'
  shutil.rmtree(folder)
  return f'{suffix} {fault}: +{kib >> 10} MiB'


ROW = Row(
  'S2',
  'tars and zips with `..`, absolute names, links, devices, pipes, names '
  'twice, tars in tars in tars, bombs of 1:1000, a million members, at any '
  'place among good ones',
  'refused in one line within 200 MiB, nothing written anywhere; a million '
  'members are no fault (ImageNet-21k has 14 million): opened within 400 MiB',
  trial,
  trials=len(_FAULTS),
  per_commit=0,
)
