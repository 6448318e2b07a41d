"""Poses of a checkpoint: those that the evaluator scores, as files."""

import json

import jax
import numpy as np
import pytest
from jax import export as jax_export
from PIL import Image

from big_vision_like import experiment
from configs import poses as pose_configs
from configs import synthetic_detection, synthetic_pose
from evaluators.harness import building, context
from input_pipeline import ops as example_ops
from input_pipeline.labels.space import LabelSpace
from input_pipeline.labels.vocabulary import Vocabulary
from input_pipeline.ops.context import OpContext
from tests import random_weights, saved_run
from tests.input_pipeline.sources import people_made
from tools import export, predict

CROP = (33, 33)
SIGMA = 0.05
SHOWN = '0.0'


@pytest.fixture(scope='module')
def made(tmp_path_factory):
  """Photos of apes, and a pose run that is evaluated on them."""
  folder = people_made.made(tmp_path_factory.mktemp('apes') / 'apes')
  config = synthetic_pose.get_config('tiny')
  config.unlock()
  people = dict(type='detect', path=str(folder), task='pose', split='train')
  config.evals.val.data = pose_configs.people(people, default_sigma=SIGMA)
  config.evals.val.ops = pose_configs.ops(CROP, 3.0)
  config.task.num_classes = 2
  space = LabelSpace.of_source(people_made.opened(folder, default_sigma=SIGMA))
  exp = experiment.build(config, space=space, devices=jax.devices()[:1])
  state = random_weights.state(exp, CROP[0], seed=3)
  run = saved_run.save(folder / 'run', exp, state, space=space.to_json())
  return exp, state, run, folder


def boxes_of(path):
  """Two apes of 'a' and the one of 'c', as a detector may write them."""
  rows = [
    dict(file_name=f'{image}.jpg', category_id=4, bbox=box, score=0.9)
    for image, box in (
      ('a', [8, 10, 30, 20]), ('a', [50, 40, 3, 9]), ('c', [8, 10, 30, 20]),
    )
  ]  # fmt: skip
  path.write_text(json.dumps(rows))
  return path


def run(made, out, *arguments, images='train'):
  return predict.main(
    [
      '--checkpoint', str(made[2]), '--input', str(made[3] / images),
      '--output', str(out), *map(str, arguments),
    ]
  )  # fmt: skip


def scored(made, folder):
  exp, state, _, _ = made
  ctx = context.EvalContext(
    mesh=exp.mesh, workdir=str(folder), name='val', space=exp.task.space
  )
  entry = exp.config.evals.val.to_dict()
  (evaluator,) = building.from_config(
    {'val': entry}, exp.predict, lambda _: ctx
  ).values()
  evaluator.run(state)
  return json.loads((folder / 'val_results.json').read_text())


def test_poses_are_what_the_evaluator_scores(made, tmp_path, capsys):
  file = boxes_of(tmp_path / 'boxes.json')
  out = tmp_path / 'out'
  assert run(made, out, '--boxes', file, '--score', SHOWN) == 0
  said = capsys.readouterr().out
  written = json.loads((out / 'poses.json').read_text())
  names = {11: 'a', 12: 'b', 10: 'c'}
  theirs = [
    (names[row['image_id']], row['keypoints'], row['score'])
    for row in scored(made, tmp_path)
  ]
  ours = [
    (row['file_name'][-5], row['keypoints'], row['score']) for row in written
  ]
  assert len(ours) == len(theirs) == 3
  for mine, yours in zip(sorted(ours), sorted(theirs)):
    assert mine[0] == yours[0]
    np.testing.assert_allclose(mine[1], yours[1], atol=1e-3)
    assert mine[2] == pytest.approx(yours[2], rel=1e-4)
  lines = [
    json.loads(line)
    for line in (out / 'predictions.jsonl').read_text().splitlines()
  ]
  assert [line['image'][-5] for line in lines] == ['a', 'b', 'c']
  assert [len(line['people']) for line in lines] == [2, 0, 1]
  first = lines[2]['people'][0]
  assert first['box'] == [10, 8, 30, 38]
  assert [*first['keypoints']] == people_made.NAMES
  y, x, _ = first['keypoints']['tail']
  row = next(row for row in written if row['file_name'].endswith('c.jpg'))
  assert row['keypoints'][9:] == pytest.approx([x, y, 1], abs=1e-3)
  assert row['image_id'] == 3
  for line in lines:
    with Image.open(out / line['overlay']) as picture:
      assert max(picture.size) >= people_made.WIDTH
  assert '3 poses of 4 keypoints' in said
  assert (out / 'predictions.html').stat().st_size > 2000


def test_a_detector_finds_the_people(made, tmp_path, capsys):
  names = ('ape', 'person')
  config = synthetic_detection.get_config('tiny')
  config.unlock()
  config.task.num_classes = len(names)
  space = LabelSpace(Vocabulary(names))
  exp = experiment.build(config, space=space, devices=jax.devices()[:1])
  state = random_weights.state(exp, 40, seed=3)
  finder = saved_run.save(
    tmp_path / 'finder', exp, state, space=space.to_json()
  )
  out = tmp_path / 'out'
  options = '--detector', finder, '--score', SHOWN, '--no_overlays'
  assert run(made, out, *options) == 0
  found = json.loads((out / 'poses.json').read_text())
  assert found and {row['category_id'] for row in found} == {1}
  assert not (out / 'overlays').exists()
  capsys.readouterr()
  assert run(made, out, *options, '--people', 'cat') == 2
  assert "--people='cat'" in capsys.readouterr().err


