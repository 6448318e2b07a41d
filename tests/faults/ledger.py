"""What a run computed, step by step, and the comparison with an oracle's.

One JSON line a step: the loss as the hexadecimal of its bits, the indices of
the records, hashes of the batch and of all parameters after the step. Lines of
a resumed run follow those of the killed one; a step may stand in it twice.
Before the first of each start stands {'from': step, 'params': hash}. One of
several processes writes the indices of its part, and no hash of the batch.
"""

import contextlib
import dataclasses
import hashlib
import json
import pathlib
from typing import Any

import numpy as np


def record(path: pathlib.Path) -> None:
  """Every train step of this process writes a line from here on."""
  from big_vision_like import experiment

  build = experiment.build

  def recorded(*args: Any, **options: Any) -> Any:
    exp = build(*args, **options)
    step = exp.train_step
    number: int | None = None  # the state's stands still once it is frozen

    def train_step(state: Any, batch: Any) -> Any:
      nonlocal number
      if number is None:
        number = int(state.step)
        _append(path, {'from': number, 'params': digest(state.params)})
      number += 1
      told = {'step': number, 'ids': _local(batch['_id']).tolist()}
      if batch['_id'].is_fully_addressable:
        told['batch'] = digest(batch)
      state, metrics = step(state, batch)
      told['loss'] = np.float32(metrics['loss']).tobytes().hex()
      told['params'] = digest(state.params)
      _append(path, told)
      return state, metrics

    return dataclasses.replace(exp, train_step=train_step)

  experiment.build = recorded


def _local(x: Any) -> np.ndarray:
  """The rows of this process."""
  parts = {s.index[0].start or 0: s.data for s in x.addressable_shards}
  return np.concatenate([np.asarray(parts[start]) for start in sorted(parts)])


def _append(path: pathlib.Path, line: dict[str, Any]) -> None:
  with path.open('a', encoding='utf-8') as file:
    file.write(json.dumps(line) + '\n')


def digest(tree: Any) -> str:
  """Of all arrays, in the order of their names."""
  import jax

  found = hashlib.sha256()
  for leaf in jax.tree.leaves(tree):
    found.update(np.ascontiguousarray(leaf).tobytes())
  return found.hexdigest()[:16]


def loss(line: dict[str, Any]) -> float:
  """That of a line, as a number."""
  return float(np.frombuffer(bytes.fromhex(line['loss']), np.float32)[0])


def read(path: pathlib.Path) -> list[dict[str, Any]]:
  """The lines of steps; one that a kill has torn is left out."""
  return [line for line in _lines(path) if 'step' in line]


def starts(path: pathlib.Path) -> list[dict[str, Any]]:
  """The lines before the first step of each start."""
  return [line for line in _lines(path) if 'from' in line]


def _lines(path: pathlib.Path) -> list[dict[str, Any]]:
  lines = []
  for text in path.read_text().splitlines() if path.exists() else []:
    with contextlib.suppress(ValueError):
      lines.append(json.loads(text))
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
