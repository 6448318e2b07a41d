"""F5: SIGTERM to one of two processes."""

import random
import re
import signal
import time

from big_vision_like.checkpoints import folders, manifest
from tests.faults import ledger
from tests.faults.field import Field
from tests.faults.rows import Row


def trial(field: Field, number: int, rng: random.Random) -> str:
  run = field.run(f'f5-{number}')
  run.change(evals={})
  asked, step = rng.randrange(2), rng.randrange(1, 40)
  world = run.start_several(2, '--config.total_steps=100000')
  deadline = time.monotonic() + 120
  while len(ledger.read(run.ledger_of(asked))) < step:
    alive = all(trainer.poll() is None for trainer in world)
    assert alive and time.monotonic() < deadline, world[asked].output()[-3000:]
    time.sleep(0.002)
  milliseconds = rng.uniform(0, 60)
  time.sleep(milliseconds / 1000)
  world[asked].send(signal.SIGTERM)
  codes = [trainer.wait(60) for trainer in world]
  said = [re.findall(r'saved step (\d+)', t.output()) for t in world]
  name = f'process {asked}, {milliseconds:.0f} ms after step {step}: {said}'
  assert codes == [143, 143], f'{name}: {codes}\n{world[0].output()[-3000:]}'
  assert len(said[0]) == 1, name
  assert said[0] == said[1], name
  path = folders.find(run.workdir)
  assert path.name == said[0][0], name
  assert manifest.problems(path) == [], name
  for i in (0, 1):
    assert ledger.read(run.ledger_of(i))[-1]['step'] == int(path.name), name
  return name


ROW = Row(
  'F5',
  'SIGTERM to one of two processes at any step',
  'both save the same step, the last that each has finished, and exit 143',
  trial,
  trials=20,
  per_commit=0,
)