@pytest.mark.parametrize(
  'arguments,content,said',
  [
    ((), None, 'give --detector RUN'),
    (('--people', '7'), None, 'no box of category 7'),
    ((), [], 'no box with a score'),
    ((), {}, 'expected a list'),
    ((), [3], 'entry 0: expected an object'),
    ((), [dict(file_name='z.jpg', bbox=[1, 1, 2, 2])], 'no such image'),
    ((), [dict(image_id=4, bbox=[1, 1, 2, 2])], 'no such image'),
    ((), [dict(image_id=1, bbox=[1, 1, 2])], 'bbox must be'),
    ((), [dict(image_id=1, bbox=[1, 1, 0, 2])], 'has no area'),
    ((), [dict(image_id=1, bbox=[1, 1, 1, 'a'])], 'a finite number'),
    ((), [dict(image_id=1, bbox=[1, 1, 1, 1], score='x')], 'score'),
    (
      (),
      [
        dict(image_id=1, category_id=i, bbox=[1, 1, 2, 2], score=1)
        for i in (1, 2)
      ],
      'categories 1, 2',
    ),
  ],
)
def test_boxes_that_are_none(made, tmp_path, capsys, arguments, content, said):
  file = boxes_of(tmp_path / 'boxes.json')
  if content is not None:
    file.write_text(json.dumps(content))
  given = () if said.startswith('give') else ('--boxes', file)
  assert run(made, tmp_path / 'out', *given, *arguments) == 2
  out = capsys.readouterr()
  assert said in out.err and out.err.count('\n') == 1
  assert not (tmp_path / 'out').exists()


def test_boxes_of_no_use_are_told(made, tmp_path):
  """One that lies outside its image, beside one that does not."""
  file = boxes_of(tmp_path / 'boxes.json')
  rows = json.loads(file.read_text())
  rows[1]['bbox'] = [500, 500, 3, 9]
  rows[2]['bbox'] = [500, 500, 3, 9]
  file.write_text(json.dumps(rows))
  out = tmp_path / 'out'
  assert run(made, out, '--boxes', file, '--score', SHOWN) == 0
  lines = [
    json.loads(line)
    for line in (out / 'predictions.jsonl').read_text().splitlines()
  ]
  assert [line['image'][-5] for line in lines] == ['a', 'b']
  assert len(lines[0]['people']) == len(lines[0]['left_out']) == 1
  (bad,) = (out / 'bad_images.jsonl').read_text().splitlines()
  assert json.loads(bad)['image'].endswith('c.jpg')


def test_flags_of_poses_are_refused_of_other_models(made, tmp_path, capsys):
  config = synthetic_detection.get_config('tiny')
  config.unlock()
  config.task.num_classes = 2
  exp = experiment.build(
    config, space=LabelSpace.of_count(2), devices=jax.devices()[:1]
  )
  state = random_weights.state(exp, 40, seed=3)
  finder = saved_run.save(tmp_path / 'finder', exp, state)
  code = predict.main(
    [
      '--checkpoint', str(finder), '--input', str(made[3] / 'train'),
      '--output', str(tmp_path / 'out'), '--detector', str(finder),
    ]
  )  # fmt: skip
  assert code == 2
  assert "--detector: the task 'detection' gives boxes" in (
    capsys.readouterr().err
  )


def test_exported_poses_are_the_live_ones(made, tmp_path):
  exp, state, workdir, folder = made
  content = export.export(str(workdir), str(tmp_path), 'stablehlo')
  assert content['keypoint_names'] == people_made.NAMES
  assert [*content['input']] == ['images', 'crop_to_image']
  ops = example_ops.build(content['preprocessing'], OpContext())
  example = {
    'image': (folder / 'train' / 'a.jpg').read_bytes(),
    'person': np.int32(-1),
    'person_box': np.array([10, 8, 30, 38], np.float32),
    'person_score': np.float32(1),
  }
  for op in ops:
    example = op(example, np.random.default_rng(0))
  inputs = example['image'][None], example['crop_to_image'][None]
  program = jax_export.deserialize(
    bytearray((tmp_path / 'model.stablehlo').read_bytes())
  )
  found = program.call(*inputs)
  batch = {'image': inputs[0], 'crop_to_image': inputs[1]}
  wanted = jax.jit(exp.predict['poses'])(state, batch)
  for name, value in wanted.items():
    np.testing.assert_allclose(found[name], value, rtol=1e-4, atol=1e-3)


def test_names_that_two_images_have(made, tmp_path, capsys):
  """Boxes say which by the path; a name alone would be a guess."""
  folder = tmp_path / 'both'
  for name in ('one', 'two'):
    (folder / name).mkdir(parents=True)
    photo = (made[3] / 'train' / 'a.jpg').read_bytes()
    (folder / name / 'a.jpg').write_bytes(photo)
  file = tmp_path / 'boxes.json'
  row = dict(category_id=4, bbox=[8, 10, 30, 20], score=0.9)
  predict_both = [
    '--checkpoint', str(made[2]), '--input', str(folder), '--score', SHOWN,
    '--output', str(tmp_path / 'out'), '--boxes', str(file), '--no_overlays',
  ]  # fmt: skip
  file.write_text(json.dumps([dict(row, file_name='a.jpg')]))
  assert predict.main(predict_both) == 2
  assert "2 images of --input are called 'a.jpg'" in capsys.readouterr().err
  path = str(folder / 'two' / 'a.jpg')
  file.write_text(json.dumps([dict(row, file_name=path)]))
  assert predict.main(predict_both) == 0
  lines = (tmp_path / 'out' / 'predictions.jsonl').read_text().splitlines()
  found = {json.loads(line)['image']: json.loads(line) for line in lines}
  counts = {key: len(line['people']) for key, line in found.items()}
  assert counts[path] == 1 and sum(counts.values()) == 1
