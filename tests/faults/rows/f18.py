"""F18: a data worker hangs."""

import os
import random
import signal
import time

from tests.faults.field import Field
from tests.faults.rows import Row

_TIMEOUT_S, _MORE_S = 15, 10  # of the first batch too, which starts workers


def trial(field: Field, number: int, rng: random.Random) -> str:
  run = field.run(f'f18-{number}')
  trainer = run.start(
    '--config.input.workers=2',
    '--config.total_steps=100000',
    f'--config.input.timeout_s={_TIMEOUT_S}',
  )
  trainer.wait_for('step 2/')
  time.sleep(rng.uniform(0, 0.5))
  os.kill(rng.choice(trainer.workers()), signal.SIGSTOP)
  begun = time.monotonic()
  assert trainer.wait(_TIMEOUT_S + _MORE_S) == 1, trainer.output()[-3000:]
  seconds = time.monotonic() - begun
  said = trainer.output().splitlines()[-1]
  assert f'takes longer than {_TIMEOUT_S} s; a data worker hangs' in said, said
  assert said.endswith(f'saved step {run.last_step()}'), said
  assert run.saved() == run.last_step(), said
  assert 'Thread 0x' in (run.workdir / 'stacks.txt').read_text()
  assert not trainer.group(), trainer.group()
  return f'after {seconds:.1f} s, saved step {run.saved()}'


ROW = Row(
  'F18',
  'a data worker that is stopped (SIGSTOP) at any moment',
  'one line and the stacks of all threads after `input.timeout_s`, 10 s later '
  'at most; the last finished step is saved, no process stays',
  trial,
  trials=10,
  per_commit=0,
)
