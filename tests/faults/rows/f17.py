"""F17: a data worker is killed."""

import os
import random
import signal
import time

from input_pipeline import workers
from tests.faults.field import Field
from tests.faults.rows import Row


def _entries() -> set[str]:
  return {path.name for path in workers.SHARED_MEMORY.glob('*bvl-*')}


def trial(field: Field, number: int, rng: random.Random) -> str:
  before = _entries()
  run = field.run(f'f17-{number}')
  # So long that the worker is missed before the end.
  trainer = run.start('--config.input.workers=2', '--config.total_steps=100000')
  trainer.wait_for('step 2/')
  time.sleep(rng.uniform(0, 0.3))
  victim = rng.choice(trainer.workers())
  os.kill(victim, signal.SIGKILL)
  begun = time.monotonic()
  assert trainer.wait(30) == 1, trainer.output()[-3000:]
  seconds = time.monotonic() - begun
  said = trainer.output().splitlines()[-1]
  assert f'a data worker has died (pid {victim} by SIGKILL)' in said, said
  assert run.saved() == run.last_step(), said
  assert not trainer.group(), trainer.group()
  assert _entries() <= before
  length = run.saved() + 2
  again = run.start(
    '--config.input.workers=2', f'--config.total_steps={length}'
  )
  assert again.wait(120) == 0, again.output()[-3000:]
  assert _entries() <= before
  return f'after {seconds:.1f} s, saved step {length - 2}'


ROW = Row(
  'F17',
  'SIGKILL to a data worker',
  'one line names it within 30 s, the last finished step is saved, nothing is '
  'left in /dev/shm or among the processes; the next start is clean',
  trial,
  trials=20,
  per_commit=1,
)
