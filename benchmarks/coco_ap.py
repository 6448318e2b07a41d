"""COCO's figures of boxes against pycocotools.

  python -m benchmarks.coco_ap [--out benchmarks/results/coco_ap.md]

A set of the size of COCO's val: 5,000 images, 80 classes with gaps in their
ids, about 36,000 boxes (1.2% crowds) and 250,000 detections, most of them near
boxes. Timed from lists in memory, as an evaluator or a JSON file gives them,
and from the moment that each side has its own form of them. All figures must
be equal to 1e-12.
"""

import argparse
import contextlib
import importlib.metadata
import io
import pathlib
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from benchmarks import train_step
from big_vision_like.metrics import coco_detection
from tests.peers import pycocotools_peer

_NEAR = 0.6  # of the detections
Contestant = Callable[..., tuple[dict[str, float], float, float]]


def make_set(
  images: int, classes: int, boxes: int, detections: int
) -> tuple[dict[str, Any], list[dict]]:
  """Contents of an instances_*.json and a list of results."""
  rng = np.random.default_rng(0)
  image_ids = np.sort(rng.choice(100 * images, images, replace=False)) + 1
  category_ids = np.sort(rng.choice(classes + 10, classes, replace=False)) + 1
  popularity = 1 / np.arange(1, classes + 1)
  popularity /= popularity.sum()
  image = rng.integers(0, images, boxes)
  label = rng.choice(classes, boxes, p=popularity)
  side = np.exp(rng.uniform(np.log(10), np.log(300), (boxes, 2)))
  corner = rng.uniform(0, 400, (boxes, 2))
  truth = np.round(np.concatenate([corner, side], axis=1), 2)
  crowd = rng.random(boxes) < 0.012

  source = rng.integers(0, boxes, detections)
  near = rng.random(detections) < _NEAR
  jitter = rng.normal(0, 1, (detections, 4)) * rng.choice(
    [0.02, 0.1, 0.3], (detections, 1)
  )
  found = truth[source] + jitter * np.tile(truth[source][:, 2:], 2)
  found[~near, :2] = rng.uniform(0, 400, ((~near).sum(), 2))
  found[:, 2:] = np.maximum(found[:, 2:], 1)
  found_label = np.where(
    rng.random(detections) < 0.9, label[source],
    rng.choice(classes, detections, p=popularity),
  )  # fmt: skip
  quality = 1 - np.abs(jitter).mean(axis=1) * 2
  score = np.where(near, quality, 0.2) + rng.normal(0, 0.2, detections)
  score = np.round(1 / (1 + np.exp(-4 * score)), 6)

  instances = {
    'images': [{'id': int(i)} for i in image_ids],
    'categories': [
      {'id': int(c), 'name': f'kind {c}'} for c in category_ids
    ],
    'annotations': [
      {
        'id': number + 1,
        'image_id': int(image_ids[image[number]]),
        'category_id': int(category_ids[label[number]]),
        'bbox': truth[number].tolist(),
        'area': float(truth[number, 2] * truth[number, 3] * 0.7),
        'iscrowd': int(crowd[number]),
      }
      for number in range(boxes)
    ],
  }  # fmt: skip
  results = [
    {
      'image_id': int(image_ids[image[source[number]]]),
      'category_id': int(category_ids[found_label[number]]),
      'bbox': found[number].tolist(),
      'score': float(score[number]),
    }
    for number in range(detections)
  ]
  return instances, results


def ours(
  instances: dict[str, Any], results: list[dict]
) -> tuple[dict[str, float], float, float]:
  """(figures, seconds of making arrays, seconds of the figures)."""
  start = time.perf_counter()
  tables = pycocotools_peer.tables(instances, results)
  ready = time.perf_counter()
  figures = coco_detection.figures(*tables)
  return figures, ready - start, time.perf_counter() - ready


