"""COCO figures against pycocotools, on its own fixture and made-up sets."""

import copy
import json

import numpy as np
import pytest

from big_vision_like.metrics import coco_detection
from tests.peers import pycocotools_peer as peer
from tools.scoring import coco_files

pytest.importorskip('pycocotools')


def _equal(instances, results):
  ours = coco_detection.figures(*peer.tables(instances, results))
  theirs = peer.figures(copy.deepcopy(instances), results)
  assert ours.keys() == theirs.keys()
  assert ours == pytest.approx(theirs, rel=0, abs=1e-12 * 100)
  return ours


@pytest.mark.real_data
def test_published_fixture(real_data):
  folder, name = real_data / 'coco_eval_fixtures', 'dataset__cocoapi__instances'
  instances = json.loads((folder / f'{name}_val2014_100.json').read_text())
  results = json.loads(
    (folder / f'{name}_val2014_fakebbox100_results.json').read_text()
  )
  found = _equal(instances, results)
  # As published with the fixture, rounded to three places.
  assert found['ap'] == pytest.approx(50.5, abs=0.05)
  assert found['ap50'] == pytest.approx(69.7, abs=0.05)
  assert found['ap75'] == pytest.approx(57.3, abs=0.05)


@pytest.mark.parametrize('coarse', [False, True])
@pytest.mark.parametrize('seed', range(8))
def test_made_up_sets(seed, coarse):
  instances, results = peer.made_up(seed, coarse=coarse)
  assert any(a['iscrowd'] for a in instances['annotations'])
  found = _equal(instances, results)
  assert 5 < found['ap'] < 95


@pytest.mark.parametrize('seed', range(4))
def test_files_in_any_order_of_images(seed, tmp_path):
  """Of equal scores in two images the one with the lower id goes first."""
  instances, results = peer.made_up(seed, coarse=True)
  rng = np.random.default_rng(seed)
  for name in ('images', 'annotations', 'categories'):
    rng.shuffle(instances[name])
  truth, found = tmp_path / 'truth.json', tmp_path / 'found.json'
  truth.write_text(json.dumps(instances))
  found.write_text(json.dumps(results))
  known = coco_files.truth(str(truth))
  detections = coco_files.results(str(found), known)
  ours = coco_detection.figures(known.truth, detections, known.names)
  theirs = peer.figures(instances, results)
  assert ours == pytest.approx(theirs, rel=0, abs=1e-12 * 100)


def test_all_curves_are_equal():
  instances, results = peer.made_up(20, coarse=True)
  truth, detections, names = peer.tables(instances, results)
  ours = coco_detection.evaluate(truth, detections, len(names))
  theirs = peer.evaluated(instances, results).eval
  absent = lambda values: np.where(values == -1, np.nan, values)
  np.testing.assert_allclose(
    ours.precision, absent(theirs['precision'][..., 2]), rtol=0, atol=1e-15
  )
  np.testing.assert_allclose(
    ours.recall, absent(theirs['recall']), rtol=0, atol=1e-15
  )


def test_more_than_a_hundred_detections_of_a_class_in_an_image():
  instances, results = peer.made_up(
    9, images=4, classes=2, boxes=20, detections=400
  )
  _equal(instances, results)


def test_an_annotation_of_id_zero_is_one_like_others():
  instances, results = peer.made_up(3)
  right = coco_detection.figures(*peer.tables(instances, results))
  for annotation in instances['annotations']:
    annotation['id'] -= 1
  ours = coco_detection.figures(*peer.tables(instances, results))
  assert ours == right
  assert peer.figures(instances, results)['ap'] < right['ap'] - 1e-6
