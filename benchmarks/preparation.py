"""What preparing costs beside decode, resize and encode; what rich labels cost.

  python -m benchmarks.preparation [--num 2048] [--rounds 5]

Preparing, to JPEGs with a longer side of 340 pixels; images a second of CPU
time of this process and its children. Each preparation is run on all images and
on a quarter of them: the difference is what an image costs, the rest what a
start costs (processes, imports, the sample that sizes the shards):
  bare loop  one process: simplejpeg decode, the same resize, simplejpeg encode
  local, 1   the preparer in one process: order, checks, shards, label index,
             checksums, manifest
  local, 2   the preparer with --workers 2
  Beam, 1    --beam in one process
  Beam, 2    --beam --workers 2 on Beam's local runner

Reading for training (decode, resize, crop, flip, labels), one thread:
  plain      records with labels
  rich       the same images and labels as Open Images has them: a confidence a
             label and a list of labels known to be absent

CPU time, since wall time on a shared machine measures the neighbours; rounds
are interleaved, ratios taken within a round, figures are medians with their
range.
"""

import argparse
import contextlib
import importlib
import io
import itertools
import os
import pathlib
import resource
import shutil
import statistics
import tempfile
from collections.abc import Callable

import numpy as np
import simplejpeg
from PIL import Image

from benchmarks.input_pipeline import (
  BATCH,
  OPS,
  Repeated,
  machine,
  make_photographs,
)
from big_vision_like.runtime import cpu_tuning
from input_pipeline import pipeline
from input_pipeline.labels.vocabulary import Vocabulary
from input_pipeline.prepared import manifest as manifests
from input_pipeline.prepared import records
from input_pipeline.sources.records import Source
from tools import prepare_images

LONG_SIDE, QUALITY, SHARDS = 340, 95, 8
CLASSES, LABELS, NEGATIVES = 20_000, 10, 12
_MADE = 256

Round = tuple[float, float]  # images a CPU second, CPU seconds of a start


def cpu_s() -> float:
  """CPU seconds of this process and of its children that have ended."""
  used = [resource.getrusage(resource.RUSAGE_SELF)]
  used.append(resource.getrusage(resource.RUSAGE_CHILDREN))
  return sum(u.ru_utime + u.ru_stime for u in used)


def bare_loop(files: list[str]) -> None:
  for path in files:
    pixels = simplejpeg.decode_jpeg(pathlib.Path(path).read_bytes(), 'RGB')
    height, width = pixels.shape[:2]
    ratio = LONG_SIDE / max(height, width)
    size = round(width * ratio), round(height * ratio)
    small = Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR)
    simplejpeg.encode_jpeg(
      np.ascontiguousarray(np.asarray(small)), QUALITY, colorsubsampling='420'
    )


def prepare(photos: str, output: str, *args: str) -> None:
  argv = [
    '--input', photos, '--output', output, '--splits', 'train', '--long_side',
    str(LONG_SIDE), '--quality', str(QUALITY), '--num_shards', str(SHARDS),
  ]  # fmt: skip
  quiet = io.StringIO()
  with contextlib.redirect_stdout(quiet), contextlib.redirect_stderr(quiet):
    code = prepare_images.main([*argv, *args])
  if code:
    raise SystemExit(quiet.getvalue())


def make_records(folder: str, files: list[str], rich: bool) -> None:
  """The images as they are, with ten labels each."""
  rng = np.random.default_rng(0)
  rows = []
  for path in files:
    ids = rng.choice(CLASSES, LABELS + NEGATIVES, replace=False)
    confidences = rng.random(LABELS, np.float32)
    image = pathlib.Path(path).read_bytes()
    labels = np.sort(ids[:LABELS])
    rows.append(
      records.Record(
        os.path.basename(path),
        image,
        labels,
        confidences if rich else None,
        np.sort(ids[LABELS:]) if rich else None,
      )
    )
  os.makedirs(folder)
  name = manifests.shard_name('train', 0, 1)
  number = records.write_shard(os.path.join(folder, name), rows)
  shard = manifests.describe(folder, name, number)
  names = tuple(f'label {i}' for i in range(CLASSES))
  Vocabulary(names).save(os.path.join(folder, 'vocabulary.jsonl'))
  total = len(rows) * LABELS
  manifests.Manifest({'train': (shard,)}, {'train': total}, {}).save(folder)


