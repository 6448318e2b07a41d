"""F32: killed or asked to stop inside an evaluation."""

import json
import random
import signal
import time

from tests.faults.field import EVERY, STEPS, Field
from tests.faults.rows import Row

_BATCH_S = 0.03


def _changes(field: Field) -> dict:
  one = json.loads(field.config.read_text())['evals']['fasteval']
  return {'evals': {'first': one, 'second': {**one, 'k': 5}}}


def trial(field: Field, number: int, rng: random.Random) -> str:
  changes = _changes(field)
  oracle = field.undisturbed('f32', changes)
  run = field.run(f'f32-{number}')
  run.change(**changes)
  told = run.folder / 'told.jsonl'
  evaluator = rng.choice(('first', 'second'))
  step = rng.randrange(0, STEPS + 1, 2 * EVERY)
  sent = rng.choice((signal.SIGKILL, signal.SIGTERM))
  trainer = run.start(inject=[('slow_evaluations', str(told), _BATCH_S)])
  deadline = time.monotonic() + 120
  while ['begins', evaluator, step] not in _lines(told):
    alive = trainer.poll() is None and time.monotonic() < deadline
    assert alive, trainer.output()[-3000:]
    time.sleep(0.002)
  seconds = rng.uniform(0, 4 * _BATCH_S)
  time.sleep(seconds)
  trainer.send_group(sent)
  code = trainer.wait(60)
  done = ['ends', evaluator, step] in _lines(told)
  name = (
    f'{signal.Signals(sent).name} {seconds:.2f} s into {evaluator} of step '
    f'{step}{" (which had ended)" if done else ""}: {code}'
  )
  if sent == signal.SIGTERM:
    assert code == (143 if step else 75), f'{name}\n{trainer.output()[-3000:]}'
    assert run.saved() == step, f'{name}: {run.saved()} saved'
  finished = {tuple(x[1:]) for x in _lines(told) if x[0] == 'ends'}
  again = run.folder / 'again.jsonl'
  run.finish(oracle=oracle, inject=[('slow_evaluations', str(again), 0.0)])
  repeated = {tuple(x[1:]) for x in _lines(again)} & finished
  assert not repeated, f'{name}: {repeated} again'
  assert _figures(run) == _figures(oracle), name
  return name


def _lines(path) -> list[list]:
  text = path.read_text() if path.exists() else ''
  return [
    json.loads(t) for t in text.splitlines(keepends=True) if t[-1] == '\n'
  ]


def _figures(run) -> list[tuple]:
  """All lines of evaluations, those that stand twice too."""
  found = []
  for text in (run.workdir / 'metrics.jsonl').read_text().splitlines():
    line = json.loads(text)
    for name in line:
      if name.startswith(('first/map', 'second/map')):
        found.append((line['step'], name, line[name]))
  return sorted(found)


ROW = Row(
  'F32',
  'SIGKILL or SIGTERM inside one of two evaluators',
  'SIGTERM ends it at once; after the resume it runs, what was finished does '
  'not run again; metrics.jsonl has every figure once, equal to the '
  'undisturbed run',
  trial,
  trials=20,
  per_commit=0,
)
