"""Poses of real photographs: a detector's boxes, crops, poses, COCO's score."""

import json

import jax
import pytest

from big_vision_like import experiment, train
from big_vision_like.runtime import writers
from configs import coco_detection, coco_pose, own_pose, poses
from evaluators.harness import building, context
from input_pipeline import pipeline
from input_pipeline.labels.space import LabelSpace
from tests import random_weights
from tests.peers import pycocotools_poses

pytestmark = pytest.mark.real_data
CROP = (65, 49)
NUM_PEOPLE = 8


@pytest.fixture(scope='module')
def coco(real_data):
  return real_data / 'coco_tiny'


@pytest.fixture(scope='module')
def persons(coco):
  path = coco / 'annotations' / 'person_keypoints_val2017.json'
  return json.loads(path.read_text())


def evaluated(config, entry, size, workdir):
  """Figures of random weights; results are in the workdir."""
  workdir.mkdir()
  space = LabelSpace.of_source(pipeline.open_source(entry['data']))
  exp = experiment.build(config, space=space, devices=jax.devices()[:1])
  ctx = context.EvalContext(
    mesh=exp.mesh, workdir=str(workdir), name='val', space=space
  )
  (evaluator,) = building.from_config(
    {'val': entry}, exp.predict, lambda _: ctx
  ).values()
  return dict(evaluator.run(random_weights.state(exp, size, seed=3)))


def test_from_a_detector_to_the_score_of_pycocotools(coco, persons, tmp_path):
  """Random weights: the way, not the figures."""
  config = coco_detection.get_config(f'path={coco},classes=person')
  people = config.evals.val.data.to_dict() | dict(split='val')
  config = coco_detection.get_config('tiny')
  config.unlock()
  config.task.num_classes = 1
  config.task.score = 0.5
  resize = [dict(op='resize_long', size=40)]
  canvas = [*resize, dict(op='image_size'), dict(op='pad', size=40)]
  found = evaluated(
    config,
    dict(
      type='coco_detection', data=people, ops=[dict(op='decode'), *canvas],
      batch_size=10,
    ),
    40,
    tmp_path / 'boxes',
  )  # fmt: skip
  assert found['num_images'] == 50 and found['num_detections'] > 50
  boxes = tmp_path / 'boxes' / 'val_results.json'
  assert {row['category_id'] for row in json.loads(boxes.read_text())} == {1}

  config = coco_pose.get_config(f'path={coco},boxes={boxes}')
  images = config.evals.val.data.to_dict() | dict(of=dict(
    type='detect', path=str(coco), split='val', task='pose'
  ))  # fmt: skip
  config = coco_pose.get_config('tiny')
  config.unlock()
  config.plan.num_keypoints = None
  entry = dict(
    type='coco_keypoints', data=images, ops=poses.ops(CROP, 4.0), batch_size=20
  )
  found = evaluated(config, entry, CROP[0], tmp_path / 'poses')
  results = json.loads((tmp_path / 'poses' / 'val_results.json').read_text())
  assert len(results) == found['num_detections'] > 50
  # Suppression has taken some, and at most 20 of an image are left.
  assert len(results) < len(json.loads(boxes.read_text()))
  expected = pycocotools_poses.figures(persons, results)
  assert {k: found[k] for k in expected} == pytest.approx(expected, abs=1e-10)
  assert found['num_people'] == 46


@pytest.mark.slow
@pytest.mark.nightly
@pytest.mark.usual_compiling
def test_people_learnt_by_heart(coco, persons, tmp_path):
  """Of photographs with one person or two, all with keypoints."""
  found: dict[int, list] = {}
  for entry in persons['annotations']:
    found.setdefault(entry['image_id'], []).append(entry)
  good = lambda rows: (
    len(rows) < 3
    and all(row['num_keypoints'] >= 4 and row['area'] > 1500 for row in rows)
  )
  kept = [row for rows in found.values() if good(rows) for row in rows]
  kept = kept[:NUM_PEOPLE]
  assert len(kept) == NUM_PEOPLE
  images = {row['image_id'] for row in kept}
  listed = [i for i in persons['images'] if i['id'] in images]
  (tmp_path / 'annotations').mkdir()
  (tmp_path / 'annotations' / 'person_keypoints_val2017.json').write_text(
    json.dumps({**persons, 'images': listed, 'annotations': kept})
  )
  (tmp_path / 'val2017').symlink_to(coco / 'val2017')
  config = own_pose.get_config(
    f'path={tmp_path},split=val,eval_split=val,depth=14,width=24,height=129,'
    'width_px=97,epochs=300,batch=8,lr=0.1,flip=false,workers=0,voting=exact'
  )
  config.unlock()
  config.evals.val.every_percent = 100
  train.run(config, str(tmp_path / 'run'))
  figures = [
    line for line in writers.read_metrics(tmp_path / 'run') if 'val/ap' in line
  ][-1]
  assert figures['val/num_people'] == NUM_PEOPLE
  assert figures['val/ap'] > 80
