"""F2: SIGKILL inside a save."""

import random
import signal

from tests.faults import crash_points
from tests.faults.field import EVERY, Field
from tests.faults.rows import Row

_KEEP_LAST = 2  # the default of ckpt.keep_last


def trial(field: Field, number: int, rng: random.Random) -> str:
  points = list(crash_points.POINTS)
  point = points[number % len(points)]
  saves = rng.randrange(1, 4)
  if point == points[-1]:  # nothing is deleted before there are too many
    saves = max(saves, _KEEP_LAST)
  run = field.run(f'f2-{number}')
  checkpoints = run.workdir / 'checkpoints'
  trainer = run.start(crash_at=(point, checkpoints, str(saves)))
  code = trainer.wait(120)
  assert code == -signal.SIGKILL, f'{point}: ended with {code}, not there'
  assert run.saved() >= EVERY * saves - EVERY, f'{point}: {run.saved()} saved'
  assert run.saved() > 0
  run.finish()
  return f'{point} of save {saves + 1}'


ROW = Row(
  'F2',
  'SIGKILL inside a save, at six points from the first folder to the deletion '
  'of old ones',
  'there is always a whole checkpoint, and the run goes on from it as F1 does',
  trial,
  trials=60,
  per_commit=2,
)
