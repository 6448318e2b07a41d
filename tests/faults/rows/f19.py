"""F19: one of two processes stops before a collective operation."""

import random
import re
import signal
import time

from tests.faults import ledger
from tests.faults.field import Field
from tests.faults.rows import Row

_TIMEOUT_S, _MORE_S = 10, 30


def trial(field: Field, number: int, rng: random.Random) -> str:
  run = field.run(f'f19-{number}')
  run.change(evals={})
  world = run.start_several(
    2,
    '--config.total_steps=100000',
    f'--config.train.step_timeout_s={_TIMEOUT_S}',
  )
  stopped, step = rng.randrange(2), rng.randrange(2, 30)
  deadline = time.monotonic() + 120
  while len(ledger.read(run.ledger_of(stopped))) < step:
    alive = all(trainer.poll() is None for trainer in world)
    assert alive and time.monotonic() < deadline, world[0].output()[-3000:]
    time.sleep(0.002)
  time.sleep(rng.uniform(0, 0.1))
  world[stopped].send(signal.SIGSTOP)
  begun = time.monotonic()
  code = world[1 - stopped].wait(_TIMEOUT_S + _MORE_S)
  seconds = time.monotonic() - begun
  said = world[1 - stopped].output()
  world[stopped].end()
  assert code == 1, f'{code}: {said[-3000:]}'
  assert f'takes longer than {_TIMEOUT_S} s' in said, said[-3000:]
  silent = rf'process {stopped}: step (\d+|never), no sign of life'
  assert re.search(silent, said), said[-3000:]
  assert 'Thread 0x' in said, said[-3000:]
  return f'after {seconds:.1f} s'


ROW = Row(
  'F19',
  'one of two processes is stopped (SIGSTOP) at any step',
  'the other ends after `train.step_timeout_s`, 30 s later at most, exit 1, '
  'with the stacks of its threads and the number of the silent one',
  trial,
  trials=10,
  per_commit=0,
)
