"""Training a detector from stored maps against training it from images.

configs/synthetic_detection.py with freeze=conv4, all of a run but checkpoints
and evaluations: data, transfer, step. Maps are extracted first, in a folder
that is removed. Both runs take turns in one process, a round of steps each; the
first steps' losses are compared.

  python -m benchmarks.frozen_features --rounds 5 --steps 20
"""

import argparse
import importlib
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

from big_vision_like.runtime import cpu_tuning

CONFIG = 'configs.synthetic_detection'


def parse(argv: list[str] | None = None) -> argparse.Namespace:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  add = parser.add_argument
  add('--arguments', default='', help='of the config, such as init=RUN')
  add('--images', type=int, default=400, help='of the training set')
  add('--dtypes', nargs='+', default=['float32', 'float16'])
  add('--rounds', type=int, default=5)
  add('--steps', type=int, default=20, help='steps a round')
  add('--output', help='append the table to this Markdown file')
  return parser.parse_args(argv)


def config(args: argparse.Namespace, more: str = '') -> Any:
  """The run from images, or with `features=...` from maps."""
  text = f'freeze=conv4,images={args.images},val_images=8{more}'
  if args.arguments:
    text = f'{args.arguments},{text}'
  return importlib.import_module(CONFIG).get_config(text)


def steps_of(given: Any) -> Callable[[], float]:
  """A run that is open: each call is a step and gives its loss."""
  from big_vision_like import experiment, opening
  from big_vision_like.checkpoints import folders
  from big_vision_like.config import settings
  from big_vision_like.runtime import writers
  from input_pipeline import device, streams
  from input_pipeline.labels.space import LabelSpace

  given = settings.complete(given)
  opened = streams.open_all(given)
  exp = experiment.build(
    given,
    LabelSpace.of_source(opened[''].source),
    num_examples=len(opened[''].source),
  )
  path = given.init_from.path
  start = folders.hold(path).path if path else None
  state = opening.start_state(exp, start, writers.Console(silent=True))
  data = streams.train(opened, given, start_step=0)

  def run() -> float:
    nonlocal state
    batch = device.to_global(next(data), exp.batch_sharding)
    state, metrics = exp.train_step(state, batch)
    return float(metrics['loss'])

  return run


def main() -> None:
  args = parse()
  tuned = cpu_tuning.environment()
  if any(os.environ.get(name) != value for name, value in tuned.items()):
    os.execve(
      sys.executable,
      [sys.executable, '-m', 'benchmarks.frozen_features', *sys.argv[1:]],
      {**os.environ, **tuned},
    )
  from benchmarks import train_step
  from tools import extract_maps

  with tempfile.TemporaryDirectory() as folder:
    contestants = {'images': steps_of(config(args))}
    extraction = {}
    for dtype in args.dtypes:
      path = os.path.join(folder, dtype)
      start = time.perf_counter()
      extract_maps.extract(config(args), path, dtype=dtype)
      extraction[dtype] = time.perf_counter() - start
      more = f',features={path},dtype={dtype}'
      contestants[f'maps, {dtype}'] = steps_of(config(args, more))
    losses = {n: [run() for _ in range(3)] for n, run in contestants.items()}
    times: dict[str, list[tuple[float, float]]] = {n: [] for n in contestants}
    for _ in range(args.rounds):
      for name, run in contestants.items():
        wall, cpu = time.perf_counter(), time.process_time()
        for _ in range(args.steps):
          run()
        times[name].append(
          (
            (time.perf_counter() - wall) / args.steps,
            (time.process_time() - cpu) / args.steps,
          )
        )
  args.device = 'cpu'
  text = '\n'.join(
    [
      f'### Frozen conv4, {CONFIG}, {args.images} images',
      '',
      f'`python -m benchmarks.frozen_features {" ".join(sys.argv[1:])}`',
      '',
      train_step.describe_machine(args),
      '',
      *rows(config(args).input.batch_size, losses, times),
      '',
      *(
        f'Extraction as {dtype}: {seconds:.0f} s for {args.images} + 8 images, '
        'compilation included.'
        for dtype, seconds in extraction.items()
      ),
      '',
    ]
  )
  print(text)
  if args.output:
    with open(args.output, 'a', encoding='utf-8') as file:
      file.write(f'\n{text}')


def rows(
  batch: int,
  losses: dict[str, list[float]],
  times: dict[str, list[tuple[float, float]]],
) -> list[str]:
  """The lines of the table."""
  lines = [
    '| from | images/s, median | slowest .. fastest round | this / images '
    '| CPU s a step | this / images | first losses | largest difference |',
    '|---|---|---|---|---|---|---|---|',
  ]
  wall = {n: statistics.median(w for w, _ in t) for n, t in times.items()}
  cpu = {n: statistics.median(c for _, c in t) for n, t in times.items()}
  for name, rounds in times.items():
    seconds = [w for w, _ in rounds]
    differ = max(
      abs(a - b) / abs(b) for a, b in zip(losses[name], losses['images'])
    )
    lines.append(
      f'| {name} | {batch / wall[name]:.1f} '
      f'| {batch / max(seconds):.1f} .. {batch / min(seconds):.1f} '
      f'| {wall["images"] / wall[name]:.2f} | {cpu[name]:.3f} '
      f'| {cpu[name] / cpu["images"]:.2f} '
      f'| {", ".join(f"{loss:.4f}" for loss in losses[name])} '
      f'| {differ:.1e} |'
    )
  return lines


if __name__ == '__main__':
  main()
