"""F25: spikes of the loss."""

import random
import re

from tests.faults import ledger
from tests.faults.field import Field
from tests.faults.rows import Row

_STEPS, _WARMUP, _SPIKES = 1000, 110, 3
_CHANGES = {
  'evals': {},
  'total_steps': _STEPS,
  'log_every_steps': 50,
  'ckpt.every_steps': 500,
  'train.skip_spikes_sigma': 6.0,
  'input.source.num_images': 10_000,  # each comes once
}


def trial(field: Field, number: int, rng: random.Random) -> str:
  changes = {**_CHANGES, 'seed': number}
  clean = field.undisturbed(f'f25-{number}', changes)
  said = (clean.folder / 'out').read_text()
  false = re.findall(r'step (\d+) was passed over', said)
  assert not false, f'{false} of {_STEPS} clean steps were passed over'
  lines = ledger.read(clean.ledger)
  steps = sorted(rng.sample(range(_WARMUP, _STEPS), _SPIKES))
  records = [rng.choice(lines[step - 1]['ids']) for step in steps]
  run = field.run(f'f25-{number}')
  run.change(**changes)
  trainer = run.start(inject=[('poisoned_loss', records, '1e4')])
  assert trainer.wait(200) == 0, trainer.output()[-3000:]
  passed = re.findall(r'step (\d+) was passed over', trainer.output())
  assert [int(s) for s in passed] == steps, f'{passed} instead of {steps}'
  before = steps[0] - 1
  assert ledger.read(run.ledger)[:before] == lines[:before]
  return f'spikes at {steps}, no other of {_STEPS} steps passed over'


ROW = Row(
  'F25',
  'the loss of 3 batches times 10^4 in 1,000 steps, '
  '`train.skip_spikes_sigma=6`',
  'these are passed over and named, none in 1,000 clean steps',
  trial,
  trials=10,
  per_commit=0,
)
