"""F6: resume is exact, at any step, with any number of workers."""

import itertools
import random

from tests.faults import ledger
from tests.faults.field import STEPS, Field
from tests.faults.rows import Row

_WORKERS, _PREFETCH = (0, 2, 8), (1, 2, 8)


def _stops(field: Field) -> list[int]:
  """Steps to stop after: all, those around the end of an epoch first."""
  border = field.num_examples // field.batch_size
  first = [border, border - 1, border + 1]
  return first + [s for s in range(1, STEPS) if s not in first]


def trial(field: Field, number: int, rng: random.Random) -> str:
  options = [
    *itertools.product(
      itertools.product(_WORKERS, _PREFETCH),
      itertools.islice(_stops(field), 20),
    )
  ]
  # All of them in an order that no seed changes; the first one has workers.
  (workers, prefetch), step = options[(number + 1) * 67 % len(options)]
  given = [
    f'--config.input.workers={workers}',
    f'--config.input.prefetch={prefetch}',
  ]
  run = field.run(f'f6-{number}')
  trainer = run.start(*given, f'--config.total_steps={step}')
  assert trainer.wait(120) == 0, trainer.output()[-3000:]
  assert run.saved() == step
  run.finish(*given)
  lines = ledger.read(run.ledger)
  assert [line['step'] for line in lines] == [*range(1, STEPS + 1)]
  ids = [i for line in lines for i in line['ids']]
  for epoch in range(len(ids) // field.num_examples):
    first = epoch * field.num_examples
    of_epoch = ids[first : first + field.num_examples]
    assert sorted(of_epoch) == [*range(field.num_examples)]
  return f'{workers} workers, prefetch {prefetch}, stopped after step {step}'


ROW = Row(
  'F6',
  'stopped after any step, around the end of an epoch too, with 0, 2 or 8 '
  'workers and 1, 2 or 8 batches ahead',
  'equal to the undisturbed run to the bit; every example once an epoch',
  trial,
  trials=180,
  per_commit=1,
)
