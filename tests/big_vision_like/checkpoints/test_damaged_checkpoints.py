"""Checkpoints that are damaged or cut short: one line, or the one before.

The damage is what happens to files: cut, deleted, overwritten. What no manifest
tells of, in checkpoints of older versions, is found by what reads the arrays.
"""

import pathlib
import re
import shutil

import jax
import numpy as np
import pytest
from PIL import Image

from big_vision_like import train
from big_vision_like.checkpoints import folders, manifest, reading
from tests import tiny
from tests.big_vision_like.checkpoints import older_runs
from tools import export, extract_features, predict

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures('programs_kept')]

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


def flip_a_bit(step: pathlib.Path) -> None:
  """In the largest array file, where nothing but a digest shows it."""
  files = step.glob('params/ocdbt.process_0/d/*')
  file = max(files, key=lambda f: f.stat().st_size)
  data = bytearray(file.read_bytes())
  data[len(data) // 2] ^= 4
  file.write_bytes(data)


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


def no_disk(step: pathlib.Path) -> None:
  """In the place of the manifest is what gives an I/O error when read."""
  (step / manifest.FILE).unlink()
  (step / manifest.FILE).symlink_to('/proc/self/mem')
  (step / 'a').symlink_to('.')


DAMAGES = {
  'arrays cut': (cut_arrays, 'not valid for value of size 100'),
  'index overwritten': (overwrite_nodes, 'list of its arrays cannot be'),
  'meta cut': (cut_meta, 'meta: .*line 1'),
}


def read(workdir):
  path = folders.hold(workdir).path
  reading.read_meta(path)
  where = jax.sharding.SingleDeviceSharding(jax.devices()[0])
  reading.read_weights(path, where)


@pytest.mark.parametrize('name', DAMAGES)
def test_reading_is_one_line_that_names_the_folder(name, workdir):
  damage, reason = DAMAGES[name]
  older_runs.remove_manifest(workdir / 'checkpoints' / '2')
  damage(workdir / 'checkpoints' / '2')
  folder = workdir / 'checkpoints' / '2'
  with pytest.raises(folders.DamagedError, match=reason) as error:
    read(workdir)
  text = str(error.value)
  assert text.startswith(f'checkpoint {folder} is damaged or incomplete: ')
  assert '\n' not in text
  assert len(text) < 500


def test_without_a_manifest_resuming_stops_and_names_the_way_on(
  workdir, capsys
):
  older_runs.remove_manifest(workdir / 'checkpoints' / '2')
  cut_arrays(workdir / 'checkpoints' / '2')
  config = tiny.config(total_steps=3, **CONFIG)
  with pytest.raises(folders.DamagedError) as error:
    train.run(config, str(workdir))
  assert error.value.__notes__ == [
    'without that folder the same command goes on from step 1'
  ]
  said = capsys.readouterr().out
  assert said.count('has no manifest, as those of older versions') == 1
  shutil.rmtree(workdir / 'checkpoints' / '2')
  train.run(config, str(workdir))
  assert 'resuming from step 1 ' in capsys.readouterr().out


@pytest.mark.parametrize(
  ('damage', 'what', 'small'),
  [
    # Found while the arrays are read, as of files of a real size.
    (flip_a_bit, 'params/ocdbt.process_0/d/.* has other bytes than were', 0),
    (lambda step: shutil.rmtree(step / 'meta'), 'meta/.* is missing', 2**20),
    (lambda step: step.rename(step.with_name('7')), 'is of step 2', 2**20),
    (no_disk, 'manifest.json cannot be read: it is a link', 2**20),
  ],
  ids=['bit', 'missing', 'renamed', 'unreadable'],
)
def test_a_run_goes_on_from_the_newest_whole_one(
  trained, workdir, capsys, monkeypatch, damage, what, small
):
  monkeypatch.setattr(manifest, '_SMALL', small)
  root = workdir / 'checkpoints'
  damage(root / '2')
  [newest] = [p for p in root.iterdir() if p.name in ('2', '7')]
  aside = f'{newest.name}.damaged'
  (root / aside).mkdir()  # of an earlier time
  state = train.run(tiny.config(total_steps=2, **CONFIG), str(workdir))
  said = capsys.readouterr().out
  assert re.search(f'{newest} is damaged or incomplete \\(.*{what}', said)
  assert f'now called {aside}-2' in said
  assert 'resuming from step 1 ' in said
  jax.tree.map(
    np.testing.assert_array_equal, jax.device_get(state.params), trained[1]
  )
  read(workdir)  # step 2 is there again, whole
  assert folders.find(workdir).name == '2'


def test_a_step_of_another_name_is_not_used(trained, workdir, capsys):
  root = workdir / 'checkpoints'
  (root / '2').rename(root / '02')
  state = train.run(tiny.config(total_steps=2, **CONFIG), str(workdir))
  said = capsys.readouterr()
  assert f'{root}/02 is not named as the folder of a step is' in said.err
  assert 'resuming from step 1 ' in said.out
  assert int(state.step) == 2 and (root / '02').is_dir()
  shutil.rmtree(root / '1')
  shutil.rmtree(root / '2')
  with pytest.raises(folders.DamagedError, match='02 is not named as'):
    train.run(tiny.config(total_steps=2, **CONFIG), str(workdir))


def test_where_none_is_whole_nothing_begins_anew(workdir):
  for step in (1, 2):
    flip_a_bit(workdir / 'checkpoints' / str(step))
  with pytest.raises(folders.DamagedError, match=r'checkpoints/2 .*no other'):
    train.run(tiny.config(total_steps=2, **CONFIG), str(workdir))
  assert sorted(p.name for p in (workdir / 'checkpoints').iterdir()) == [
    '1', '2',
  ]  # fmt: skip


def test_a_warm_start_takes_the_newest_complete_one(workdir, tmp_path, capsys):
  (workdir / 'checkpoints' / '2' / 'meta' / 'metadata').unlink()
  changes = {**CONFIG, 'init_from.path': str(workdir)}
  train.run(tiny.config(total_steps=1, **changes), str(tmp_path / 'new'))
  said = capsys.readouterr().out
  assert said.count('passed over') == 1
  assert 'meta/metadata is missing' in said
  assert f'warm start from {workdir}/checkpoints/1\n' in said


def test_commands_end_with_2_and_one_line(workdir, tmp_path, command_line):
  for step in (1, 2):
    cut_arrays(workdir / 'checkpoints' / str(step))
  config = f'--config={workdir}/config.json'
  said = f'error: checkpoint {workdir}/checkpoints/2 is damaged or incomplete: '
  for arguments in (
    (f'--workdir={workdir}', '--config.total_steps=3'),
    (f'--workdir={tmp_path}/x', f'--config.init_from.path={workdir}'),
  ):
    result = command_line(config, *arguments)
    assert result['code'] == 2, result['err']
    [line] = result['err'].splitlines()
    assert line.startswith(said)


def test_tools_end_with_2_and_one_line(workdir, tmp_path, capsys):
  flip_a_bit(workdir / 'checkpoints' / '2')
  photos = tmp_path / 'photos'
  (photos / 'of').mkdir(parents=True)
  Image.new('RGB', (20, 20)).save(photos / 'of' / 'a.png')
  output = f'--output={tmp_path}/out'
  for tool, arguments in (
    (predict, [f'--input={photos}/of/a.png', output]),
    (export, ['--format=safetensors', output]),
    (extract_features, [f'--data=folder:{photos}:all', output]),
  ):
    assert tool.main([f'--checkpoint={workdir}', *arguments]) == 2
    said = capsys.readouterr().err
    assert 'checkpoints/2 is damaged or incomplete: params/' in said
    assert f'Before it there is {workdir}/checkpoints/1' in said
    assert said.count('\n') == 1
