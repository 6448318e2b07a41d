"""F33: workdirs that older, and newer, versions wrote."""

import json
import random
import shutil

from big_vision_like.checkpoints import folders
from tests.big_vision_like.checkpoints import older_runs
from tests.faults import ledger, metric_lines
from tests.faults.field import STEPS, Field
from tests.faults.rows import Row
from tests.faults.trees import snapshot

_RELATIVE = 2e-6  # as the update in another order of operations may differ
_LENGTH = '--config.total_steps='


def _format_1(field: Field, name: str, kind: str) -> str:
  run = field.run(name)
  older_runs.unpack(run.folder)
  run.workdir = run.folder / kind
  run.config = run.folder / 'config.json'
  run.config.write_text(older_runs.stored_config(run.workdir).to_json())
  trainer = run.start('--trust')
  assert trainer.wait(120) == 0, trainer.output()[-3000:]
  lines = metric_lines.lines(run.workdir)
  losses = {m['step']: m['train/loss'] for m in lines if 'train/loss' in m}
  assert sorted(losses) == [4, 5, 6], losses
  for step, loss in losses.items():
    expected = older_runs.LOSSES[kind][str(step)]
    assert abs(loss / expected - 1) <= _RELATIVE, (step, loss, expected)
  return f'{kind} of format 1: steps 4 to 6 as the version that wrote it'


def _without_manifest(field: Field, name: str, stop: int) -> str:
  run = field.run(name)
  trainer = run.start(f'{_LENGTH}{stop}')
  assert trainer.wait(120) == 0, trainer.output()[-3000:]
  older_runs.remove_manifest(folders.find(run.workdir))
  said = run.finish().output()
  assert 'no manifest' in said, said
  return f'step {stop} without a manifest'


def _newer(field: Field, name: str) -> str:
  run = field.run(name)
  shutil.copytree(field.oracle.workdir, run.workdir)
  older_runs.make_newer(run.workdir)
  before = snapshot(run.workdir)
  trainer = run.start(f'{_LENGTH}{STEPS + 4}')
  assert trainer.wait(120) == 2, trainer.output()[-3000:]
  last = trainer.output().splitlines()[-1]
  assert last.startswith('error: ') and 'is of format 3' in last, last
  assert last.endswith('knows formats 1 to 2; update it'), last
  assert snapshot(run.workdir) == before
  assert not ledger.read(run.ledger)
  return 'of a newer format: refused'


def _without_keys(field: Field, name: str, rng: random.Random) -> str:
  """config.json of a version that did not have some keys yet."""
  run = field.run(name)
  trainer = run.start(f'{_LENGTH}{4 * rng.randrange(1, 6)}')
  assert trainer.wait(120) == 0, trainer.output()[-3000:]
  path = run.workdir / 'config.json'
  content = json.loads(path.read_text())
  keys = rng.sample(['read_retries', 'retry_wait_s', 'also', 'timeout_s'], 2)
  for key in keys:
    del content['input'][key]
  path.write_text(json.dumps(content))
  run.finish()
  return f'config.json without {keys}'


def trial(field: Field, number: int, rng: random.Random) -> str:
  name = f'f33-{number}'
  kind = number % 5
  if kind < 2:
    return _format_1(field, name, older_runs.KINDS[kind])
  if kind == 2:
    return _without_manifest(field, name, 4 * rng.randrange(1, 6))
  if kind == 3:
    return _newer(field, name)
  return _without_keys(field, name, rng)


ROW = Row(
  'F33',
  'workdirs of format 1, without manifests, without keys that came later, of a '
  'newer format',
  'they go on: those of format 1 with its own losses to 2e-6, the others to '
  'the bit; a newer one is refused in one line and left as it is',
  trial,
  trials=10,
  per_commit=0,
)
