"""F24: a loss that is not finite."""

import random
import re

import numpy as np

from tests.faults import ledger
from tests.faults.field import EVERY, STEPS, Field, Run
from tests.faults.rows import Row

_POLICIES = ('stop', 'skip', 'rollback')


def _kept(run: Run, step: int) -> None:
  """The batch in the file is the one that was trained on."""
  [line] = [x for x in ledger.read(run.ledger) if x['step'] == step]
  with np.load(run.workdir / f'bad_batch-{step}.npz') as file:
    batch = dict(file.items())
  keys = batch.pop('_key')
  assert batch['_id'].tolist() == line['ids'], step
  assert ledger.digest(batch) == line['batch'], step
  assert len(keys) == len(line['ids']), step


def trial(field: Field, number: int, rng: random.Random) -> str:
  policy = _POLICIES[number % len(_POLICIES)]
  factor, every = rng.choice(('nan', 'inf')), rng.choice((1, 100))
  lines = ledger.read(field.oracle.ledger)
  later = [i for x in lines[EVERY:] for i in x['ids']]
  first = {i for x in lines[:EVERY] for i in x['ids']}
  # Not before there is a checkpoint to go back to.
  record = rng.choice([i for i in later if i not in first])
  bad = [x['step'] for x in lines if record in x['ids']]
  run = field.run(f'f24-{number}')
  trainer = run.start(
    f'--config.train.on_nonfinite={policy}',
    f'--config.log_every_steps={every}',
    inject=[('poisoned_loss', [record], factor)],
  )
  code, said = trainer.wait(120), trainer.output()
  name = f'{policy}, {factor} at steps {bad}, log every {every}'
  found = ledger.read(run.ledger)
  before = bad[0] - 1
  assert found[:before] == lines[:before], name
  if policy == 'stop':
    assert code == 1, f'{name}: {code}\n{said[-3000:]}'
    assert f'not finite at step {bad[0]} (' in said, said[-3000:]
    _kept(run, bad[0])
    assert run.saved() < bad[0], name
    run.ledger.write_text('')  # which has the bad step
    trained = run.saved()
    run.ledger.write_text(_text_of(field, trained))
    run.finish()
    return name
  finite = [np.isfinite(ledger.loss(x)) for x in found]
  wrong = {x['step'] for x, fine in zip(found, finite) if not fine}
  assert wrong <= set(bad), f'{name}: {wrong}'
  if policy == 'skip':
    assert code == 0, f'{name}: {code}\n{said[-3000:]}'
    passed = re.findall(r'step (\d+) was passed over: loss', said)
    assert [int(step) for step in passed] == bad, f'{name}: {passed}'
  else:
    steps = re.findall(r'not finite at step (\d+) \(', said)
    back = said.count('back to the checkpoint of step ')
    assert 1 <= back <= 3, f'{name}: {said[-3000:]}'
    ended = 'after 3 rollbacks' in said
    assert code == (1 if ended else 0), f'{name}: {code}\n{said[-3000:]}'
    assert len(steps) == back + ended, name
    assert {int(s) for s in steps} <= set(bad), f'{name}: {steps}'
    for step in steps:
      _kept(run, int(step))
    name += f', {back} rollbacks{" and the end" if ended else ""}'
  last = STEPS if code == 0 else run.saved()
  assert run.saved() == last, name
  return name


def _text_of(field: Field, steps: int) -> str:
  """The oracle's ledger up to a step."""
  text = field.oracle.ledger.read_text().splitlines(keepends=True)
  return ''.join(text[: steps + 1])


ROW = Row(
  'F24',
  'the loss is NaN or infinite wherever a random record comes; `stop`, `skip` '
  'and `rollback`, logging every 1 or 100 steps',
  'the step is named and never applied, losses stay finite; the batch is kept '
  'as it was trained on; after a stop the same command goes on from before it '
  'as the undisturbed run, to the bit; 3 rollbacks at most',
  trial,
  trials=15,
  per_commit=0,
)
