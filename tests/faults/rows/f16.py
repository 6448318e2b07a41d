"""F16: remote or slow storage: reads that fail or hang, for a while or ever."""

import json
import random
import time

from tests.faults.field import Field
from tests.faults.rows import Row

_QUICK = '--config.input.retry_wait_s=0.01'


def _world(field: Field, **faults: object) -> dict[str, dict]:
  """The source of the field's config, on storage with these faults."""
  world = dict(json.loads(field.config.read_text())['input']['source'])
  world.pop('type')
  source = {'type': 'tests.fixtures.flaky_source', 'world': world}
  return {'input.source': {**source, **faults}}


def _fails_sometimes(field: Field, name: str, rng: random.Random) -> str:
  run = field.run(name)
  run.change(**_world(field, percent=1.0, seed=rng.randrange(1000)))
  workers = rng.choice((0, 2))
  run.finish(_QUICK, f'--config.input.workers={workers}')
  lines = (run.workdir / 'metrics.jsonl').read_text().splitlines()
  counts = [json.loads(line).get('train/read_retries', 0) for line in lines]
  return f'{workers} workers, {max(counts)} reads tried again'


def _sleeps(field: Field, name: str, rng: random.Random) -> str:
  run = field.run(name)
  at = rng.randrange(1, 150)
  run.change(**_world(field, slow_at=at, seconds=5.0))
  run.finish('--config.input.workers=0')
  return f'read {at} took 5 s'


def _sleeps_too_long(field: Field, name: str, rng: random.Random) -> str:
  run = field.run(name)
  at = rng.randrange(30, 150)
  run.change(**_world(field, slow_at=at, seconds=60.0))
  trainer = run.start('--config.input.workers=0', '--config.input.timeout_s=14')
  trainer.wait_for('waiting since 10 s for the data of step ')
  begun = time.monotonic()
  assert trainer.wait(30) == 1, trainer.output()[-3000:]
  seconds = time.monotonic() - begun
  said = trainer.output().splitlines()[-1]
  assert 'takes longer than 14 s' in said, said
  assert run.saved() == run.last_step(), said
  assert not trainer.group()
  return f'read {at} took 60 s: ended {seconds:.0f} s after the warning'


def _fails_for_ever(field: Field, name: str, rng: random.Random) -> str:
  run = field.run(name)
  at, workers = rng.randrange(20, 100), rng.choice((0, 2))
  run.change(**_world(field, broken_from=at))
  given = [_QUICK, f'--config.input.workers={workers}']
  trainer = run.start(*given)
  assert trainer.wait(60) == 1, trainer.output()[-3000:]
  said = trainer.output().splitlines()[-1]
  assert said.startswith('error: the storage refuses: record '), said
  assert '(tried 6 times' in said, said
  assert 'Traceback' not in trainer.output(), trainer.output()
  assert run.saved() == run.last_step(), said
  saved = run.saved()
  run.change(**_world(field))
  run.finish('--config.resume.accept_config_change=True')
  return f'after {at} reads, {workers} workers: saved step {saved}'


_KINDS = (_fails_sometimes, _sleeps, _sleeps_too_long, _fails_for_ever)


def trial(field: Field, number: int, rng: random.Random) -> str:
  return _KINDS[number % len(_KINDS)](field, f'f16-{number}', rng)


ROW = Row(
  'F16',
  'storage that fails in 1% of reads, sleeps 5 s or 60 s, or fails for ever',
  'no record lost, the same order and losses to the bit; a wait is announced '
  'after 10 s and ends at `input.timeout_s`; what lasts is one line, the last '
  'finished step is saved and the run goes on from it',
  trial,
  trials=12,
  per_commit=0,
)
