"""pycocotools' figures of poses, and made-up sets to compare them on."""

import contextlib
import io
from collections.abc import Sequence
from typing import Any

import numpy as np

from big_vision_like.metrics.coco_keypoints import Poses, Truth
from tests.peers import pycocotools_peer

NAMES = (
  'ap', 'ap50', 'ap75', 'ap_medium', 'ap_large',
  'ar', 'ar50', 'ar75', 'ar_medium', 'ar_large',
)  # fmt: skip


def evaluated(
  persons: dict[str, Any],
  results: list[dict],
  sigmas: Sequence[float] | None = None,
) -> Any:
  """pycocotools' COCOeval of keypoints, summarised; None: sigmas of COCO."""
  from pycocotools.cocoeval import COCOeval

  coco = pycocotools_peer.loaded(persons)
  with contextlib.redirect_stdout(io.StringIO()):
    found = coco.loadRes([dict(result) for result in results])
    run = COCOeval(coco, found, 'keypoints')
    if sigmas is not None:
      run.params.kpt_oks_sigmas = np.array(sigmas)
    run.evaluate()
    run.accumulate()
    run.summarize()
  return run


def figures(
  persons: dict[str, Any],
  results: list[dict],
  sigmas: Sequence[float] | None = None,
) -> dict[str, float]:
  """Its ten figures in percent, without its -1."""
  return named(evaluated(persons, results, sigmas))


def named(run: Any) -> dict[str, float]:
  """The figures of a COCOeval that was summarised, by our names."""
  stats = zip(NAMES, run.stats)
  return {k: 100 * float(v) for k, v in stats if v != -1}


def tables(
  persons: dict[str, Any], results: list[dict]
) -> tuple[Truth, Poses, list[str]]:
  """The same as arrays of ours, with the names of the classes."""
  categories = sorted(persons['categories'], key=lambda c: c['id'])
  label = {c['id']: n for n, c in enumerate(categories)}
  truth = persons['annotations']
  column = lambda entries, key, dtype: np.asarray(
    [entry[key] for entry in entries], dtype
  )
  labels = lambda entries: np.asarray(
    [label[entry['category_id']] for entry in entries], np.int32
  )
  width = len((truth + results)[0]['keypoints'])
  points = lambda entries: column(entries, 'keypoints', np.float64).reshape(
    -1, width // 3, 3
  )
  return (
    Truth(
      column(truth, 'image_id', np.int64),
      labels(truth),
      points(truth),
      column(truth, 'bbox', np.float64).reshape(-1, 4),
      column(truth, 'area', np.float64),
      column(truth, 'iscrowd', bool),
    ),
    Poses(
      column(results, 'image_id', np.int64),
      labels(results),
      points(results),
      column(results, 'score', np.float64),
    ),
    [c['name'] for c in categories],
  )


def made_up(
  seed: int,
  images: int = 10,
  classes: int = 1,
  people: int = 5,
  detections: int = 12,
  keypoints: int = 17,
  coarse: bool = False,
) -> tuple[dict[str, Any], list[dict]]:
  """A person_keypoints_*.json and results with all that tells evaluators apart.

  Ids with gaps and in no order, images without people, people without a
  labelled keypoint, crowds with and without, areas at the limits, poses found
  twice, equal scores (`coarse`; the coordinates then are whole numbers).
  """
  rng = np.random.default_rng(seed)
  image_ids = rng.permutation(10 * images)[:images] + 1
  category_ids = rng.permutation(3 * classes)[:classes] + 1
  snap = lambda values: np.round(values, 0 if coarse else 3)
  annotations: list[dict] = []
  for image in image_ids[1:]:  # the first has none
    for _ in range(rng.integers(0, 2 * people)):
      side = np.exp(rng.uniform(np.log(20), np.log(200), 2))
      box = np.maximum(snap(np.append(rng.uniform(0, 300, 2), side)), 1)
      place = snap(box[:2] + rng.uniform(0, 1, (keypoints, 2)) * box[2:])
      seen = rng.integers(0, 3, keypoints) * (rng.random() > 0.2)
      points = np.column_stack([place * (seen > 0)[:, None], seen])
      area = rng.choice(
        [box[2:].prod() * 0.6, 32.0**2, 96.0**2, 0.0], p=[0.8, 0.08, 0.08, 0.04]
      )
      annotations.append(
        {
          'id': len(annotations) + 1,
          'image_id': int(image),
          'category_id': int(rng.choice(category_ids)),
          'bbox': box.tolist(),
          'area': float(area),
          'iscrowd': int(rng.random() < 0.12),
          'keypoints': points.ravel().tolist(),
          'num_keypoints': int((seen > 0).sum()),
        }
      )  # fmt: skip
  rng.shuffle(annotations)
  results = []
  for image in image_ids:
    own = [a for a in annotations if a['image_id'] == image]
    for _ in range(rng.integers(0, 2 * detections)):
      near = (
        own[rng.integers(len(own))] if own and rng.random() < 0.85 else None
      )
      if near is None:
        place = rng.uniform(0, 400, 2) + rng.uniform(0, 100, (keypoints, 2))
      else:
        x, y, w, h = near['bbox']
        place = np.array(near['keypoints']).reshape(-1, 3)[:, :2].copy()
        guess = [x, y] + rng.uniform(0, 1, place.shape) * [w, h]
        place = np.where((place == 0).all(axis=1)[:, None], guess, place)
        noise = rng.normal(0, rng.choice([0, 0.02, 0.06, 0.15]), place.shape)
        place += noise * [w, h]
      if rng.random() < 0.05:  # its extent at a limit of areas
        place *= 0
        place[0] = rng.choice([32, 96])
      category = rng.choice(category_ids)
      if near and rng.random() < 0.8:
        category = near['category_id']
      points = np.column_stack([snap(place), np.ones(keypoints)])
      results.append(
        {
          'image_id': int(image),
          'category_id': int(category),
          'keypoints': points.ravel().tolist(),
          'score': float(np.round(rng.random(), 1 if coarse else 6)),
        }
      )
  rng.shuffle(results)
  names = [f'k{i}' for i in range(keypoints)]
  return {
    'images': [{'id': int(i), 'height': 500, 'width': 500} for i in image_ids],
    'categories': [
      {'id': int(c), 'name': f'kind {c}', 'keypoints': names}
      for c in category_ids
    ],
    'annotations': annotations,
  }, results
