"""F30: TensorBoard's files cannot be written, at the start or from later on."""

import json
import random

from tests.faults import metric_lines
from tests.faults.field import Field, Run
from tests.faults.rows import Row


def _a_file(run: Run, field: Field, rng: random.Random) -> str:
  run.workdir.mkdir()
  (run.workdir / 'tensorboard').write_text('no folder')
  return 'a file where the folder should be'


def _nowhere(run: Run, field: Field, rng: random.Random) -> str:
  run.workdir.mkdir()
  (run.workdir / 'tensorboard').symlink_to('/proc/nowhere/tensorboard')
  return 'a folder that cannot be made'


def _full(run: Run, field: Field, rng: random.Random) -> str:
  world = json.loads(field.config.read_text())['input']['source']
  del world['type'], world['split']
  events = rng.randrange(1, 25)
  source = {
    'type': 'tests.fixtures.full_board', 'world': world, 'events': events,
  }  # fmt: skip
  run.change(**{'input.source': source})
  return f'full after {events} events'


_FAULTS = (_a_file, _nowhere, _full)


def trial(field: Field, number: int, rng: random.Random) -> str:
  run = field.run(f'f30-{number}')
  what = _FAULTS[number % len(_FAULTS)](run, field, rng)
  trainer = run.finish()
  said = trainer.output()
  warnings = [s for s in said.splitlines() if 'TensorBoard' in s]
  assert len(warnings) == 1, f'{what}: {said}'
  found = metric_lines.reproducible(run.workdir)
  assert found == metric_lines.reproducible(field.oracle.workdir), what
  return f'{what}: {len(found)} lines'


ROW = Row(
  'F30',
  'TensorBoard: no folder can be made, or its disk is full after 1 to 25 '
  'events',
  'one warning; every line of metrics.jsonl is there with the same figures',
  trial,
  trials=12,
  per_commit=0,
)
