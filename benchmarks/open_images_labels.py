"""Seconds and memory a million label rows of Open Images.

  python -m benchmarks.open_images_labels [--rows 4000000] [--rounds 5]

Contestants, on one made-up file of the published form (20,638 labels, 6 rows
an image, ordered by image), in the page cache; each in a process of its own:
  blocks      ours: publishers/open_images_labels.py
  csv module  the least one can do row by row: csv.reader, a dict look-up for
              image and label, the same packed number, sorted at the end
  count lines reading the file in blocks and counting line ends, a floor

Rounds are interleaved; figures are medians with their range. Memory is the
growth of the process's peak resident size over what it held before, in bytes a
row; the result itself is 8.
"""

import argparse
import csv
import gc
import multiprocessing
import os
import platform
import statistics
import tempfile
import time

import numpy as np

from input_pipeline.publishers.open_images import labels as open_images_labels
from input_pipeline.publishers.open_images import packed

_NUM_LABELS = 20_638  # of V7
_ROWS_PER_IMAGE = 6
_HEADER = open_images_labels.HEADER.decode()


def make(folder: str, num_rows: int) -> tuple[str, str]:
  """(label file, .npy of its image ids)."""
  rng = np.random.default_rng(0)
  num_images = num_rows // _ROWS_PER_IMAGE
  ids = np.unique(rng.integers(0, 2**63, num_images, dtype=np.uint64))
  images = np.sort(rng.integers(0, len(ids), num_rows))
  labels = rng.integers(0, _NUM_LABELS, num_rows)
  verdicts = rng.integers(0, 2, num_rows)
  path, known = os.path.join(folder, 'l.csv'), os.path.join(folder, 'ids.npy')
  texts, names = [f'{i:016x}' for i in ids.tolist()], label_names()
  with open(path, 'w') as file:
    file.write(f'{_HEADER}\n')
    file.writelines(
      f'{texts[i]},verification,{names[k]},{v}\n'
      for i, k, v in zip(images, labels, verdicts)
    )
  np.save(known, ids)
  return path, known


def label_names() -> list[str]:
  return [f'/m/{"0" if i % 7 else "0h8"}{i:x}' for i in range(_NUM_LABELS)]


def blocks(path: str, ids: np.ndarray) -> np.ndarray:
  reader = open_images_labels.Reader(
    open_images_labels.LabelNames(label_names()), ids, 0.5
  )
  reader.read(path, human=True)
  return reader.finished()


def csv_module(path: str, ids: np.ndarray) -> np.ndarray:
  rows = {f'{image:016x}': row for row, image in enumerate(ids.tolist())}
  labels = {name: i for i, name in enumerate(label_names())}
  states = {'0': packed.ABSENT, '1': packed.PRESENT}
  pairs: dict[int, int] = {}
  with open(path, newline='') as file:
    reader = csv.reader(file)
    next(reader)
    for image, _, label, verdict in reader:
      pair = rows[image] << 20 | labels[label]
      pairs[pair] = max(pairs.get(pair, 0), states[verdict])
  keys = np.fromiter(
    (pair << packed.LABEL_SHIFT | state for pair, state in pairs.items()),
    np.uint64, len(pairs),
  )  # fmt: skip
  keys.sort()
  return keys


def count_lines(path: str, ids: np.ndarray) -> np.ndarray:
  del ids
  count = 0
  with open(path, 'rb') as file:
    while block := file.read(8 << 20):
      count += block.count(b'\n')
  return np.array([count])


CONTESTANTS = {
  'blocks': blocks, 'csv module': csv_module, 'count lines': count_lines,
}  # fmt: skip


def _resident_bytes(field: str) -> int:
  """VmHWM (peak) or VmRSS (now) of this process."""
  with open('/proc/self/status') as file:
    line = next(line for line in file if line.startswith(f'{field}:'))
  return int(line.split()[1]) * 1024


def _measure(name: str, path: str, known: str, connection) -> None:
  ids = np.load(known)
  gc.collect()
  before = _resident_bytes('VmRSS')
  start = time.perf_counter()
  found = CONTESTANTS[name](path, ids)
  seconds = time.perf_counter() - start
  grown = _resident_bytes('VmHWM') - before
  checksum = int(np.bitwise_xor.reduce(found.astype(np.uint64)))
  connection.send((seconds, grown, checksum))


def measure(name: str, path: str, known: str) -> tuple[float, int, int]:
  """(seconds, bytes, checksum) of one contestant in a fresh process."""
  context = multiprocessing.get_context('spawn')
  ours, theirs = context.Pipe()
  process = context.Process(target=_measure, args=(name, path, known, theirs))
  process.start()
  theirs.close()
  result = ours.recv()
  process.join()
  return result


def table(results: dict[str, list], num_rows: int) -> str:
  """Markdown: medians of the rounds, and the ratio within each round."""
  lines = [
    '| contestant | s / 10^6 rows | range | peak bytes a row | blocks / it |',
    '|---|--:|--:|--:|--:|',
  ]
  for name, rounds in results.items():
    seconds = [r[0] / num_rows * 1e6 for r in rounds]
    ratios = [own[0] / it[0] for own, it in zip(results['blocks'], rounds)]
    memory = statistics.median(r[1] for r in rounds) / num_rows
    lines.append(
      f'| {name} | {statistics.median(seconds):.2f} | {min(seconds):.2f}-'
      f'{max(seconds):.2f} | {memory:.0f} | {statistics.median(ratios):.2f} |'
    )
  return '\n'.join(lines)


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--rows', type=int, default=4_000_000)
  parser.add_argument('--rounds', type=int, default=5)
  args = parser.parse_args()
  print(
    f'{platform.machine()}, {os.cpu_count()} cores; python '
    f'{platform.python_version()}, numpy {np.__version__}'
  )
  with tempfile.TemporaryDirectory() as folder:
    path, known = make(folder, args.rows)
    print(
      f'{args.rows:,} rows of {os.path.getsize(path) / args.rows:.1f} bytes; '
      f'{args.rounds} rounds'
    )
    results: dict[str, list] = {name: [] for name in CONTESTANTS}
    for i in range(args.rounds):
      order = list(CONTESTANTS)
      for name in order[i % len(order) :] + order[: i % len(order)]:
        results[name].append(measure(name, path, known))
  if results['blocks'][0][2] != results['csv module'][0][2]:
    raise SystemExit('error: blocks and csv module disagree')
  print(table(results, args.rows))


if __name__ == '__main__':
  main()