def theirs(
  instances: dict[str, Any], results: list[dict]
) -> tuple[dict[str, float], float, float]:
  """The same of pycocotools: loading with its index, then COCOeval."""
  from pycocotools.cocoeval import COCOeval

  copied = [dict(result) for result in results]  # loadRes writes into them
  with contextlib.redirect_stdout(io.StringIO()):
    start = time.perf_counter()
    coco = pycocotools_peer.loaded(instances)
    found = coco.loadRes(copied)
    ready = time.perf_counter()
    run = COCOeval(coco, found, 'bbox')
    run.evaluate()
    run.accumulate()
    run.summarize()
    end = time.perf_counter()
  return pycocotools_peer.named(run, instances), ready - start, end - ready


def measured(
  contestants: Mapping[str, Contestant], made: Any, rounds: Mapping[str, int]
) -> tuple[dict[str, float], float, str]:
  """Runs 'ours' and 'pycocotools', whose figures must be equal to 1e-12.

  Args:
    contestants: data -> (figures, seconds to its own form, seconds after).
    made: the data.
    rounds: of each.

  Returns:
    The figures, how far they are apart at most of 1, and a table in Markdown.
  """
  times: dict[str, list[tuple[float, float]]] = {n: [] for n in contestants}
  figures: dict[str, dict[str, float]] = {}
  for name, run in contestants.items():
    for _ in range(rounds[name]):
      figures[name], *seconds = run(*made)
      times[name].append((seconds[0], seconds[1]))
  assert figures['ours'].keys() == figures['pycocotools'].keys()
  off = max(
    abs(figures['ours'][k] - figures['pycocotools'][k]) / 100
    for k in figures['ours']
  )
  assert off <= 1e-12, off
  middle = {
    name: [statistics.median(column) for column in zip(*rows)]
    for name, rows in times.items()
  }
  lines = [
    '| | s, arrays or index | s, figures | s, both | this / ours, figures '
    '| both |',
    '|---|---|---|---|---|---|',
  ]
  for name, (first, second) in middle.items():
    whole = sum(middle['ours'])
    lines.append(
      f'| {name} | {first:.2f} | {second:.2f} | {first + second:.2f} '
      f'| {second / middle["ours"][1]:.1f} | {(first + second) / whole:.1f} |'
    )
  return figures['ours'], off, '\n'.join(lines)


def report(args: argparse.Namespace) -> str:
  """Runs both and returns the results as Markdown."""
  made = make_set(args.images, args.classes, args.boxes, args.detections)
  ours(*make_set(50, 5, 100, 500))  # to warm up
  figures, off, table = measured(
    {'ours': ours, 'pycocotools': theirs}, made,
    {'ours': args.rounds, 'pycocotools': args.peer_rounds},
  )  # fmt: skip
  machine = train_step.describe_machine(args).partition('; ')[0]
  version = importlib.metadata.version('pycocotools')
  return f"""# COCO's figures of boxes

`python -m benchmarks.coco_ap {' '.join(sys.argv[1:])}`

{machine}, numpy {np.__version__}, pycocotools {version}

{args.images:,} images, {args.classes} classes, {args.boxes:,} boxes, \
{args.detections:,} detections; medians of {args.rounds} rounds of ours and \
{args.peer_rounds} of pycocotools. {len(figures)} figures differ by at \
most {off:.1e}; AP {figures['ap']:.2f}.

{table}
"""


def tell(
  parser: argparse.ArgumentParser,
  report: Callable[[argparse.Namespace], str],
) -> None:
  """Prints the report of a command line, and writes it where that says so."""
  parser.add_argument('--out', help='Markdown file to write as well')
  args = parser.parse_args()
  args.device, args.steps = jax.default_backend(), 1
  text = report(args)
  print(text)
  if args.out:
    pathlib.Path(args.out).write_text(text, encoding='utf-8')


def main() -> None:
  parser = argparse.ArgumentParser(
    description="COCO's figures of boxes against pycocotools."
  )
  parser.add_argument('--images', type=int, default=5_000)
  parser.add_argument('--classes', type=int, default=80)
  parser.add_argument('--boxes', type=int, default=36_000)
  parser.add_argument('--detections', type=int, default=250_000)
  parser.add_argument('--rounds', type=int, default=5)
  parser.add_argument('--peer_rounds', type=int, default=1)
  tell(parser, report)


if __name__ == '__main__':
  main()
