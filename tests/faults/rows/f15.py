"""F15: the data set is another one at a resume."""

import json
import random
import shutil

from tests.faults import ledger, record_sets
from tests.faults.field import Field
from tests.faults.rows import Row
from tests.faults.trees import snapshot

_STEPS = 4  # before the change, and after it


def trial(field: Field, number: int, rng: random.Random) -> str:
  run = field.run(f'f15-{number}')
  data = run.folder / 'data'
  count = rng.randrange(70, 90)  # no epoch ends within the steps
  change = rng.choice((1, 2)) if number % 2 == 0 else -1
  record_sets.write(data, count, 3)
  source = {'type': 'records', 'path': str(data)}
  ops = json.loads(field.config.read_text())['input']['ops']
  ops[-1]['fill_in'] = False  # there is no hierarchy
  run.change(**{'input.source': source, 'input.ops': ops, 'evals': {}})
  trainer = run.start(f'--config.total_steps={_STEPS}')
  assert trainer.wait(120) == 0, trainer.output()[-3000:]
  shutil.rmtree(data)
  record_sets.write(data, count + change, 3)
  before = snapshot(run.workdir)
  longer = f'--config.total_steps={2 * _STEPS}'
  trainer = run.start(longer)
  assert trainer.wait(120) == 2, trainer.output()[-3000:]
  said = trainer.output()
  assert 'Traceback' not in said, said
  assert 'error: the data set is not the one that' in said, said
  assert '--config.resume.accept_data_change=True' in said, said
  assert '  input.source: ' in said and ' -> ' in said, said
  assert snapshot(run.workdir) == before
  trainer = run.start(longer, '--config.resume.accept_data_change=True')
  assert trainer.wait(120) == 0, trainer.output()[-3000:]
  lines = ledger.read(run.ledger)
  assert [line['step'] for line in lines] == [*range(1, 2 * _STEPS + 1)]
  new = [i for line in lines[_STEPS:] for i in line['ids']]
  assert len(set(new)) == len(new) and max(new) < count + change
  return f'{count} records, then {count + change}'


ROW = Row(
  'F15',
  'one or two records more, or one less, between two runs of a workdir',
  'the resume is refused with both fingerprints, nothing is changed; '
  '`resume.accept_data_change` goes on at the same step, each record once',
  trial,
  trials=4,
  per_commit=0,
)
