"""F9: the run goes on with another number of processes or workers."""

import random
from typing import Any

from tests.faults import ledger
from tests.faults.changing import compared, world
from tests.faults.field import Field, Run
from tests.faults.rows import Row

_STEPS = 50
_LEGS = (  # (processes, workers of each) before and after the stop
  ((1, 2), (1, 5)),
  ((1, 5), (1, 2)),
  ((1, 2), (2, 0)),
  ((2, 0), (1, 2)),
)


def _train(run: Run, processes: int, workers: int, end: int) -> list[Any]:
  """Goes on until a step; the new lines, parts of a batch side by side."""
  given = [f'--config.input.workers={workers}', f'--config.total_steps={end}']
  if processes == 1:
    before = len(ledger.read(run.ledger))
    trainers = [run.start(*given, devices=2)]
  else:
    trainers = run.start_several(processes, *given)
  for trainer in trainers:
    assert trainer.wait(120) == 0, trainer.output()[-3000:]
  if processes == 1:
    return ledger.read(run.ledger)[before:]
  parts = [ledger.read(run.ledger_of(i)) for i in range(processes)]
  return [
    {**rows[0], 'ids': [i for part in rows for i in part['ids']]}
    for rows in zip(*parts, strict=True)
  ]


def trial(field: Field, number: int, rng: random.Random) -> str:
  before, after = _LEGS[number % len(_LEGS)]
  changes = world(500, _STEPS)
  oracle = field.undisturbed('f9', changes, devices=2)
  run = field.run(f'f9-{number}')
  run.change(**changes)
  stop = rng.randrange(5, 25)
  lines = _train(run, *before, stop) + _train(run, *after, _STEPS)
  name = (
    f'processes x workers {before[0]}x{before[1]}, from step {stop} '
    f'{after[0]}x{after[1]}'
  )
  worst = compared(ledger.read(oracle.ledger), lines, name)
  return f'{name}: losses within {worst:.1e}'


ROW = Row(
  'F9',
  'stopped and gone on with by 2 instead of 1 processes and the reverse, by 5 '
  'instead of 2 workers and the reverse',
  'the same records, losses within 1e-5 of the undisturbed run, over 50 steps '
  'at a rate of 1e-4',
  trial,
  trials=8,
  per_commit=0,
)
