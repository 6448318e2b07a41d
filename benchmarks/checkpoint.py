"""What a save costs the loop, and what proving a checkpoint costs a restore.

  python -m benchmarks.checkpoint [--megabytes 1000] [--rounds 5]
  python -m benchmarks.checkpoint --of_run [--rounds 5]

The state is noise in arrays of 16 MB. A save blocks for the time of the call,
is written when `wait` returns, and its manifest is a part of that. A restore is
timed alone and with the check of all files, which runs beside it as in a run
that resumes, in turns; cold is after the pages of the files were dropped from
the page cache (posix_fadvise), warm right after.

--of_run times what a user waits for: opening a run that goes on, of ResNet-50
with 18,291 classes and RMSProp, from its start to the restored state, with the
check and without it, in turns; and how much of that is reading arrays.
"""

import argparse
import contextlib
import os
import pathlib
import statistics
import tempfile
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from absl import logging

from big_vision_like import opening
from big_vision_like.checkpoints import manager, manifest
from big_vision_like.config import loading
from big_vision_like.parallel import mesh as mesh_lib
from big_vision_like.runtime import cpu_tuning, writers
from big_vision_like.training.state import TrainState

_ARRAY_BYTES = 16_000_000


def make_state(megabytes: int) -> TrainState:
  """Two thirds of the bytes are slots, as with RMSProp and momentum."""
  mesh = mesh_lib.create(dict(data=1, model=1), jax.devices()[:1])
  where = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
  rng = np.random.default_rng(0)
  number = max(megabytes * 1_000_000 // _ARRAY_BYTES // 3, 1)

  def arrays() -> dict[str, jax.Array]:
    shape = (_ARRAY_BYTES // 4,)
    return {
      f'kernel_{i}': jax.device_put(rng.standard_normal(shape, 'f'), where)
      for i in range(number)
    }

  scalar = lambda x: jax.device_put(np.int32(x), where)
  return TrainState(
    step=scalar(0),
    params=arrays(),
    extra={},
    opt_state={'nu': arrays(), 'trace': arrays()},
    rng=jax.device_put(jax.random.key(0), where),
    ema=None,
    nonfinite_step=scalar(-1),
  )


def drop(folder: pathlib.Path) -> None:
  """Takes the files of a folder out of the page cache."""
  for path in folder.rglob('*'):
    if path.is_file():
      file = os.open(path, os.O_RDONLY)
      os.fsync(file)
      os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
      os.close(file)


def seconds(work: Callable[[], Any]) -> float:
  start = time.perf_counter()
  work()
  return time.perf_counter() - start


def saves(
  state: TrainState, ckpt: manager.Checkpointer, rounds: int
) -> list[tuple[float, float, float]]:
  """(blocking, whole, manifest) seconds of each save."""
  found = []
  hashed: list[float] = []
  real = manifest.write

  def timed(*args: Any) -> None:
    hashed.append(seconds(lambda: real(*args)))

  manifest.write = timed
  for step in range(rounds):
    start = time.perf_counter()
    ckpt.save(step, state, {'config': {}, 'num_classes': 1, 'step': step})
    blocked = time.perf_counter() - start
    ckpt.wait()
    found.append((blocked, time.perf_counter() - start, hashed[-1]))
  manifest.write = real
  return found


def restores(
  state: TrainState, ckpt: manager.Checkpointer, rounds: int
) -> dict[str, list[float]]:
  """Name of the measurement -> seconds."""
  step = ckpt.steps()[-1]
  folder = ckpt.path(step)
  abstract = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state
  )

  def restore() -> None:
    jax.block_until_ready(ckpt.restore(abstract, step))

  def proved() -> None:
    check = manifest.Check(folder)
    restore()
    assert check.finish() == []

  works = {'restore': restore, 'restore and check': proved}
  found: dict[str, list[float]] = {}
  for _ in range(rounds):
    for name, work in works.items():
      drop(folder)
      found.setdefault(f'{name}, cold', []).append(seconds(work))
      found.setdefault(f'{name}, warm', []).append(seconds(work))
  return found


def config_of_run() -> Any:
  """Of a run with a checkpoint of about 700 MB."""
  config = loading.load('configs/quickstart.py', 'the benchmark')
  config.model.update(dict(depth=50, width=64))
  config.input.source.num_classes = 18_291
  config.evals = {}
  return config


def openings(folder: str, rounds: int) -> dict[str, list[float]]:
  """Name of the measurement -> seconds of opening a run that goes on."""
  config = config_of_run()
  console = writers.Console(silent=True)

  def opened() -> opening.Run:
    with contextlib.ExitStack() as stack:
      return opening.open_run(config, folder, console, stack, lambda: None)

  with contextlib.ExitStack() as stack:
    run = opening.open_run(config, folder, console, stack, lambda: None)
    run.ckpt.save(1, run.state.replace(step=run.state.step + 1), run.meta)
    run.ckpt.wait()
  reading: list[float] = []
  restore, begin = manager.Checkpointer.restore, manifest.Check._begin

  def timed(*args: Any) -> Any:
    start = time.perf_counter()
    state = jax.block_until_ready(restore(*args))
    reading.append(time.perf_counter() - start)
    return state

  manager.Checkpointer.restore = timed
  found: dict[str, list[float]] = {'reading arrays': reading}
  steps = pathlib.Path(folder) / 'checkpoints'
  for _ in range(rounds):
    for name, check in (('alone', _no_check), ('with the check', begin)):
      manifest.Check._begin = check
      for heat in ('cold', 'warm'):
        if heat == 'cold':
          drop(steps)
        found.setdefault(f'{name}, {heat}', []).append(seconds(opened))
  manager.Checkpointer.restore, manifest.Check._begin = restore, begin
  return found


def _no_check(*_: Any) -> None:
  pass


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--megabytes', type=int, default=1000)
  parser.add_argument('--rounds', type=int, default=5)
  parser.add_argument('--of_run', action='store_true')
  parser.add_argument('--folder', help='on the disk in question')
  args = parser.parse_args()
  cpu_tuning.reexec()
  logging.set_verbosity(logging.ERROR)
  if args.of_run:
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
      show_openings(openings(folder, args.rounds))
    return
  state = make_state(args.megabytes)
  with tempfile.TemporaryDirectory(dir=args.folder) as folder:
    ckpt = manager.Checkpointer(folder, keep_last=1)
    of_saves = saves(state, ckpt, args.rounds)
    of_restores = restores(state, ckpt, args.rounds)
    number, size = manifest.extent(ckpt.path(ckpt.steps()[-1]))
    ckpt.close()
  print(f'{size / 1e6:,.0f} MB in {number} files, {args.rounds} rounds\n')
  print('| | median | share |\n|---|--:|--:|')
  blocked, whole, hashed = (
    statistics.median(values) for values in zip(*of_saves, strict=True)
  )
  print(f'| a save, until it is complete | {whole:.2f} s | 100% |')
  print(
    f'| of which the loop waits | {blocked:.3f} s | {blocked / whole:.1%} |'
  )
  print(f'| of which the manifest | {hashed:.2f} s | {hashed / whole:.1%} |')
  for heat in ('cold', 'warm'):
    alone, proved = (
      of_restores[f'{name}, {heat}']
      for name in ('restore', 'restore and check')
    )
    more = statistics.median(
      (b - a) / b for a, b in zip(alone, proved, strict=True)
    )
    print(f'| restore alone, {heat} | {statistics.median(alone):.2f} s | |')
    print(
      f'| restore and check, {heat} | {statistics.median(proved):.2f} s '
      f'| the check is {more:.1%} |'
    )


def show_openings(found: dict[str, list[float]]) -> None:
  median = {name: statistics.median(values) for name, values in found.items()}
  print('| opening a run | median | the check, of reading arrays |')
  print('|---|--:|--:|')
  reading = median.pop('reading arrays')
  print(f'| of which reading arrays | {reading:.2f} s | |')
  for heat in ('cold', 'warm'):
    alone, proved = (
      found[f'{name}, {heat}'] for name in ('alone', 'with the check')
    )
    more = statistics.median(b - a for a, b in zip(alone, proved, strict=True))
    print(f'| alone, {heat} | {statistics.median(alone):.2f} s | |')
    print(
      f'| with the check, {heat} | {statistics.median(proved):.2f} s '
      f'| {more / reading:.1%} |'
    )


if __name__ == '__main__':
  main()
