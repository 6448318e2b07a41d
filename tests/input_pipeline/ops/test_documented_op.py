"""docs/add-an-op.md works as it stands, and docs/data.md knows the fields."""

import re

import numpy as np

from big_vision_like.inference import embedder
from input_pipeline import pipeline
from input_pipeline.examples import fields
from input_pipeline.ops import chains
from tests import documented_code
from tests.conftest import ROOT


def test_the_documented_op(monkeypatch):
  shown = documented_code.snippet('add-an-op.md', 'class RandomGrey')
  fixtures = ROOT / 'tests' / 'fixtures'
  assert shown == (fixtures / 'my_package' / 'my_ops.py').read_text()
  monkeypatch.syspath_prepend(fixtures)
  own = dict(op='my_package.my_ops.RandomGrey', probability=0.5)
  specs = [dict(op='decode'), dict(op='resize', size=16), own]
  source = pipeline.open_source(dict(type='synthetic', num_images=16))
  ops = pipeline.build_ops(specs, source)
  assert chains.needed(ops) == {'image', 'original_size'}
  assert embedder.deterministic_ops(specs) == specs[:2]
  batches = pipeline.train(source, ops, batch_size=16, seed=0)
  images = next(batches)['image']
  batches.close()
  grey = (images == images[..., :1]).all((1, 2, 3))
  assert 2 <= np.count_nonzero(grey) <= 14


def test_the_page_has_every_field_of_a_batch():
  text = (ROOT / 'docs' / 'data.md').read_text()
  section = text.partition('## Batches')[2].partition('## ')[0]
  rows = [line for line in section.splitlines() if line.startswith('| `')]
  named = {n for row in rows for n in re.findall('`(\\w+)`', row.split('|')[1])}
  assert named == {n for n in fields.FIELDS if fields.in_batch(n)}
