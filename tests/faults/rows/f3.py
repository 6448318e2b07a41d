"""F3: a save fails in the background while the run goes on."""

import errno
import random
import re

from tests.faults import field as fields
from tests.faults.field import EVERY, STEPS, Field
from tests.faults.rows import Row

_KINDS = ('one', 'two in a row', 'the last')
_ERRNOS = (errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.ESTALE)


def trial(field: Field, number: int, rng: random.Random) -> str:
  kind = _KINDS[number % len(_KINDS)]
  last = STEPS // EVERY
  first = last if kind == 'the last' else rng.randrange(1, last - 1)
  failing = [first, first + 1] if kind == 'two in a row' else [first]
  error = rng.choice(_ERRNOS)
  run = field.run(f'f3-{number}')
  trainer = run.start(
    '--config.ckpt.keep_last=100',
    inject=[('failing_saves', failing, error), ('quick_retries', 0.0)],
  )
  code = trainer.wait(120)
  said = trainer.output()
  failed = [int(s) for s in re.findall(r'INJECTED: save of step (\d+)', said)]
  assert len(failed) == len(failing), said
  name = f'{kind}, step {failed[0]}, {errno.errorcode[error]}'
  if kind == 'the last':
    assert code == 1, f'{name}: ended with {code}'
    assert said.splitlines()[-1].startswith('error: the save of step '), said
    assert run.saved() < STEPS
  else:
    assert code == 0, said
    steps = {int(p.name) for p in fields.checkpoints(run.workdir)}
    assert not steps & set(failed), f'{name}: {steps} are there'
    due = {*range(EVERY, STEPS + 1, EVERY)}
    assert due - set(failed) <= steps, f'{name}: only {steps} are there'
    for step in failed:
      between = said.partition(f'INJECTED: save of step {step} ')[2]
      before, alarm, _ = between.partition(f'ALARM: the save of step {step} ')
      steps_between = len(re.findall(r'(?m)^step \d+/', before))
      assert alarm, f'{name}: no alarm'
      assert steps_between <= 1, f'{name}: alarm after {steps_between} steps'
  run.finish()
  return name


ROW = Row(
  'F3',
  'the commit of a save fails in the background: one, two in a row, the last',
  'an alarm at the next log, no checkpoint of that step, the saves after it '
  'are made; exit 1 in one line if it was the last, the same command finishes',
  trial,
  trials=12,
  per_commit=0,
)
