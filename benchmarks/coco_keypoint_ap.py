"""COCO's figures of poses against pycocotools.

  python -m benchmarks.coco_keypoint_ap --out benchmarks/results/NAME.md

A set of the size of the images with people of COCO's val: 2,700 images, 11,000
people (40% of them without a labelled keypoint, 1.5% crowds) and 22,000 poses,
most of them near people. Timed from lists in memory, as an evaluator or a JSON
file gives them, and from the moment that each side has its own form of them.
All figures must be equal to 1e-12.
"""

import argparse
import contextlib
import importlib.metadata
import io
import sys
import time
from typing import Any

import numpy as np

from benchmarks import coco_ap, train_step
from big_vision_like.metrics import coco_keypoints
from input_pipeline.publishers.coco.skeletons import PERSON
from tests.peers import pycocotools_peer, pycocotools_poses

_NEAR = 0.8  # of the poses
_NUM = len(PERSON.names)
_SIGMAS = PERSON.sigmas or ()


def make_set(
  images: int, people: int, poses: int
) -> tuple[dict[str, Any], list[dict]]:
  """Contents of a person_keypoints_*.json and a list of results."""
  rng = np.random.default_rng(0)
  image_ids = np.sort(rng.choice(100 * images, images, replace=False)) + 1
  image = rng.integers(0, images, people)
  side = np.exp(rng.uniform(np.log(20), np.log(300), (people, 2)))
  boxes = np.round(np.hstack([rng.uniform(0, 400, (people, 2)), side]), 2)
  place = rng.uniform(0, 1, (people, _NUM, 2)) * boxes[:, None, 2:]
  place = np.round(place + boxes[:, None, :2])
  seen = rng.choice([0, 1, 2], (people, _NUM), p=[0.35, 0.1, 0.55])
  seen[rng.random(people) < 0.4] = 0
  points = np.dstack([place * (seen > 0)[..., None], seen])
  crowd = rng.random(people) < 0.015

  source = rng.integers(0, people, poses)
  near = rng.random(poses) < _NEAR
  spread = rng.choice([0.01, 0.03, 0.1], (poses, 1, 1))
  jitter = rng.normal(0, 1, (poses, _NUM, 2)) * spread
  found = place[source] + jitter * boxes[source][:, None, 2:]
  found[~near] += rng.uniform(-200, 200, ((~near).sum(), 1, 2))
  found = np.dstack([found, np.ones((poses, _NUM))])
  score = np.where(near, 1 - 5 * spread[:, 0, 0], 0.2)
  score = score + rng.normal(0, 0.2, poses)
  score = np.round(1 / (1 + np.exp(-4 * score)), 6)
  area = np.round(boxes[:, 2] * boxes[:, 3] * 0.6, 4)
  truth = {
    'images': [{'id': int(i)} for i in image_ids],
    'categories': [{'id': 1, 'name': 'person'}],
    'annotations': [
      {
        'id': number + 1,
        'image_id': int(image_ids[image[number]]),
        'category_id': 1,
        'bbox': boxes[number].tolist(),
        'area': float(area[number]),
        'iscrowd': int(crowd[number]),
        'keypoints': points[number].ravel().tolist(),
        'num_keypoints': int((seen[number] > 0).sum()),
      }
      for number in range(people)
    ],
  }
  results = [
    {
      'image_id': int(image_ids[image[source[number]]]),
      'category_id': 1,
      'keypoints': found[number].ravel().tolist(),
      'score': float(score[number]),
    }
    for number in range(poses)
  ]
  return truth, results


def ours(
  truth: dict[str, Any], results: list[dict]
) -> tuple[dict[str, float], float, float]:
  """(figures, seconds of making arrays, seconds of the figures)."""
  start = time.perf_counter()
  tables = pycocotools_poses.tables(truth, results)
  ready = time.perf_counter()
  figures = coco_keypoints.figures(*tables, _SIGMAS)
  return figures, ready - start, time.perf_counter() - ready


def theirs(
  truth: dict[str, Any], results: list[dict]
) -> tuple[dict[str, float], float, float]:
  """The same of pycocotools: loading with its index, then COCOeval."""
  from pycocotools.cocoeval import COCOeval

  copied = [dict(result) for result in results]  # loadRes writes into them
  with contextlib.redirect_stdout(io.StringIO()):
    start = time.perf_counter()
    coco = pycocotools_peer.loaded(truth)
    found = coco.loadRes(copied)
    ready = time.perf_counter()
    run = COCOeval(coco, found, 'keypoints')
    run.evaluate()
    run.accumulate()
    run.summarize()
    end = time.perf_counter()
  return pycocotools_poses.named(run), ready - start, end - ready


def report(args: argparse.Namespace) -> str:
  """Runs both and returns the results as Markdown."""
  made = make_set(args.images, args.people, args.poses)
  ours(*make_set(50, 100, 200))  # to warm up
  figures, off, table = coco_ap.measured(
    {'ours': ours, 'pycocotools': theirs}, made,
    {'ours': args.rounds, 'pycocotools': args.peer_rounds},
  )  # fmt: skip
  machine = train_step.describe_machine(args).partition('; ')[0]
  version = importlib.metadata.version('pycocotools')
  return f"""# COCO's figures of poses

`python -m benchmarks.coco_keypoint_ap {' '.join(sys.argv[1:])}`

{machine}, numpy {np.__version__}, pycocotools {version}

{args.images:,} images, {args.people:,} people, {args.poses:,} poses; medians \
of {args.rounds} rounds of ours and {args.peer_rounds} of pycocotools. \
{len(figures)} figures differ by at most {off:.1e}; AP {figures['ap']:.2f}.

{table}
"""


def main() -> None:
  parser = argparse.ArgumentParser(
    description="COCO's figures of poses against pycocotools."
  )
  parser.add_argument('--images', type=int, default=2_700)
  parser.add_argument('--people', type=int, default=11_000)
  parser.add_argument('--poses', type=int, default=22_000)
  parser.add_argument('--rounds', type=int, default=5)
  parser.add_argument('--peer_rounds', type=int, default=3)
  coco_ap.tell(parser, report)


if __name__ == '__main__':
  main()
