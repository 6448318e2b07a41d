"""Checkpoints of older formats go on; those of newer ones are refused.

tests/golden/format1/README.md says what is in that folder.
"""

import json
import shutil

import jax
import numpy as np
import pytest
from PIL import Image

from big_vision_like import experiment, train
from big_vision_like.checkpoints import (
  folders,
  formats,
  manager,
  reading,
)
from big_vision_like.runtime import writers
from input_pipeline.labels.space import LabelSpace
from tests import saved_run, tiny
from tests.big_vision_like.checkpoints import older_runs
from tests.big_vision_like.checkpoints.older_runs import (
  KINDS,
  LOSSES,
  stored_config,
)
from tools import predict

pytestmark = pytest.mark.usefixtures('programs_kept')


@pytest.fixture(scope='module')
def golden(tmp_path_factory):
  """Folder of the workdirs by kind."""
  folder = tmp_path_factory.mktemp('format1')
  older_runs.unpack(folder)
  return folder


@pytest.mark.slow
@pytest.mark.parametrize('kind', KINDS)
def test_a_run_of_format_1_goes_on_with_the_same_numbers(
  golden, tmp_path, kind
):
  """The losses are those of the code that wrote it, one update after another.

  Without the slots the last two are off by 8 to 19%.
  """
  folder = shutil.copytree(golden / kind, tmp_path / kind)
  before = folders.find(folder)
  assert before.name == '3' and 'format' not in reading.read_meta(before)
  train.run(stored_config(folder), str(folder))
  losses = {
    m['step']: m['train/loss']
    for m in writers.read_metrics(str(folder))
    if 'train/loss' in m
  }
  assert sorted(losses) == [4, 5, 6]
  for step, loss in losses.items():
    assert loss == pytest.approx(LOSSES[kind][str(step)], rel=2e-6)
  assert reading.read_meta(folders.find(folder))['format'] == formats.NUMBER


@pytest.mark.parametrize('kind', KINDS)
def test_slots_of_format_1_come_back_under_new_names(golden, kind):
  path = folders.find(golden / kind)
  config = stored_config(golden / kind)
  exp = experiment.build(
    config, space=LabelSpace.of_count(7), devices=jax.devices()[:1]
  )
  ckpt = manager.Checkpointer(str(golden / kind), read_only=True)
  state = ckpt.restore(exp.abstract_state, 3).opt_state
  stored = reading.stored_tree(path, 'train')
  target = jax.tree.map(
    lambda x: np.zeros(x.shape, x.dtype), stored['opt_state']
  )
  sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
  target = {'opt_state': jax.device_put(target, sharding)}
  names = list(reading.shapes(target))
  raw = reading.load_into(target, path, 'train', names)['opt_state']
  assert int(state.count) == 3 == int(raw['count'])
  old = raw['slots']
  expected = {
    'rmsprop': lambda s: {
      'ms': s['rms'].nu, 'mom': s['momentum'].trace,
    },
    'adam': lambda s: {'mom': s['adam'].mu, 'ms': s['adam'].nu},
  }[kind](state.slots)  # fmt: skip
  jax.tree.map(np.testing.assert_array_equal, expected, old)
  assert any(np.any(x != 0) for x in jax.tree.leaves(old))
  if kind == 'adam':
    assert int(state.slots['adam'].count) == 3


@pytest.mark.slow
def test_format_1_warm_starts_and_predicts(golden, tmp_path):
  folder = golden / 'rmsprop'
  config = stored_config(folder, total_steps=1)
  config.init_from = dict(path=str(folder), reinit=['head/.*'])
  state = train.run(config, str(tmp_path / 'warm'))
  assert int(state.step) == 1 and int(state.nonfinite_step) == -1
  image = tmp_path / 'a.png'
  Image.new('RGB', (20, 20), (9, 9, 9)).save(image)
  out = tmp_path / 'out'
  assert not predict.main(
    ['--checkpoint', str(folder), '--input', str(image), '--output', str(out)]
  )
  line = json.loads((out / 'predictions.jsonl').read_text())
  assert len(line['predictions']) == 5


@pytest.fixture(scope='module')
def newer(tmp_path_factory):
  """A workdir whose checkpoint says that it is of the next format."""
  exp = saved_run.with_averages()
  folder = tmp_path_factory.mktemp('newer')
  saved_run.save(folder, exp, exp.init(0), data='x', total_steps=6)
  older_runs.make_newer(folder)
  return folder


@pytest.mark.slow
def test_a_newer_format_is_refused_in_one_line(newer, tmp_path, capsys):
  message = r'is of format 3.*knows formats 1 to 2; update it$'
  with pytest.raises(ValueError, match=message) as error:
    train.run(tiny.config(), str(newer))
  assert not isinstance(error.value, folders.DamagedError)
  assert not getattr(error.value, '__notes__', None)
  config = tiny.config(**{'init_from.path': str(newer)})
  with pytest.raises(ValueError, match=message):
    train.run(config, str(tmp_path / 'warm'))
  args = ['--checkpoint', str(newer), '--input', '.', '--output', str(tmp_path)]
  assert predict.main(args) == 2
  assert 'is of format 3' in capsys.readouterr().err


def test_an_empty_tree_has_a_marker_that_nobody_sees():
  assert formats.without_marker(formats.with_marker({})) == {}
  some = {'batch_stats': {'bn1': {'mean': np.zeros(2)}}}
  assert formats.with_marker(some) is some
  assert formats.without_marker(some) is some
