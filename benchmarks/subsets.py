"""Time and memory to open subsets, against the whole of the same source.

  python -m benchmarks.subsets [--records 1000000] [--labels 18291] [--rounds 5]

A source in memory stands in for a prepared data set: as many records, 1.26
labels each, a label index, names as image files have them. Every way of
choosing is opened in turn, round after round; its time is divided by that of
the least that it could do, in the same round: to look at every label once with
plain numpy (`np.bincount`), or, where keys are hashed, to ask for every key.
"""

import argparse
import functools
import resource
import statistics
import time
import tracemalloc

import numpy as np

from input_pipeline.labels import subset
from input_pipeline.labels.vocabulary import Vocabulary

LABELS_PER_IMAGE = 1.26
NUM_KEPT = 941  # labels that ImageNet has too


class Prepared:
  """Names, labels and nothing else."""

  hierarchy = None

  def __init__(self, num_records: int, num_labels: int, in_hash_order: bool):
    rng = np.random.default_rng(0)
    lengths = 1 + (rng.random(num_records) < LABELS_PER_IMAGE - 1)
    self._ends = np.cumsum(lengths)
    # Long-tailed: the label of rank r has a frequency of about 1 / r.
    ranks = num_labels ** rng.random(int(self._ends[-1]))
    self._labels = (ranks - 1).astype(np.int32)
    self.in_hash_order = in_hash_order
    synsets = [None] * num_labels
    for i in range(0, num_labels, max(num_labels // NUM_KEPT, 1)):
      synsets[i] = f'n{i:08d}'
    self.vocabulary = Vocabulary(
      tuple(f'label-{i}' for i in range(num_labels)),
      counts=np.zeros(num_labels, np.int64),
      imagenet_ids=tuple(synsets),
    )

  def __len__(self) -> int:
    return len(self._ends)

  def label_index(self) -> tuple[np.ndarray, np.ndarray]:
    return self._ends, self._labels

  def key(self, index: int) -> str:
    return f'train/n{index % 18291:08d}/n{index % 18291:08d}_{index}.JPEG'

  def fingerprint(self) -> str:
    return 'prepared'


def contestants(stored: Prepared, named: Prepared) -> dict:
  """Name -> (source, options, what its time is compared with)."""
  tenth = dict(fraction=0.1)
  imagenet = dict(labels='imagenet')
  both = dict(imagenet, **tenth)
  return {
    'a tenth, stored in hash order': (stored, tenth, 'labels'),
    'a tenth, stored so, seed 1': (stored, dict(tenth, seed=1), 'labels'),
    f'{NUM_KEPT} labels': (stored, imagenet, 'labels'),
    f'{NUM_KEPT} labels, then a tenth': (stored, both, 'labels'),
    'a tenth, by hash of the keys': (named, tenth, 'keys'),
    'half, by hash of the keys': (named, dict(fraction=0.5), 'keys'),
  }


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--records', type=int, default=1_000_000)
  parser.add_argument('--labels', type=int, default=18_291)
  parser.add_argument('--rounds', type=int, default=5)
  args = parser.parse_args()
  stored = Prepared(args.records, args.labels, in_hash_order=True)
  named = Prepared(args.records, args.labels, in_hash_order=False)
  chosen = contestants(stored, named)
  _, labels = stored.label_index()
  least = {
    'labels': lambda: np.bincount(labels, minlength=args.labels),
    'keys': lambda: [None for i in range(len(named)) if not named.key(i)],
  }
  seconds: dict[str, list[float]] = {name: [] for name in (*least, *chosen)}
  for _ in range(args.rounds):
    for name, call in least.items():
      seconds[name].append(timed(call))
    for name, (source, options, _) in chosen.items():
      opening = functools.partial(subset.select, source, options, 'x')
      seconds[name].append(timed(opening))
  print(
    f'{args.records:,} records, {len(labels):,} labels, {args.rounds} rounds'
  )
  for name in least:
    milliseconds = statistics.median(seconds[name]) * 1e3
    print(f'all {name} once: {milliseconds:,.1f} ms')
  print(
    '\n| subset | records | ms | ns a record of the whole | ratio | spread '
    '| bytes a record while opening | after |'
  )
  print('|---|--:|--:|--:|--:|--:|--:|--:|')
  for name, (source, options, compared) in chosen.items():
    times = seconds[name]
    ratios = [a / b for a, b in zip(times, seconds[compared])]
    part, peak, after = memory(source, options)
    print(
      f'| {name} | {len(part):,} | {statistics.median(times) * 1e3:,.1f} '
      f'| {statistics.median(times) / args.records * 1e9:,.0f} '
      f'| {statistics.median(ratios):,.2f} of {compared} '
      f'| {min(ratios):,.2f}-{max(ratios):,.2f} '
      f'| {peak / args.records:.1f} | {after / args.records:.2f} |'
    )
  peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
  print(f'\npeak of the process, both sources included: {peak:,.0f} MiB')


def timed(call) -> float:
  start = time.perf_counter()
  call()
  return time.perf_counter() - start


def memory(source: Prepared, options: dict) -> tuple:
  """(the subset, bytes at the peak of opening it, bytes that it holds)."""
  tracemalloc.start()
  part = subset.select(source, options, 'x')
  after, peak = tracemalloc.get_traced_memory()
  tracemalloc.stop()
  return part, peak, after


if __name__ == '__main__':
  main()
