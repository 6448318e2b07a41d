"""Time of mAP@100 once the scores exist, against a scikit-learn loop.

  python -m benchmarks.map_at_100 [--out benchmarks/results/map_at_100.md]

A set as large as FastEval14k (Sun et al. 2017, section 4): 14,000 images,
18,291 classes, 6,000 of them annotated, 37 labels an image, with random scores
in memory. Timed: the evaluator's own path, the 100 best of the annotated
classes by ops/topk.py batch by batch, then the ranking. The peer is the plain
loop, `sklearn.metrics.average_precision_score` on one column a class; it has
no top-100 cut, so its figure is another one. For a check, both are compared
where they coincide (cut='none') on a slice of the classes.
"""

import argparse
import importlib.metadata
import os
import pathlib
import platform
import statistics
import time
from collections.abc import Callable

import jax
import numpy as np

from big_vision_like.metrics import ranking
from big_vision_like.metrics.average_precision import RankingOptions
from big_vision_like.ops import topk

_BATCH = 256


def make_set(images: int, classes: int, annotated: int, labels: int):
  """Random scores [images, classes], label ids [images, labels], mask."""
  rng = np.random.default_rng(0)
  vocabulary = np.sort(rng.choice(classes, annotated, replace=False))
  popularity = 1 / np.arange(1, annotated + 1)  # a long tail
  popularity = rng.permuted(popularity / popularity.sum())
  # Gumbel top-k: labels without repetition, by popularity.
  label_ids = np.empty((images, labels), np.int32)
  scores = np.empty((images, classes), np.float32)
  for i in range(images):
    keys = np.log(popularity) + rng.gumbel(size=annotated)
    label_ids[i] = vocabulary[np.argpartition(-keys, labels)[:labels]]
    scores[i] = rng.standard_normal(classes, dtype=np.float32)
    scores[i, label_ids[i]] += 2
  mask = np.zeros(classes, bool)
  mask[vocabulary] = True
  return scores, label_ids, mask


def ours(scores, label_ids, mask) -> tuple[float, dict[str, float]]:
  """(mAP@100, seconds of the parts), the way the evaluator computes it."""
  images, classes = scores.shape
  start = time.perf_counter()
  ranked = ranking.RankingAccumulator(classes, annotated=mask)
  ids = np.arange(images)
  ahead = None
  for first in range(0, images, _BATCH):
    part = slice(first, first + _BATCH)
    started = (part, *_TOP_K(scores[part], mask))
    if ahead is not None:
      _add(ranked, ahead, label_ids, ids)
    ahead = started
  _add(ranked, ahead, label_ids, ids)
  collected = time.perf_counter()
  value = ranked.result().value
  end = time.perf_counter()
  seconds = {
    'top 100 of each image': collected - start,
    'average precision': end - collected,
    'whole metric': end - start,
  }
  return value, seconds


_TOP_K = jax.jit(lambda logits, allowed: topk.top_k(logits, 100, allowed))


def _add(ranked, started, label_ids, ids) -> None:
  part, scores, classes = started
  ranked.add(
    np.asarray(scores), np.asarray(classes), label_ids[part], ids[part]
  )


def peer(scores, label_ids, columns) -> tuple[float, float]:
  """(mean AP in percent, seconds) of a scikit-learn loop over columns."""
  from sklearn.metrics import average_precision_score

  truth = np.zeros(scores.shape, bool)
  np.put_along_axis(truth, label_ids, True, 1)
  start = time.perf_counter()
  values = [average_precision_score(truth[:, c], scores[:, c]) for c in columns]
  return 100 * float(np.mean(values)), time.perf_counter() - start


def timed(run: Callable[[], tuple], repeats: int) -> tuple:
  """(result, seconds of the parts by median) after one run to warm up."""
  run()
  results = [run() for _ in range(repeats)]
  parts = {
    name: statistics.median(seconds[name] for _, seconds in results)
    for name in results[0][1]
  }
  return results[0][0], parts


def check(scores, label_ids, columns) -> float:
  """Relative difference of ours and scikit-learn where both are defined."""
  mask = np.zeros(scores.shape[1], bool)
  mask[columns] = True
  mine = ranking.mean_average_precision(
    scores,
    label_ids,
    RankingOptions(cut='none'),
    weights='uniform',
    annotated=mask,
  )
  theirs, _ = peer(scores, label_ids, columns)
  return abs(mine / theirs - 1)


def machine() -> str:
  """CPU, number of cores and versions."""
  names = {'numpy': 'numpy', 'jax': 'jax', 'scikit-learn': 'scikit-learn'}
  versions = ', '.join(f'{n} {importlib.metadata.version(n)}' for n in names)
  cpu = platform.processor() or platform.machine()
  info = pathlib.Path('/proc/cpuinfo')
  if info.exists():
    models = [s for s in info.read_text().splitlines() if 'model name' in s]
    cpu = models[0].partition(':')[2].strip() if models else cpu
  return (
    f'{cpu}, {os.cpu_count()} cores, Python {platform.python_version()}, '
    f'{versions}, JAX on {jax.devices()[0].device_kind}'
  )


def report(args: argparse.Namespace) -> str:
  """Runs all and returns the results as Markdown."""
  scores, label_ids, mask = make_set(
    args.images, args.classes, args.annotated, args.labels
  )
  value, seconds = timed(lambda: ours(scores, label_ids, mask), args.repeats)
  used = np.unique(label_ids)
  sample = np.sort(
    np.random.default_rng(1).choice(
      used, min(args.sample, len(used)), replace=False
    )
  )
  _, peer_seconds = peer(scores, label_ids, sample)
  peer_total = peer_seconds / len(sample) * len(used)
  difference = check(scores, label_ids, sample)
  rows = '\n'.join(f'| {k} | {v:.2f} |' for k, v in seconds.items())
  whole = seconds['whole metric']
  return f"""# mAP@100 after the scores exist

Command: `{args.command}`
Machine: {machine()}

{args.images:,} images, {args.classes:,} classes ({args.annotated:,} annotated,
{len(used):,} with a label), {args.labels} labels an image, float32 scores in
memory; batches of {_BATCH}; median of {args.repeats} runs after one to warm up.

| part | seconds |
|---|---|
{rows}
| scikit-learn, one class after the other | {peer_total:.2f} |

The scikit-learn loop takes {peer_total / whole:.1f} times as long. It was timed
on {len(sample)} of the {len(used):,} classes and extrapolated; it makes no
top-100 cut. Without the cut, on those classes, both give the same figure up to
a relative difference of {difference:.1e} (it gives images of equal scores one
rank, ours the lower number the better one). mAP@100 of this random set:
{value:.3f}.
"""


def main() -> None:
  parser = argparse.ArgumentParser(
    description='Time of mAP@100 once the scores exist.'
  )
  parser.add_argument('--images', type=int, default=14_000)
  parser.add_argument('--classes', type=int, default=18_291)
  parser.add_argument('--annotated', type=int, default=6_000)
  parser.add_argument('--labels', type=int, default=37)
  parser.add_argument('--repeats', type=int, default=5)
  parser.add_argument('--sample', type=int, default=300)
  parser.add_argument('--out', help='Markdown file to write as well')
  args = parser.parse_args()
  args.command = 'python -m benchmarks.map_at_100'
  text = report(args)
  print(text)
  if args.out:
    pathlib.Path(args.out).write_text(text, encoding='utf-8')


if __name__ == '__main__':
  main()
