"""People of real photographs: who they are, and their crops."""

import json

import numpy as np
import pytest

from input_pipeline import pipeline
from input_pipeline.publishers.coco.skeletons import PERSON

pytestmark = pytest.mark.real_data


@pytest.fixture(scope='module')
def coco(real_data):
  return real_data / 'coco_tiny'


@pytest.fixture(scope='module')
def persons(coco):
  path = coco / 'annotations' / 'person_keypoints_val2017.json'
  return json.loads(path.read_text())


def opened(coco, **options):
  of = dict(type='detect', path=str(coco), split='val', task='pose')
  return pipeline.open_source(dict(type='people', of=of, **options))


def crops(source):
  specs = [dict(op='decode'), dict(op='crop_person')]
  ops = pipeline.build_ops(specs, source)
  return list(pipeline.evaluation(source, ops, batch_size=16))


def test_everybody_with_keypoints(coco, persons):
  source = opened(coco)
  assert source.space.keypoints == PERSON
  listed = [a for a in persons['annotations'] if a['num_keypoints']]
  assert len(source) == len(listed) == 46
  by_id = {a['id']: a for a in listed}
  for batch in crops(source):
    assert batch['_mask'].sum() == (batch['_id'] >= 0).sum()
    for row in np.flatnonzero(batch['_mask']):
      record = source[int(batch['_id'][row])]
      found = by_id.pop(int(record['box_ids'][record['person']]))
      points = np.array(found['keypoints'], float).reshape(-1, 3)
      crop = batch['person_keypoints'][row]
      np.testing.assert_array_equal(crop[:, 2], points[:, 2])
      seen = points[:, 2] > 0
      homogeneous = np.insert(crop[:, :2], 2, 1, axis=1)
      back = homogeneous @ batch['crop_to_image'][row].T
      np.testing.assert_allclose(back[seen], points[seen][:, [1, 0]], atol=1e-3)
      x, y, width, height = found['bbox']
      np.testing.assert_allclose(
        batch['person_box'][row], [y, x, y + height, x + width], rtol=1e-6
      )
  assert not by_id


def test_the_same_of_all_instances(coco):
  of = dict(type='coco', path=str(coco), split='val', task='both')
  source = pipeline.open_source(dict(type='people', of=of))
  one = [opened(coco)[i]['person_box'].tolist() for i in range(46)]
  both = [source[i]['person_box'].tolist() for i in range(len(source))]
  assert sorted(one) == sorted(both)
  assert len(source.vocabulary) == 80


def test_boxes_of_a_detector_that_is_right(coco, persons, tmp_path):
  """The truth as results, those of people without keypoints too."""
  rows = [
    {k: a[k] for k in ('image_id', 'category_id', 'bbox')} | {'score': 0.5}
    for a in persons['annotations']
    if not a['iscrowd']
  ]
  path = tmp_path / 'found.json'
  path.write_text(json.dumps(rows))
  train, truth = opened(coco, boxes=str(path)), opened(coco)
  assert len(train) == 46
  for i in range(46):
    assert train[i]['person'] == truth[i]['person']
  kept = opened(coco, boxes=str(path), unmatched='keep')
  assert len(kept) == len(rows) == 123
  assert 'no person of the truth' not in kept.report_lines()[-1]
