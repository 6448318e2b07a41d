"""pycocotools' figures of boxes, and made-up sets to compare them on."""

import contextlib
import io
from typing import Any

import numpy as np

from big_vision_like.metrics.box_pairs import Detections, Truth

NAMES = (
  'ap', 'ap50', 'ap75', 'ap_small', 'ap_medium', 'ap_large',
  'ar1', 'ar10', 'ar100', 'ar_small', 'ar_medium', 'ar_large',
)  # fmt: skip


def loaded(instances: dict[str, Any]) -> Any:
  """A pycocotools COCO of the contents of an instances_*.json."""
  from pycocotools.coco import COCO

  coco = COCO()
  coco.dataset = instances
  with contextlib.redirect_stdout(io.StringIO()):
    coco.createIndex()
  return coco


def evaluated(instances: dict[str, Any], results: list[dict]) -> Any:
  """pycocotools' COCOeval of boxes, evaluated and accumulated."""
  from pycocotools.cocoeval import COCOeval

  coco = loaded(instances)
  with contextlib.redirect_stdout(io.StringIO()):
    run = COCOeval(coco, coco.loadRes(results), 'bbox')
    run.evaluate()
    run.accumulate()
    run.summarize()
  return run


def figures(instances: dict[str, Any], results: list[dict]) -> dict[str, float]:
  """Its twelve figures and each category's AP, in percent, without its -1."""
  return named(evaluated(instances, results), instances)


def named(run: Any, instances: dict[str, Any]) -> dict[str, float]:
  """The figures of a COCOeval that was summarised, by our names."""
  found = dict(zip(NAMES, run.stats))
  names = {c['id']: c['name'] for c in instances['categories']}
  precision = run.eval['precision'][:, :, :, 0, 2]
  for number, category in enumerate(run.params.catIds):
    own = precision[:, :, number]
    if own.max() > -1:
      found[f'ap/{names[category]}'] = np.mean(own[own > -1])
  return {k: 100 * float(v) for k, v in found.items() if v != -1}


def tables(
  instances: dict[str, Any], results: list[dict]
) -> tuple[Truth, Detections, list[str]]:
  """The same as arrays of ours, with the names of the classes."""
  categories = sorted(instances['categories'], key=lambda c: c['id'])
  label = {c['id']: n for n, c in enumerate(categories)}
  column = lambda entries, key, dtype: np.asarray(
    [entry[key] for entry in entries], dtype
  )
  truth, kinds = instances['annotations'], [c['name'] for c in categories]
  boxes = lambda entries: column(entries, 'bbox', np.float64).reshape(-1, 4)
  labels = lambda entries: np.asarray(
    [label[entry['category_id']] for entry in entries], np.int32
  )
  return (
    Truth(
      column(truth, 'image_id', np.int64),
      labels(truth),
      boxes(truth),
      column(truth, 'area', np.float64),
      column(truth, 'iscrowd', bool),
    ),
    Detections(
      column(results, 'image_id', np.int64),
      labels(results),
      boxes(results),
      column(results, 'score', np.float64),
    ),
    kinds,
  )


def made_up(
  seed: int,
  images: int = 12,
  classes: int = 5,
  boxes: int = 6,
  detections: int = 25,
  coarse: bool = False,
) -> tuple[dict[str, Any], list[dict]]:
  """An instances_*.json and results with all that tells evaluators apart.

  Ids with gaps and in no order, images and classes without boxes, classes
  without detections, crowds, areas beside the boxes' own, equal scores and
  overlaps (`coarse`: coordinates of a coarse grid), more than 100 detections
  of a class in an image if asked for.
  """
  rng = np.random.default_rng(seed)
  image_ids = rng.permutation(10 * images)[:images] + 1
  category_ids = rng.permutation(3 * classes)[:classes] + 1
  grid = 16 if coarse else 0.01
  snap = lambda values: np.round(values / grid) * grid

  def box() -> np.ndarray:
    sides = np.exp(rng.uniform(np.log(8), np.log(200), 2))
    return np.maximum(snap(np.append(rng.uniform(0, 300, 2), sides)), grid)

  annotations, results = [], []
  for image in image_ids[1:]:  # the first has none
    for _ in range(rng.integers(0, 2 * boxes)):
      own = box()
      annotations.append(
        {
          'id': len(annotations) + 1,
          'image_id': int(image),
          'category_id': int(rng.choice(category_ids[1:])),
          'bbox': own.tolist(),
          'area': float(own[2:].prod() * rng.choice([1, 0.6])),
          'iscrowd': int(rng.random() < 0.15),
        }
      )
  rng.shuffle(annotations)
  for image in image_ids:
    own = [a for a in annotations if a['image_id'] == image]
    for _ in range(rng.integers(0, 2 * detections)):
      near = own[rng.integers(len(own))] if own and rng.random() < 0.8 else None
      start = np.asarray(near['bbox']) if near else box()
      jitter = rng.normal(0, rng.choice([0, 0.03, 0.15]), 4)
      moved = start + np.tile(start[2:], 2) * jitter
      moved[2:] = np.maximum(moved[2:], 1)
      category = rng.choice(category_ids)
      if near and rng.random() < 0.8:
        category = near['category_id']
      results.append(
        {
          'image_id': int(image),
          'category_id': int(category),
          'bbox': snap(moved).tolist() if coarse else moved.tolist(),
          'score': float(np.round(rng.random(), 1 if coarse else 6)),
        }
      )
  rng.shuffle(results)
  return {
    'images': [{'id': int(i), 'height': 500, 'width': 500} for i in image_ids],
    'categories': [{'id': int(c), 'name': f'kind {c}'} for c in category_ids],
    'annotations': annotations,
  }, results
