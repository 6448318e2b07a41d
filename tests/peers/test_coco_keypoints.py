"""COCO figures of poses against pycocotools, on made-up sets."""

import copy

import numpy as np
import pytest

from big_vision_like.metrics import coco_keypoints
from input_pipeline.publishers.coco.skeletons import PERSON
from tests.peers import pycocotools_poses as peer

pytest.importorskip('pycocotools')

COCO_SIGMAS = PERSON.sigmas or ()


def _equal(persons, results, sigmas=None):
  ours = coco_keypoints.figures(
    *peer.tables(persons, results), sigmas or COCO_SIGMAS
  )
  theirs = peer.figures(copy.deepcopy(persons), results, sigmas)
  assert ours.keys() == theirs.keys()
  assert ours == pytest.approx(theirs, rel=0, abs=1e-12 * 100)
  return ours


@pytest.mark.parametrize('coarse', [False, True])
@pytest.mark.parametrize('seed', range(5))
def test_made_up_sets(seed, coarse):
  persons, results = peer.made_up(seed, coarse=coarse)
  annotations = persons['annotations']
  assert any(a['iscrowd'] for a in annotations)
  assert any(not a['num_keypoints'] for a in annotations)
  assert any(a['area'] in (32**2, 96**2) for a in annotations)
  found = _equal(persons, results)
  assert len(found) == 10 and 2 < found['ap'] < 95


@pytest.mark.parametrize('num', [1, 5, 23])
def test_any_number_of_keypoints_with_sigmas_of_their_own(num):
  sigmas = np.random.default_rng(num).uniform(0.02, 0.2, num).tolist()
  _equal(*peer.made_up(num, keypoints=num), sigmas)


def test_several_classes():
  _equal(*peer.made_up(31, classes=3))


def test_more_than_twenty_poses_in_an_image():
  persons, results = peer.made_up(7, images=4, people=12, detections=40)
  per_image = np.bincount([entry['image_id'] for entry in results])
  assert per_image.max() > 40
  _equal(persons, results)


def test_all_curves_are_equal():
  persons, results = peer.made_up(20, classes=2, coarse=True)
  truth, detections, names = peer.tables(persons, results)
  ours = coco_keypoints.evaluate(truth, detections, len(names), COCO_SIGMAS)
  theirs = peer.evaluated(persons, results).eval
  absent = lambda values: np.where(values == -1, np.nan, values)
  np.testing.assert_allclose(
    ours.precision, absent(theirs['precision'][..., 0]), rtol=0, atol=1e-15
  )
  np.testing.assert_allclose(
    ours.recall, absent(theirs['recall']), rtol=0, atol=1e-15
  )


def test_similarities_are_equal_to_the_bit():
  """So that none falls on the other side of a threshold, nor a tie breaks."""
  persons, results = peer.made_up(3)
  run = peer.evaluated(persons, results, COCO_SIGMAS)
  truth, detections, _ = peer.tables(persons, results)
  for image in np.unique(truth.images):
    ours = np.flatnonzero(truth.images == image)
    found = np.flatnonzero(detections.images == image)
    found = found[np.argsort(-detections.scores[found], kind='stable')][:20]
    theirs = run.ious[image, persons['categories'][0]['id']]
    if not len(found):
      continue
    who, what = np.repeat(found, len(ours)), np.tile(ours, len(found))
    alike = coco_keypoints.similarities(
      truth, detections, who, what, np.asarray(COCO_SIGMAS)
    )
    np.testing.assert_array_equal(alike.reshape(len(found), -1), theirs)


def test_an_area_without_poses_is_left_out():
  persons, results = peer.made_up(5)
  for annotation in persons['annotations']:
    annotation['area'] = 40.0**2
  assert 'ap_large' not in _equal(persons, results)
