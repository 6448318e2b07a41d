"""F26: bad configs: unknown keys, wrong types and ranges, impossible pairs."""

import json
import random
import time

from configs import common
from tests.big_vision_like.config import bad_input_cases as cases
from tests.faults.field import Field
from tests.faults.rows import Row

_KEYS = sorted(common.base())
_MOST_S = 30.0  # on a machine that does other things; the note has the time


def _misspelt(key: str, rng: random.Random) -> str:
  """The key with a letter doubled, left out, or two of them exchanged."""
  at = rng.randrange(1, len(key) - 1)
  wrong = rng.choice((
    key[:at] + key[at] + key[at:],
    key[:at] + key[at + 1 :],
    key[:at] + key[at + 1] + key[at] + key[at + 2 :],
  ))  # fmt: skip
  return wrong if wrong != key else key + 's'


def trial(field: Field, number: int, rng: random.Random) -> str:
  run = field.run(f'f26-{number}')
  if number < len(_KEYS):
    key = _KEYS[number]
    name = _misspelt(key, rng)
    content = json.loads(field.config.read_text())
    content[name] = content.pop(key, 1)
    path = run.folder / 'misspelt.json'
    path.write_text(json.dumps(content))
    args = [f'--config={path}', f'--workdir={run.workdir}']
    words = [f'unknown config key {name!r}', f'did you mean {key!r}']
  else:
    name = list(cases.CASES)[number - len(_KEYS)]
    files = run.folder / 'files'
    files.mkdir()
    cases.make_files(files)
    templates, words = cases.CASES[name]
    args = [cases.expand(a, files, run.workdir) for a in templates]
  begun = time.monotonic()
  trainer = field.trainers.start(args, run.folder / 'out')
  code = trainer.wait(60)
  seconds = time.monotonic() - begun
  said = trainer.output()
  assert code == 2, f'{name}: {code}: {said}'
  assert 'Traceback' not in said, f'{name}: {said}'
  assert len(said.splitlines()) <= 15, f'{name}: {said}'
  missing = [word for word in words if word not in said]
  assert not missing, f'{name}: without {missing}: {said}'
  assert seconds <= _MOST_S, f'{name}: {seconds:.1f} s'
  if not name.startswith('warm'):
    assert not (run.workdir / 'checkpoints').exists(), name
  return f'{name}, {seconds:.1f} s'


ROW = Row(
  'F26',
  f'each top-level key misspelt; {len(cases.CASES)} command lines with wrong '
  'keys, types, '
  'ranges, files and pairs',
  'one message within seconds that names the key or file and the nearest or '
  'the valid ones; exit 2, no traceback, nothing trained',
  trial,
  trials=len(_KEYS) + len(cases.CASES),
  per_commit=0,
)
