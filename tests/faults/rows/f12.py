"""F12: image files of all kinds, cut, foreign, of odd forms."""

import pathlib
import random
import shutil

import numpy as np

from input_pipeline import pipeline
from input_pipeline.sources.folder import Source
from tests.faults.field import Field
from tests.faults.rows import Row
from tests.input_pipeline.ops import image_fixtures

_OPS = [
  dict(op='decode'), dict(op='resize', size=24),
  dict(op='labels', max_labels=3),
]  # fmt: skip
_GOOD = [
  name for name, (_, expected) in image_fixtures.FIXTURES.items()
  if not isinstance(expected, str)
]  # fmt: skip


def _batches(folder: pathlib.Path) -> list[dict[str, np.ndarray]]:
  source = Source(path=str(folder), split='train')
  ops = pipeline.build_ops(_OPS, source)
  return [*pipeline.evaluation(source, ops, batch_size=4, strict=False)]


def trial(field: Field, number: int, rng: random.Random) -> str:
  """The file by itself, and among eleven good ones at some place."""
  name = list(image_fixtures.FIXTURES)[number % len(image_fixtures.FIXTURES)]
  image_fixtures.check(name)
  place = rng.randrange(12)
  names = [rng.choice(_GOOD) for _ in range(12)]
  found = []
  for chosen in (names, [*names[:place], name, *names[place + 1 :]]):
    folder = field.folder / f'f12-{number}-{len(found)}'
    (folder / 'train' / 'a').mkdir(parents=True)
    for i, each in enumerate(chosen):
      path = folder / 'train' / 'a' / f'{i:02}.jpg'
      path.write_bytes(image_fixtures.FIXTURES[each][0])
    found.append(_batches(folder))
    shutil.rmtree(folder)
  for before, after in zip(*found):
    same = before['_id'] != place
    assert before['_mask'].all()
    assert after['_mask'][same].all()
    assert (after['_mask'][~same] == (name in _GOOD)).all()
    np.testing.assert_array_equal(before['image'][same], after['image'][same])
  return name


ROW = Row(
  'F12',
  'forty image files: cut, empty, foreign, CMYK, 16 bits, palettes, '
  'animations, transparency, orientation, wrong suffix',
  'each is decoded, converted or masked as listed ([bad images]'
  '(data.md#bad-images)), never half grey; others unchanged',
  trial,
  trials=40,
  per_commit=0,
)
