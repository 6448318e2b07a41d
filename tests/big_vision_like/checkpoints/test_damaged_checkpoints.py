"""Checkpoints that are damaged or cut short: one line, or the one before.

The damage is what happens to files: cut, deleted, overwritten.
"""

import pathlib
import shutil

import jax
import numpy as np
import pytest
from PIL import Image

from big_vision_like import train
from big_vision_like.checkpoints import folders, reading
from tests import tiny
from tools import predict

pytestmark = pytest.mark.slow

CONFIG = {'evals': {}, 'ckpt.every_steps': 1, 'train.ema_decay': 0.9}


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
  """(workdir with checkpoints of steps 1 and 2, its last state)."""
  workdir = tmp_path_factory.mktemp('trained')
  state = train.run(tiny.config(total_steps=2, **CONFIG), str(workdir))
  return workdir, jax.device_get(state.params)


@pytest.fixture
def workdir(trained, tmp_path):
  return shutil.copytree(trained[0], tmp_path / 'run')


def cut_arrays(step: pathlib.Path) -> None:
  for file in step.glob('*/ocdbt.process_0/d/*'):
    file.write_bytes(file.read_bytes()[:100])


def overwrite_nodes(step: pathlib.Path) -> None:
  for file in step.glob('*/d/*'):
    data = bytearray(file.read_bytes())
    data[40:60] = bytes(20)
    file.write_bytes(data)


def cut_meta(step: pathlib.Path) -> None:
  file = step / 'meta' / 'metadata'
  file.write_bytes(file.read_bytes()[:500])


DAMAGES = {
  'arrays cut': (cut_arrays, 'not valid for value of size 100'),
  'index overwritten': (overwrite_nodes, 'list of its arrays cannot be'),
  'meta cut': (cut_meta, 'meta: .*line 1'),
}


def read(workdir):
  path = folders.find(workdir)
  reading.read_meta(path)
  where = jax.sharding.SingleDeviceSharding(jax.devices()[0])
  reading.read_weights(path, where)


@pytest.mark.parametrize('name', DAMAGES)
def test_reading_is_one_line_that_names_the_folder(name, workdir):
  damage, reason = DAMAGES[name]
  damage(workdir / 'checkpoints' / '2')
  folder = workdir / 'checkpoints' / '2'
  with pytest.raises(folders.DamagedError, match=reason) as error:
    read(workdir)
  text = str(error.value)
  assert text.startswith(f'checkpoint {folder} is damaged or incomplete: ')
  assert '\n' not in text
  assert len(text) < 500


def test_resuming_from_damaged_arrays_stops_and_names_the_way_on(
  workdir, capsys
):
  cut_arrays(workdir / 'checkpoints' / '2')
  config = tiny.config(total_steps=3, **CONFIG)
  with pytest.raises(folders.DamagedError) as error:
    train.run(config, str(workdir))
  assert error.value.__notes__ == [
    'without that folder the same command goes on from step 1'
  ]
  shutil.rmtree(workdir / 'checkpoints' / '2')
  train.run(config, str(workdir))
  assert 'resuming from step 1 ' in capsys.readouterr().out


def test_an_incomplete_newest_checkpoint_is_set_aside(trained, workdir, capsys):
  shutil.rmtree(workdir / 'checkpoints' / '2' / 'meta')
  (workdir / 'checkpoints' / '2.incomplete').mkdir()  # of an earlier time
  state = train.run(tiny.config(total_steps=2, **CONFIG), str(workdir))
  said = capsys.readouterr().out
  assert 'checkpoints/2 is incomplete (no meta/metadata)' in said
  assert 'now called 2.incomplete-2' in said
  assert 'resuming from step 1 ' in said
  jax.tree.map(
    np.testing.assert_array_equal, jax.device_get(state.params), trained[1]
  )
  read(workdir)  # step 2 is there again, whole
  assert folders.find(workdir).name == '2'


def test_a_warm_start_takes_the_newest_complete_one(workdir, tmp_path, capsys):
  (workdir / 'checkpoints' / '2' / 'meta' / 'metadata').unlink()
  changes = {**CONFIG, 'init_from.path': str(workdir)}
  train.run(tiny.config(total_steps=1, **changes), str(tmp_path / 'new'))
  said = capsys.readouterr().out
  assert said.count('passed over') == 1
  assert f'warm start from {workdir}/checkpoints/1\n' in said


def test_commands_end_with_2_and_one_line(workdir, tmp_path, command_line):
  cut_arrays(workdir / 'checkpoints' / '2')
  config = f'--config={workdir}/config.json'
  said = f'error: checkpoint {workdir}/checkpoints/2 is damaged or incomplete: '
  for arguments, num_lines in (
    ((f'--workdir={workdir}', '--config.total_steps=3'), 2),
    ((f'--workdir={tmp_path}/x', f'--config.init_from.path={workdir}'), 1),
  ):
    result = command_line(config, *arguments)
    assert result['code'] == 2, result['err']
    lines = result['err'].splitlines()
    assert len(lines) == num_lines, result['err']
    assert lines[0].startswith(said)


def test_tools_end_with_2_and_one_line(workdir, tmp_path, capsys):
  cut_arrays(workdir / 'checkpoints' / '2')
  Image.new('RGB', (20, 20)).save(tmp_path / 'a.png')
  code = predict.main(
    [
      f'--checkpoint={workdir}',
      f'--input={tmp_path}/a.png',
      f'--output={tmp_path}/out',
    ]
  )
  assert code == 2
  said = capsys.readouterr().err
  assert 'checkpoints/2 is damaged or incomplete: ' in said
  assert said.count('\n') == 1
