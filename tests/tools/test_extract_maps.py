"""Maps of a frozen net in files: a run from them is the run from images."""

import pytest

from big_vision_like import train
from big_vision_like.runtime import writers
from configs import synthetic_detection
from tools import extract_maps

FROZEN = 'tiny,freeze=conv4'


def config_of(arguments, **changes):
  config = synthetic_detection.get_config(arguments)
  with config.unlocked():
    config.log_every_steps = 1
    config.total_steps = 3
    for name, value in changes.items():
      config.model[name] = value
  return config


def figures(config, workdir) -> dict[int, dict[str, float]]:
  train.run(config, str(workdir))
  found: dict[int, dict[str, float]] = {}
  for line in writers.read_metrics(str(workdir)):
    found.setdefault(line['step'], {}).update(line)
  return found


@pytest.fixture(scope='module')
def maps(tmp_path_factory):
  folder = tmp_path_factory.mktemp('maps') / 'stored'
  extract_maps.extract(config_of(FROZEN), str(folder))
  return folder


@pytest.mark.slow
def test_the_run_from_maps_is_the_run_from_images(maps, tmp_path):
  """Losses of the first step, flips included; figures before it."""
  images = figures(config_of(FROZEN), tmp_path / 'images')
  config = config_of(f'{FROZEN},features={maps}')
  stored = figures(config, tmp_path / 'stored')
  losses = [k for k in images[1] if k.startswith(('train/rpn', 'train/box'))]
  assert len(losses) == 4
  for name in ('train/loss', *losses):
    assert stored[1][name] == pytest.approx(images[1][name], rel=1e-5), name
  for name in ('val/num_detections', 'val/ap50', 'val/ar100'):
    assert stored[0][name] == pytest.approx(images[0][name], abs=1e-4), name


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'width': 12}, 'width'),
    ({'stride_in': 'first_unit_3x3'}, 'stride_in'),
  ],
)
def test_maps_of_another_net_are_refused(maps, changes, message, tmp_path):
  config = config_of(f'{FROZEN},features={maps}', **changes)
  with pytest.raises(ValueError, match=message):
    train.run(config, str(tmp_path))


def test_what_is_trained_has_no_maps():
  with pytest.raises(ValueError, match='needs freeze=conv4, not freeze=none'):
    synthetic_detection.get_config('tiny,features=x')
