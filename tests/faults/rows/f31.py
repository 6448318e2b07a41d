"""F31: an evaluator raises, or returns what is no figure."""

import json
import random

from tests.faults import metric_lines
from tests.faults.field import Field
from tests.faults.rows import Row
from tests.fixtures.faulty_evaluator import KINDS


def trial(field: Field, number: int, rng: random.Random) -> str:
  """With `log` a whole run, with `raise` one that ends at the evaluation."""
  kind = list(KINDS)[number % len(KINDS)]
  words = KINDS[kind][1]
  evals = json.loads(field.config.read_text())['evals']
  every = rng.choice((3, 5, 7))
  evals['faulty'] = {
    'type': 'tests.fixtures.faulty_evaluator',
    'kind': kind,
    'every_steps': every,
    'at_start': False,
    'at_end': False,
  }
  run = field.run(f'f31-{number}')
  run.change(evals=evals, on_eval_error='log')
  said = run.finish().output()
  assert f"evaluator 'faulty' failed at step {every}; going on" in said, said
  assert words in said, said
  found = metric_lines.reproducible(run.workdir)
  assert found == metric_lines.reproducible(field.oracle.workdir), kind

  run = field.run(f'f31-{number}-raise')
  run.change(evals=evals, on_eval_error='raise')
  trainer = run.start()
  code = trainer.wait(120)
  said = trainer.output()
  assert code in (1, 2), f'{kind}: {code}: {said[-2000:]}'
  assert f"in evaluator 'faulty' at step {every}" in said, said
  assert words in said, said
  assert run.last_step() <= every + 1
  return kind


ROW = Row(
  'F31',
  'evaluators of twelve kinds that raise, or return NaN, infinity, arrays, '
  'text, nothing',
  'named with evaluator, figure and step; with `on_eval_error=log` training '
  'and the other figures stay equal to the bit, with `raise` it stops there',
  trial,
  trials=12,
  per_commit=0,
)
