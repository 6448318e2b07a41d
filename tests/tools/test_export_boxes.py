"""A detector as one program: images and their sizes to boxes."""

import json

import jax
import numpy as np
import pytest
from PIL import Image

from big_vision_like import experiment
from configs import detectors, synthetic_detection
from input_pipeline.labels.space import LabelSpace
from tests import documented_code, random_weights, saved_run
from tools import export
from tools.weights import export_check

SIDE, NUM_CLASSES = 40, 3


@pytest.fixture(scope='module')
def run(tmp_path_factory):
  """(experiment, state, workdir) of a run with several canvases."""
  config = synthetic_detection.get_config('tiny')
  config.unlock()
  config.task.num_classes = NUM_CLASSES
  config.evals.val.ops = detectors.ops(
    1, canvas=[dict(op='canvas', sizes=[[24, SIDE], [SIDE, 24]])]
  )
  exp = experiment.build(
    config, space=LabelSpace.of_count(NUM_CLASSES), devices=jax.devices()[:1]
  )
  state = random_weights.state(exp, SIDE, seed=3)
  folder = tmp_path_factory.mktemp('run')
  return exp, state, saved_run.save(folder, exp, state)


@pytest.fixture(scope='module')
def exported(run, tmp_path_factory):
  """(folder, content of the JSON)."""
  folder = tmp_path_factory.mktemp('exported')
  content = export.export(str(run[2]), str(folder), 'stablehlo')
  return folder, content


def test_documented_code_gives_the_live_boxes(run, exported):
  exp, state, _ = run
  folder, _ = exported
  photo = np.random.default_rng(1).integers(0, 256, (30, 37, 3), np.uint8)
  Image.fromarray(photo).save(folder / 'photo.png')
  code = documented_code.snippet('detection.md', 'export.deserialize')
  code += "np.savez('outputs.npz', **found)\n"
  documented_code.run(code, folder)
  found = np.load(folder / 'outputs.npz')
  image = np.full((1, SIDE, SIDE, 3), 128, np.uint8)
  image[0, :30, :37] = photo
  sizes = np.array([[30, 37]], np.int32)
  batch = {'image': image, 'image_size': sizes, 'original_size': sizes}
  wanted = jax.jit(exp.predict['detections'])(state, batch)
  assert {*found} == {*wanted} == {'boxes', 'scores', 'labels', 'mask'}
  assert found['mask'].dtype == bool and found['labels'].dtype == np.int32
  assert found['mask'].sum() > 3
  for name in ('labels', 'mask'):
    np.testing.assert_array_equal(found[name], wanted[name])
  for name in ('boxes', 'scores'):
    np.testing.assert_allclose(
      found[name], np.asarray(wanted[name]), rtol=1e-4, atol=1e-3
    )


def test_json_beside_it_says_what_it_is(exported):
  folder, content = exported
  said = json.loads((folder / 'model.stablehlo.json').read_text())
  assert said['input'] == {
    'images': {'dtype': 'uint8', 'shape': ['b', SIDE, SIDE, 3]},
    'image_size': {'dtype': 'int32', 'shape': ['b', 2]},
    'original_size': {'dtype': 'int32', 'shape': ['b', 2]},
  }
  assert said['outputs']['boxes'] == {
    'dtype': 'float32', 'shape': ['b', 8, 4],
  }  # fmt: skip
  assert said['outputs']['mask'] == {'dtype': 'bool', 'shape': ['b', 8]}
  assert 'y0, x0, y1, x1' in said['boxes'] and 'scores' not in said
  assert [op['op'] for op in said['preprocessing']] == [
    'decode', 'shrink_to_fit', 'image_size', 'pad',
  ]  # fmt: skip
  differences = content['largest_difference']
  assert differences['labels']['difference'] == 0
  assert differences['mask'] == {'difference': 0, 'largest': 1}


def test_safetensors_are_refused(run, tmp_path, capsys):
  code = export.main(
    [
      '--checkpoint', str(run[2]), '--format', 'safetensors', '--output',
      str(tmp_path),
    ]
  )  # fmt: skip
  assert code == 2
  err = capsys.readouterr().err
  assert err.count('\n') == 1
  assert "task.type='detection'; take --format stablehlo" in err
  assert list(tmp_path.iterdir()) == []


def test_labels_and_masks_must_be_equal():
  live = lambda image: {'labels': np.arange(100_000, dtype=np.int32)[None]}
  shifted = lambda image: {'labels': live(image)['labels'] + 1}
  export_check.compare(live, live, (2, 2, 3), 'float32')
  with pytest.raises(ValueError, match='labels of the file differ by 1 '):
    export_check.compare(live, shifted, (2, 2, 3), 'float32')
