"""F29: the clock is wrong, steps back, and the time zone is another."""

import json
import random
import re

from tests.faults import metric_lines
from tests.faults.field import Field
from tests.faults.rows import Row

_MOST_S = 1e6  # no figure of a run of seconds is as large
_MOST_ENDS = 5


def trial(field: Field, number: int, rng: random.Random) -> str:
  run = field.run(f'f29-{number}')
  world = json.loads(field.config.read_text())['input']['source']
  del world['type'], world['split']
  seed = rng.randrange(10**6)
  source = {
    'type': 'tests.fixtures.stepping_clock',
    'world': world,
    'clock_seed': seed,
  }
  run.change(**{'input.source': source})
  said, ends = '', 0
  while ends < _MOST_ENDS:
    trainer = run.start()
    code = trainer.wait(120)
    said += trainer.output()
    if code == 0:
      break
    ends += 1
    last = trainer.output().splitlines()[-1]
    # Orbax measures how long a save takes by the clock that steps.
    assert code == 1 and 'it took too long' in said, said[-3000:]
    assert last.startswith('error: the save of step '), last
  run.finish()
  found = 0
  for line in metric_lines.lines(run.workdir):
    for name, value in line.items():
      assert value is not None, f'{name} is null: {line}'
      if name.endswith(('_s', '_share')):
        found += 1
        assert 0 <= value < _MOST_S, f'{name} is {value}: {line}'
  assert found > 20
  for eta in re.findall(r'ETA (\S+)', said):
    assert re.fullmatch(r'(\d+[dhms])+', eta), eta
  names = {path.name for path in (run.workdir / 'checkpoints').iterdir()}
  kept = {
    path.name for path in (field.oracle.workdir / 'checkpoints').iterdir()
  }
  assert names == kept or 'it took too long' in said, (
    f'{names} kept, undisturbed {kept}'
  )
  steps = said.count('ALARM')
  return f'clock {seed}, {steps} saves tried again, {ends} ends without one'


ROW = Row(
  'F29',
  'a clock that is years off and steps by up to 11 hours, to and fro, twice a '
  'second, in another time zone',
  'no figure of time is negative, huge or missing; a save that Orbax, which '
  'looks at that clock, gives up is tried again, or, if it is the last, the '
  'same command is; every step equal to the bit, without failed saves the '
  'same checkpoints',
  trial,
  trials=10,
  per_commit=0,
)
