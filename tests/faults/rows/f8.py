"""F8: the run goes on on another number of devices."""

import random

from tests.faults import ledger
from tests.faults.changing import compared, world
from tests.faults.field import Field
from tests.faults.rows import Row

_STEPS = 50
_CHAINS = ((8, 4, 2, 1, 8), (1, 8))


def trial(field: Field, number: int, rng: random.Random) -> str:
  chain = _CHAINS[number % 2]
  num_classes = 18_291 if number % 4 == 3 else 500
  changes = world(num_classes, _STEPS)
  oracle = field.undisturbed(
    f'f8-{num_classes}-{chain}', changes, devices=chain[0]
  )
  run = field.run(f'f8-{number}')
  run.change(**changes)
  meshes = []
  for leg, devices in enumerate(chain, 1):
    model = rng.choice([m for m in (1, 2, 4, 8) if m <= devices])
    meshes.append(f'{devices // model}x{model}')
    trainer = run.start(
      f'--config.total_steps={_STEPS // len(chain) * leg}',
      f'--config.mesh.model={model}',
      devices=devices,
    )
    assert trainer.wait(200) == 0, trainer.output()[-3000:]
  name = f'{num_classes} classes, {" -> ".join(meshes)}'
  lines = ledger.read(run.ledger)
  saved = {line['step']: line.get('params') for line in lines}
  for start in ledger.starts(run.ledger)[1:]:
    assert start['params'] == saved[start['from']], f'{name}: {start}'
  worst = compared(ledger.read(oracle.ledger), lines, name)
  return f'{name}: losses within {worst:.1e}'


ROW = Row(
  'F8',
  'stopped and gone on with on 8, 4, 2, 1 and 8 devices, or 1 and 8, of random '
  'meshes; 500 and 18,291 classes',
  'the same records, parameters restored to the bit, losses within 1e-5 of '
  'those on the first devices, over 50 steps at a rate of 1e-4',
  trial,
  trials=8,
  per_commit=0,
)
