"""What a run computed, step by step, and the comparison with an oracle's.

One JSON line a step: the loss as the hexadecimal of its bits, the indices of
the records, every few steps a hash of all parameters. Lines of a resumed run
follow those of the killed one; a step may stand in it twice.
"""

import dataclasses
import hashlib
import json
import pathlib
from typing import Any

import numpy as np

_HASH_EVERY = 4


def record(path: pathlib.Path) -> None:
  """Every train step of this process writes a line from here on."""
  from big_vision_like import experiment

  build = experiment.build

  def recorded(*args: Any, **options: Any) -> Any:
    exp = build(*args, **options)
    step = exp.train_step

    def train_step(state: Any, batch: Any) -> Any:
      ids = np.asarray(batch['_id']).tolist()
      state, metrics = step(state, batch)
      _write(path, state, float(metrics['loss']), ids)
      return state, metrics

    return dataclasses.replace(exp, train_step=train_step)

  experiment.build = recorded


def _write(path: pathlib.Path, state: Any, loss: float, ids: list) -> None:
  step = int(state.step)
  line = {'step': step, 'loss': np.float32(loss).tobytes().hex(), 'ids': ids}
  if step % _HASH_EVERY == 0:
    line['params'] = _digest(state.params)
  with path.open('a', encoding='utf-8') as file:
    file.write(json.dumps(line) + '\n')


def _digest(params: Any) -> str:
  import jax

  found = hashlib.sha256()
  for leaf in jax.tree.leaves(params):
    found.update(np.ascontiguousarray(leaf).tobytes())
  return found.hexdigest()[:16]


def read(path: pathlib.Path) -> list[dict[str, Any]]:
  """The lines; one that a kill has torn is left out."""
  lines = []
  for text in path.read_text().splitlines() if path.exists() else []:
    try:
      lines.append(json.loads(text))
    except ValueError:
      continue
  return lines


def differences(oracle: pathlib.Path, other: pathlib.Path) -> list[str]:
  """Where a ledger is not that of the oracle; [] if it is, to the bit.

  Every line counts, those of a step that was trained twice too.
  """
  expected = {line['step']: line for line in read(oracle)}
  lines = read(other)
  found = [
    f'step {line["step"]}: {line} where the oracle has '
    f'{expected.get(line["step"])}'
    for line in lines
    if line != expected.get(line['step'])
  ]
  missing = sorted(expected.keys() - {line['step'] for line in lines})
  return found + ([f'steps {missing} are missing'] if missing else [])
