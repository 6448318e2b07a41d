"""Detectors from stored maps: equal losses, the same evaluation, photos."""

import importlib

import jax
import numpy as np
import pytest

from big_vision_like import evaluate, experiment, train
from big_vision_like.config import settings
from input_pipeline import streams
from input_pipeline.labels.space import LabelSpace
from tools import extract_maps

CONFIG = 'configs.synthetic_detection'


def config(arguments='', **changes):
  made = importlib.import_module(CONFIG).get_config(
    f'tiny,freeze=conv4{arguments}'
  )
  made.update_from_flattened_dict(changes)
  return made


def images_config(**changes):
  small = {'input.source.num_images': 24, 'evals.val.data.num_images': 10}
  return config(**{**small, **changes})


def maps_config(folder, arguments='', **changes):
  small = {
    'input.source.data.num_images': 24, 'evals.val.data.data.num_images': 10,
  }  # fmt: skip
  return config(f',features={folder}{arguments}', **{**small, **changes})


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  path = tmp_path_factory.mktemp('maps')
  extract_maps.extract(images_config(), str(path))
  return path


def opened(given):
  given = settings.complete(given)
  sources = streams.open_all(given)
  exp = experiment.build(
    given,
    LabelSpace.of_source(sources[''].source),
    num_examples=len(sources[''].source),
    devices=jax.devices()[:1],
  )
  return exp, streams.train(sources, given, start_step=0)


def test_losses_and_updates_are_equal(folder):
  """Of the first step and of the second, with the same seed and flips."""
  found = []
  for given in (images_config(), maps_config(folder)):
    exp, data = opened(given)
    state = exp.init(given.seed)
    rows = []
    for _ in range(2):
      state, metrics = exp.train_step(state, next(data))
      rows.append(jax.device_get(metrics))
    data.close()
    found.append((rows, jax.device_get((state.params, state.extra))))
  (images, trained), (maps, trained_on_maps) = found
  for one, other in zip(images, maps):
    assert one.keys() == other.keys() and one['loss'] > 0
    for name in one:
      np.testing.assert_allclose(
        other[name], one[name], rtol=1e-5, atol=1e-6, err_msg=name
      )
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(b, a, rtol=1e-4, atol=1e-6),
    trained,
    trained_on_maps,
  )


def test_a_net_that_is_trained_is_refused(tmp_path):
  given = images_config(**{'model.freeze': 'conv3'})
  with pytest.raises(ValueError, match='would be those of no step: set model'):
    extract_maps.extract(given, str(tmp_path))
  with pytest.raises(ValueError, match='needs freeze=conv4, not freeze=none'):
    importlib.import_module(CONFIG).get_config('features=a/b')
  given = maps_config(tmp_path, **{'model.freeze': 'conv3'})
  with pytest.raises(ValueError, match="freeze='conv4', not 'conv3'"):
    experiment.build(given, LabelSpace.of_count(7))


@pytest.mark.parametrize(
  ('key', 'value'), [('width', 12), ('stride_in', 'first_unit_3x3')]
)
def test_maps_of_another_net_are_refused(folder, tmp_path, key, value):
  given = maps_config(folder, **{f'model.{key}': value})
  with pytest.raises(ValueError, match=key):
    train.run(given, str(tmp_path))


def test_a_config_of_maps_is_not_extracted(folder, tmp_path):
  with pytest.raises(ValueError, match='without features='):
    extract_maps.extract(maps_config(folder), str(tmp_path))


def test_evaluation_is_that_of_images(folder, tmp_path):
  """map_detections of the maps are detections of the images."""
  figures = []
  for given in (images_config(), maps_config(folder)):
    exp = experiment.build(
      given, LabelSpace.of_count(7), devices=jax.devices()[:1]
    )
    if not figures:
      state = exp.init(given.seed)  # whose maps these are
    evals = evaluate.from_config(exp, str(tmp_path), lambda name: None)
    figures.append(evals['val'].evaluator.run(state))
  assert figures[0].keys() == figures[1].keys()
  assert figures[0]['num_detections'] > 0
  for name, value in figures[0].items():
    assert value == pytest.approx(figures[1][name], abs=1e-6), name


@pytest.fixture(scope='module')
def arguments(folder):
  return [
    '--config', f'{CONFIG.replace(".", "/")}.py:tiny,freeze=conv4,'
    f'features={folder}',
    '--config.input.source.data.num_images=24',
    '--config.evals.val.data.data.num_images=10',
  ]  # fmt: skip


@pytest.fixture(scope='module')
def workdir(arguments, command_line, tmp_path_factory):
  path = tmp_path_factory.mktemp('run') / 'run'
  result = command_line(*arguments, '--workdir', path)
  assert result['code'] == 0, result['err']
  return path


@pytest.mark.nightly
@pytest.mark.slow
class TestRun:
  """Through main: trained, used on photos, refused."""

  def test_photos(self, workdir):
    from big_vision_like.inference import detector, stored_model
    from input_pipeline.sources import synthetic

    model = stored_model.load(workdir, '--checkpoint')
    found = detector.Detector(model, batch_size=8)
    data = dict(images_config().evals.val.data)
    del data['type']
    seen = list(found.detections(synthetic.Source(**data), range(3)))
    assert [one.index for one in seen] == [0, 1, 2]
    assert not found.bad

  def test_other_weights(self, arguments, command_line, tmp_path):
    result = command_line(
      *arguments, '--config.seed=1', '--workdir', tmp_path / 'run'
    )
    assert result['code'] == 2
    assert (
      'input.source: the maps were computed by another checkpoint'
      in (result['err'])
    )
    assert 'params/backbone/' in result['err']
