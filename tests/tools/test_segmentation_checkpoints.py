"""What the tools make of the checkpoint of a segmentation."""

import json

import jax
import numpy as np
import pytest
from jax import export as jax_export

from big_vision_like import experiment
from big_vision_like.config import settings
from configs import voc_segmentation
from input_pipeline.labels.space import LabelSpace
from tests import random_weights, saved_run
from tools import export, extract_features

NUM = 5  # names; fewer than the rows of features


@pytest.fixture(scope='module')
def exp():
  config = voc_segmentation.get_config('tiny')
  config.unlock()
  config.task.num_classes = NUM
  for data in (config.input.source, config.evals.val.data):
    data.update(dict(num_classes=NUM, num_images=6))
  return experiment.build(
    config, space=LabelSpace.of_count(NUM), devices=jax.devices()[:1]
  )


@pytest.fixture(scope='module')
def state(exp):
  return random_weights.state(exp, 41)


@pytest.fixture(scope='module')
def workdir(exp, state, tmp_path_factory):
  return saved_run.save(tmp_path_factory.mktemp('run'), exp, state)


def test_stablehlo_has_the_logits_of_all_features(
  exp, state, workdir, tmp_path
):
  export.export(str(workdir), str(tmp_path), 'stablehlo')
  about = json.loads((tmp_path / 'model.stablehlo.json').read_text())
  assert about['outputs']['logits']['shape'] == ['b', 6, 6, NUM + 1]
  assert (about['background'], about['scores']) == (True, 'softmax')
  data = bytearray((tmp_path / 'model.stablehlo').read_bytes())
  program = jax_export.deserialize(data)
  images = np.random.default_rng(0).integers(0, 256, (2, 41, 41, 3), np.uint8)
  found = program.call(images)['logits']
  expected = jax.jit(exp.predict['logits'])(state, {'image': images})['logits']
  assert np.ptp(expected) > 0.1
  np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)


def test_safetensors_know_no_such_head(workdir, tmp_path):
  with pytest.raises(ValueError, match=r"linear head.*'segmentation'; take"):
    export.export(str(workdir), str(tmp_path), 'safetensors')


def test_features_are_those_of_the_backbone(exp, workdir, tmp_path, capsys):
  out = tmp_path / 'features'
  config = tmp_path / 'config.json'
  config.write_text(settings.to_json(exp.config))
  arguments = ['--checkpoint', workdir, '--data', config, '--output', out]
  code = extract_features.main([str(a) for a in arguments])
  said = capsys.readouterr()
  assert (code, said.err) == (0, '')
  manifest = json.loads((out / 'manifest.json').read_text())
  assert manifest['settings']['dim'] == 8 * 32  # width 8, block 4
