"""S3: hierarchies and lists of labels made to do harm."""

import random

from input_pipeline.labels import hierarchy
from input_pipeline.labels.vocabulary import Vocabulary
from tests.faults import memory
from tests.faults.field import Field
from tests.faults.rows import Row
from tests.input_pipeline.labels import hostile_files

_MOST_KIB = 200 << 10
_FORMULAS = ('=1+2', '@SUM(1)', "+cmd|' /C x'!A0", '=HYPERLINK("http://x/")')
_KINDS = [*hostile_files.FILES, 'formula', 'gigabyte of gzip', 'deep chain']


def trial(field: Field, number: int, rng: random.Random) -> str:
  kind = _KINDS[number % len(_KINDS)]
  folder = field.folder / f's3-{number}'
  folder.mkdir(parents=True)
  before = rng.randrange(1, 1000)
  if kind in hostile_files.FILES:
    return hostile_files.check(kind, folder, before)[len(str(folder)) :]
  if kind == 'formula':
    path = folder / 'v.txt'
    names = [*(f'name{i}' for i in range(before)), rng.choice(_FORMULAS)]
    path.write_text('\n'.join(names))
    module, call = 'vocabulary', 'vocabulary.load(sys.argv[1])'
    message = f'{path}:{before + 1}: the name'
  elif kind == 'deep chain':
    path = folder / 'e.tsv'
    depth = 10**6
    path.write_text('\n'.join(f'{i}\t{i - 1}' for i in range(1, depth)))
    text = r'allowed: '
    try:
      hierarchy.load(str(path), Vocabulary(('5', '6')), unlisted='traverse')
      raise AssertionError('accepted')
    except ValueError as error:
      said = str(error)
    assert said.startswith(f'{path}:') and text in said, said
    assert '\n' not in said and len(said) < 500
    path.unlink()
    return kind
  else:
    path = folder / 'e.tsv.gz'
    hostile_files.bomb(path, rng.choice((bytes(1024), b'apple\tfruit\n')))
    module, call = 'edge_files', 'edge_files.read(sys.argv[1])'
    message = str(path)
  said, kib = memory.of(
    f'from input_pipeline.labels import {module}', call, path
  )
  assert said.startswith(message), said
  assert '\n' not in said and len(said) < 500
  assert kib <= _MOST_KIB, f'{kind}: {kib} KiB'
  path.unlink()
  return f'{kind}: {said[len(str(folder)) :]:.100} (+{kib >> 10} MiB)'


ROW = Row(
  'S3',
  'hierarchies and vocabularies with cycles, a million levels, duplicates, '
  'NaN, surrogates, line separators, formulas, a gigabyte in 1 MB of gzip',
  'refused in one line with file and line number, within 200 MiB',
  trial,
  trials=len(_KINDS),
  per_commit=0,
)
