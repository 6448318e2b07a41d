"""F1: SIGKILL at any moment."""

import random
import signal

from tests.faults.field import EVERY, Field
from tests.faults.rows import Row


def trial(field: Field, number: int, rng: random.Random) -> str:
  run = field.run(f'f1-{number}')
  trainer = run.start('--config.input.workers=0')
  moment = field.moment(rng, run, trainer)
  if trainer.poll() is None:
    trainer.send_group(signal.SIGKILL)
  trainer.wait()
  done, saved = run.last_step(), run.saved()
  # The save of a step is written while the next ones are computed.
  assert done - saved <= 2 * EVERY, f'{moment}: {done} done, {saved} saved'
  run.finish()
  return moment


ROW = Row(
  'F1',
  'SIGKILL at any moment: start, compile, step, save, evaluation',
  'the same command goes on from the last save; every step, also those trained '
  'again, equals the undisturbed run to the bit',
  trial,
  trials=50,
  per_commit=1,
)
