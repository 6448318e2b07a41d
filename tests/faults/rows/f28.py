"""F28: the config wants a device that is not there."""

import random

from tests.faults.field import Field
from tests.faults.rows import Row

_WANTED = ('accelerator', 'gpu', 'tpu')


def trial(field: Field, number: int, rng: random.Random) -> str:
  wanted = _WANTED[number % len(_WANTED)]
  mode = rng.choice(('train', 'eval'))
  run = field.run(f'f28-{number}')
  trainer = run.start(f'--config.device={wanted}', f'--mode={mode}')
  code = trainer.wait(60)
  said = trainer.output()
  assert code == 2, said[-2000:]
  assert f"config.device={wanted!r}, but JAX found only 'cpu'" in said, said
  assert '--config.device=any' in said, said
  assert not run.workdir.exists() or not any(run.workdir.iterdir())
  return f'{wanted}, --mode={mode}'


ROW = Row(
  'F28',
  'a config that wants an accelerator, a GPU or a TPU where only a CPU is',
  'refused with the way out, nothing is written: never a silent CPU run',
  trial,
  trials=6,
  per_commit=0,
)
