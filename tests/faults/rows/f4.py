"""F4: SIGTERM at any moment, with repeats as schedulers send them."""

import random
import signal
import time

from tests.faults.field import Field
from tests.faults.rows import Row

_SAVED, _NOTHING_SAVED, _DONE = 143, 75, 0
_GRACE_S = 30.0


def trial(field: Field, number: int, rng: random.Random) -> str:
  run = field.run(f'f4-{number}')
  trainer = run.start(f'--config.input.workers={rng.choice((0, 0, 1))}')
  time.sleep(0.1)  # Python itself is there
  moment = field.moment(rng, run, trainer)
  whole_group = rng.random() < 0.5
  send = trainer.send_group if whole_group else trainer.send
  if trainer.poll() is None:
    send(signal.SIGTERM)
    time.sleep(rng.uniform(0.001, 0.05))
    if trainer.poll() is None:
      send(signal.SIGTERM)
  begun = time.monotonic()
  code = trainer.wait(_GRACE_S)
  seconds = time.monotonic() - begun
  done, saved = run.last_step(), run.saved()
  said = f'{moment}: {code} after {seconds:.1f} s, {done} done, {saved} saved'
  assert code in (_SAVED, _NOTHING_SAVED, _DONE), said
  if code == _NOTHING_SAVED:
    assert done <= 1, said
  else:
    assert done == saved, said
  assert not trainer.group(), said
  run.finish()
  return said


ROW = Row(
  'F4',
  'SIGTERM at any moment, to the process or its group, and again 1 to 50 ms '
  'later',
  'the last finished step is saved, exit 143 within 30 s; 75 before there is '
  'one; no process stays',
  trial,
  trials=60,
  per_commit=2,
)
