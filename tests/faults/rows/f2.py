"""F2: SIGKILL inside a save."""

import random
import signal

from tests.faults import crash_points
from tests.faults.field import EVERY, Field
from tests.faults.rows import Impossible, Row

_KEEP_LAST = 2  # the default of ckpt.keep_last
_ATTEMPTS = 4  # some points last milliseconds, and a busy machine misses them


def trial(field: Field, number: int, rng: random.Random) -> str:
  points = list(crash_points.POINTS)
  point = points[number % len(points)]
  saves = rng.randrange(1, 4)
  if point == points[-1]:  # nothing is deleted before there are too many
    saves = max(saves, _KEEP_LAST)
  for attempt in range(_ATTEMPTS):
    run = field.run(f'f2-{number}-{attempt}')
    checkpoints = run.workdir / 'checkpoints'
    trainer = run.start(crash_at=(point, checkpoints, str(saves)))
    if code := trainer.wait(120):
      break
  else:
    raise Impossible(f'{point}: {_ATTEMPTS} runs were over before it was seen')
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
