"""Time and memory to start at a late step of 300M records, against step 0.

  python -m benchmarks.seek [--records 300000000] [--batch 32]

A synthetic source of that many records stands in for JFT-300M. For every start
step a new pipeline is opened and its first batch read; the steps take turns.
Nothing is replayed, so the ratios to step 0 should be 1.
"""

import argparse
import resource
import statistics
import time

from big_vision_like.runtime import cpu_tuning
from configs import common
from input_pipeline import pipeline

STEPS = (0, 10**3, 10**6, 10**8)


def first_batch(source, ops, batch_size: int, step: int) -> float:
  """Seconds from nothing to the batch of step + 1."""
  start = time.perf_counter()
  batches = pipeline.train(
    source,
    ops,
    batch_size=batch_size,
    seed=0,
    start_step=step,
    threads=1,
    prefetch=1,
  )
  next(batches)
  seconds = time.perf_counter() - start
  batches.close()
  return seconds


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--records', type=int, default=300_000_000)
  parser.add_argument('--batch', type=int, default=32)
  parser.add_argument('--rounds', type=int, default=15)
  args = parser.parse_args()
  cpu_tuning.reexec()
  source = pipeline.open_source(
    common.synthetic(num_classes=1000, num_images=args.records, image_size=64)
  )
  label = common.multilabel(max_labels=48)
  ops = pipeline.build_ops(common.train_ops(64, 56, label), source)
  seconds: dict[int, list[float]] = {step: [] for step in STEPS}
  memory: dict[int, float] = {}
  for step in STEPS:
    first_batch(source, ops, args.batch, step)
    memory[step] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
  for _ in range(args.rounds):
    for step in STEPS:
      seconds[step].append(first_batch(source, ops, args.batch, step))
  base = seconds[0]
  print(f'{args.records:,} records, batches of {args.batch}\n')
  print('| start step | first batch, ms | ratio to step 0 | peak MiB so far |')
  print('|--:|--:|--:|--:|')
  for step, values in seconds.items():
    ratio = statistics.median(a / b for a, b in zip(values, base))
    print(
      f'| {step:,} | {statistics.median(values) * 1e3:.1f} | {ratio:.2f} '
      f'| {memory[step]:.0f} |'
    )


if __name__ == '__main__':
  main()
