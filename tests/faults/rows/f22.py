"""F22: a committed checkpoint is damaged."""

import pathlib
import random
import shutil

from big_vision_like.checkpoints import folders
from tests.big_vision_like.checkpoints import damages
from tests.faults.field import EVERY, STEPS, Field
from tests.faults.rows import Row

_GOES_ON_EVERY = 10  # trials: a run that resumes costs seconds


def _of_a_run(field: Field) -> pathlib.Path:
  """The newest checkpoint of the undisturbed run."""
  return folders.find(field.oracle.workdir)


def trial(field: Field, number: int, rng: random.Random) -> str:
  """The damage of a number, found by whoever reads; now and then by a run."""
  del rng  # damages.py draws by the number
  place = field.folder / f'f22-{number}'
  kind = damages.trial(_of_a_run(field), place, number)
  if number % _GOES_ON_EVERY:
    return kind
  run = field.run(f'f22-{number}-run')
  shutil.copytree(field.oracle.workdir, run.workdir)
  shutil.copy(field.oracle.ledger, run.ledger)
  damages.damage(folders.find(run.workdir), number)
  trainer = run.start()
  assert trainer.wait(120) == 0, trainer.output()[-3000:]
  said = trainer.output()
  assert 'the run goes on from the one before' in said, said
  assert f'resuming from step {STEPS - EVERY}' in said, said
  assert (run.workdir / 'checkpoints' / f'{STEPS}.damaged').is_dir()
  run.finish()
  return f'{kind}; a run went on from step {STEPS - EVERY}'


ROW = Row(
  'F22',
  'a file of a committed checkpoint has a bit changed, is cut, emptied, '
  'deleted, overwritten, or one is added',
  'found and named, nothing of it is used; a run goes on from the checkpoint '
  'before, to the bit',
  trial,
  trials=100,
  per_commit=2,
)