def read(folder: str, rich: bool, num: int) -> Round:
  """Images a CPU second through the training pipeline."""
  source = Repeated(Source(path=folder), 200)
  more = dict(confidence=True, max_negatives=2 * NEGATIVES) if rich else {}
  ops = (*OPS, dict(op='labels', max_labels=2 * LABELS, **more))
  batches = pipeline.train(
    source,
    pipeline.build_ops(ops, source),
    batch_size=BATCH,
    seed=0,
    workers=0,
    threads=1,
    prefetch=2,
  )
  try:
    for _ in range(4):
      next(batches)
    start, done = cpu_s(), 0
    while done < num:
      done += len(next(batches)['image'])
    return done / (cpu_s() - start), 0.0
  finally:
    batches.close()


def marginal(cost_s: Callable[[int], float], num: int) -> Round:
  """Speed beyond a quarter of the images, from the CPU seconds of two runs."""
  few = num // 4
  small, all_ = cost_s(few), cost_s(num)
  speed = (num - few) / (all_ - small)
  return speed, max(small - few / speed, 0)


def interleaved(
  contestants: dict[str, Callable[[], Round]], rounds: int
) -> dict[str, list[Round]]:
  """The rounds of each contestant."""
  results: dict[str, list[Round]] = {name: [] for name in contestants}
  order = list(contestants)
  for i in range(rounds):
    for name in order[i % len(order) :] + order[: i % len(order)]:
      results[name].append(contestants[name]())
  return results


def table(results: dict[str, list[Round]], first: str) -> str:
  rows = [
    f'| contestant | images/CPU s | range | it / {first} | range | start, s |',
    '|---|--:|--:|--:|--:|--:|',
  ]
  for name, rounds in results.items():
    speeds, starts = zip(*rounds)
    ratios = [a / b[0] for a, b in zip(speeds, results[first])]
    rows.append(
      f'| {name} | {statistics.median(speeds):.0f} | {min(speeds):.0f}-'
      f'{max(speeds):.0f} | {statistics.median(ratios):.2f} | '
      f'{min(ratios):.2f}-{max(ratios):.2f} | {statistics.median(starts):.1f} |'
    )
  return '\n'.join(rows)


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--num', type=int, default=2048, help='images a round')
  parser.add_argument('--rounds', type=int, default=5)
  args = parser.parse_args()
  cpu_tuning.reexec()
  importlib.import_module(
    'input_pipeline.prepared.beam_runner'
  )  # no part of a start
  with tempfile.TemporaryDirectory() as temporary:
    root = pathlib.Path(temporary)
    make_photographs(root / 'made', _MADE)
    made = sorted(map(str, (root / 'made').iterdir()))
    folders = {}
    for num in (args.num // 4, args.num):
      folders[num] = root / f'{num}' / 'train' / 'photo'
      folders[num].mkdir(parents=True)
      for i in range(num):  # links: all in the page cache
        os.link(made[i % _MADE], folders[num] / f'{i:06d}.jpg')
    print(machine())
    outputs = itertools.count()

    def preparer(*options: str) -> Callable[[], Round]:
      def cost_s(num: int) -> float:
        start = cpu_s()
        output = str(root / f'out{next(outputs)}')
        prepare(str(root / f'{num}'), output, *options)
        shutil.rmtree(output)
        return cpu_s() - start

      return lambda: marginal(cost_s, args.num)

    def loop(num: int) -> float:
      start = cpu_s()
      bare_loop(sorted(map(str, folders[num].iterdir())))
      return cpu_s() - start

    contestants = {
      'bare loop': lambda: marginal(loop, args.num),
      'local, 1': preparer('--workers', '1'),
      'local, 2': preparer('--workers', '2'),
      'Beam, 1': preparer('--beam', '--workers', '1'),
      'Beam, 2': preparer('--beam', '--workers', '2'),
    }
    results = interleaved(contestants, args.rounds)
    print(f'\nPreparing {args.num} images, {args.rounds} rounds\n')
    print(table(results, 'bare loop'), flush=True)

    for rich in (False, True):
      make_records(str(root / f'rich{rich}'), made, rich)
    read_num = min(args.num, 1024)
    results = interleaved(
      {
        'plain': lambda: read(str(root / 'richFalse'), False, read_num),
        'rich': lambda: read(str(root / 'richTrue'), True, read_num),
      },
      3 * args.rounds,
    )
    print(f'\nReading {read_num} images, {3 * args.rounds} rounds\n')
    print(table(results, 'plain'))


if __name__ == '__main__':
  main()
