"""F7: a resume costs the same at any step."""

import json
import random
import time

from big_vision_like.config import settings
from input_pipeline import streams
from tests.faults import ledger
from tests.faults.field import Field
from tests.faults.rows import Row

_STEPS = (10**3, 10**6, 10**8)
_MORE = 3  # steps after the stop
_REPEATS = 15
_MOST_S, _MOST_RATIO = 2.0, 1.2


def _cpu_s(config: settings.Config, step: int) -> float:
  """To open the data at a step and read a batch, the least of many times."""
  found = []
  for _ in range(_REPEATS):
    begun = time.process_time()
    data = streams.train(streams.open_all(config), config, start_step=step)
    next(data)
    data.close()
    found.append(time.process_time() - begun)
  return min(found)


def trial(field: Field, number: int, rng: random.Random) -> str:
  step = _STEPS[number % len(_STEPS)] + rng.randrange(1000)
  end = step + 1 + _MORE
  evals = {'evals': {}}
  whole = field.run(f'f7-{number}-whole')
  whole.change(**evals)
  begins = [('beginning_at', step)]
  trainer = whole.start(f'--config.total_steps={end}', inject=begins)
  assert trainer.wait(120) == 0, trainer.output()[-3000:]
  run = field.run(f'f7-{number}')
  run.change(**evals)
  trainer = run.start(f'--config.total_steps={step + 1}', inject=begins)
  assert trainer.wait(120) == 0, trainer.output()[-3000:]
  told = run.folder / 'told.json'
  run.finish(
    f'--config.total_steps={end}',
    '--config.input.workers=0',
    oracle=whole,
    inject=[('timed_data', str(told))],
  )
  assert ledger.starts(run.ledger)[-1]['from'] == step + 1
  first = json.loads(told.read_text())
  assert first['seconds'] <= _MOST_S, first
  config = settings.complete(settings.from_json(run.config))
  ahead = config.input.prefetch + config.input.threads
  assert first['reads'] <= (1 + ahead) * field.batch_size, first
  config.input.update(workers=0, threads=1, prefetch=1)
  ratio = _cpu_s(config, step) / _cpu_s(config, 0)
  name = (
    f'step {step + 1:,}: first batch after {first["seconds"]:.2f} s and '
    f'{first["reads"]} images; {ratio:.2f} of the time at step 0'
  )
  assert ratio <= _MOST_RATIO, name
  return name


ROW = Row(
  'F7',
  'resume at step 10^3, 10^6, 10^8',
  'the first batch within 2 s, no image read that is not trained on, CPU time '
  'at most 1.2 of that at step 0; equal to the undisturbed run to the bit',
  trial,
  trials=6,
  per_commit=0,
)
