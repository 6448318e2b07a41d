"""F20: the disk is full in a save."""

import contextlib
import json
import random
import signal
import time

from big_vision_like.checkpoints import manifest
from tests.faults import ledger
from tests.faults.field import EVERY, STEPS, Field, checkpoints
from tests.faults.rows import Row
from tests.faults.small_disk import mounted

_SIZE = '20m'
_MAX_FAILED = 3


def trial(field: Field, number: int, rng: random.Random) -> str:
  frees = number % 3 < 2  # else it stays full and the run ends
  run = field.run(f'f20-{number}')
  with mounted(run.folder / 'disk', _SIZE) as disk:
    run.workdir = disk / 'w'
    trainer = run.start(
      '--config.total_steps=100000',
      f'--config.ckpt.max_failed_saves={100 if frees else _MAX_FAILED}',
      inject=[('quick_retries', 1.0)],
    )
    run.wait_for_step(trainer, rng.randrange(EVERY, STEPS))
    filler = disk / 'filler'
    left = rng.randrange(0, 60_000)  # less than a checkpoint takes
    with filler.open('wb', buffering=0) as file:
      with contextlib.suppress(OSError):
        while file.write(bytes(4096)):
          pass
      file.truncate(max(file.tell() - left, 0))
    name = f'{left} bytes left after step {run.last_step()}'
    trainer.wait_for('ALARM: the save of step ', 30)
    if frees:
      time.sleep(rng.uniform(0, 3))
    else:
      assert trainer.wait(60) == 1, f'{name}: {trainer.output()[-3000:]}'
      said = trainer.output().splitlines()[-1]
      assert said.startswith('error: the save of step '), said
      assert f'ckpt.max_failed_saves={_MAX_FAILED} in a row' in said, said
    saved = checkpoints(run.workdir)
    damaged = [p for p in saved if p.exists() and manifest.problems(p)]
    assert saved and not damaged, f'{name}: {damaged} of {saved}'
    filler.unlink()
    if frees:
      trainer.wait_for('saving works again: step ', 60)
      trainer.send(signal.SIGTERM)
      assert trainer.wait(30) == 143, trainer.output()[-3000:]
      assert run.saved() == run.last_step(), name
      _check_metrics(run, name)
    found = ledger.read(run.ledger)[:STEPS]  # fewer where it ended before
    assert found == ledger.read(field.oracle.ledger)[: len(found)], name
    after = run.saved()
    again = run.start(f'--config.total_steps={after + 2}')
    assert again.wait(60) == 0, again.output()[-3000:]
    assert run.saved() == after + 2, name
  return f'{name}, {"freed" if frees else "it stayed full"}'


def _check_metrics(run, name: str) -> None:
  lines = (run.workdir / 'metrics.jsonl').read_text().splitlines()
  found = [json.loads(line) for line in lines]
  steps = [line['step'] for line in found if 'train/loss' in line]
  assert steps == [*range(1, run.last_step() + 1)], name


ROW = Row(
  'F20',
  'the disk (tmpfs of 20 MB) is full from some moment on, up to less than a '
  'checkpoint takes; space is freed, or not',
  'checkpoints so far stay whole, an alarm, training goes on and saves once '
  'there is room, metrics.jsonl has every step; or one line and exit 1 after '
  '`ckpt.max_failed_saves`; the same command goes on',
  trial,
  trials=12,
  per_commit=0,
)
