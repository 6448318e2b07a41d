"""F10: the same config again."""

import random

from tests.faults.field import Field
from tests.faults.rows import Row


def trial(field: Field, number: int, rng: random.Random) -> str:
  field.run(f'f10-{number}').finish()
  return ''


ROW = Row(
  'F10',
  'the same config again, on a CPU',
  'equal to the bit: records, batches, losses, parameters',
  trial,
  trials=5,
  per_commit=0,
)
