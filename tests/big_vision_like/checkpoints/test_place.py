"""Checkpoints outside of their workdir, and what is tried before a run."""

import json
import pathlib
import shutil

import jax
import numpy as np
import pytest
from etils import epath

from big_vision_like import train
from big_vision_like.checkpoints import folders, manifest, place, preflight
from tests import tiny
from tests.big_vision_like.checkpoints import small_run

pytestmark = pytest.mark.usefixtures('programs_kept')


def workdir_of(tmp_path: pathlib.Path, name: str) -> pathlib.Path:
  workdir = tmp_path / name
  workdir.mkdir()
  return workdir


def test_a_workdir_knows_where_its_checkpoints_are(tmp_path):
  workdir, there = workdir_of(tmp_path, 'run'), tmp_path / 'big' / 'disk'
  for fresh in (True, False):
    assert place.settle(workdir, str(there), fresh) == there
  assert folders.of_workdir(workdir) == there
  small_run.save(workdir, 3)
  assert folders.find(workdir) == there / '3'
  assert folders.find(workdir / 'checkpoints' / '3') == there / '3'
  moved = workdir.rename(tmp_path / 'moved')
  assert place.settle(moved, str(there), False) == there
  # Without ckpt.dir the run would begin anew.
  for directory in (None, str(tmp_path / 'other')):
    with pytest.raises(ValueError, match=f'are in {there}; leave ckpt.dir'):
      place.settle(moved, directory, False)
  (there / '3').rename(tmp_path / '3')
  place.settle(moved, None, False)
  assert folders.of_workdir(moved) == moved / 'checkpoints'
  assert not (moved / folders.POINTER).exists()


def test_checkpoints_of_another_run_are_not_taken(tmp_path):
  one, other = (workdir_of(tmp_path, name) for name in ('one', 'other'))
  there = tmp_path / 'there'
  place.settle(one, str(there), True)
  with pytest.raises(ValueError, match='of another run'):
    place.settle(other, str(there), True)
  # Nobody's, as in a copy: those of a run that has begun, or of none.
  small_run.save(one, 3)
  (there / 'run.json').unlink()
  with pytest.raises(ValueError, match='of another run'):
    place.settle(other, str(there), True)
  assert place.settle(other, str(there), False) == there


@pytest.mark.parametrize('url', ['gs://bucket/run', 's3://bucket/run', 'x://y'])
def test_a_url_that_nothing_here_reads(tmp_path, url):
  with pytest.raises(ValueError, match=f'{url}.* cannot be reached'):
    place.settle(workdir_of(tmp_path, 'run'), url, True)


def test_a_place_where_no_folder_can_be_made(tmp_path):
  workdir = workdir_of(tmp_path, 'run')
  (tmp_path / 'file').touch()
  for there in (tmp_path / 'file', tmp_path / 'file' / 'x'):
    with pytest.raises(ValueError, match=f'ckpt.dir=.*{there}.*Not a dir') as e:
      place.settle(workdir, str(there), True)
    assert '\n' not in str(e.value)


def test_paths_of_etils_are_read_and_written_as_others(tmp_path):
  """As far as it goes without a bucket: the same calls, on a local folder."""
  root = small_run.save(tmp_path, 3)
  step = epath.Path(root / '3')
  assert not isinstance(step, pathlib.Path)
  assert manifest.problems(step) == []
  (step / manifest.FILE).unlink()
  manifest.write(step, 3, step)
  assert manifest.problems(root / '3') == []
  [found] = folders.by_step(epath.Path(root))
  assert folders.Proof(found, print).problem() == ''


def test_a_folder_that_cannot_be_written(tmp_path):
  state = jax.eval_shape(small_run.state)
  (tmp_path / 'file').touch()
  for folder in (tmp_path / 'file', tmp_path / 'file' / 'x'):
    with pytest.raises(ValueError, match=f'cannot be written to {folder}: '):
      preflight.check_folder(folder, state)


def test_a_disk_without_room(tmp_path, monkeypatch):
  state = small_run.state()
  sizes = [x.size for x in jax.tree.leaves(state.replace(rng=None))]
  usage = shutil.disk_usage(tmp_path)
  for free, fits in ((4 * sum(sizes), True), (1000, False)):
    monkeypatch.setattr(
      shutil, 'disk_usage', lambda _, free=free: usage._replace(free=free)
    )
    if fits:
      preflight.check_folder(tmp_path, state)
    else:
      with pytest.raises(ValueError, match=r'takes 4.*e-06 GB.* 1e-06 GB free'):
        preflight.check_folder(tmp_path, state)
  assert list(tmp_path.iterdir()) == []


def test_a_state_that_cannot_be_saved(tmp_path):
  state = small_run.state()
  preflight.check_saving(tmp_path, state)
  odd = state.replace(extra={'a/b': {'': np.zeros(3, object)}})
  with pytest.raises(ValueError, match='cannot be saved') as error:
    preflight.check_saving(tmp_path, odd)
  assert '\n' not in str(error.value)
  assert [p.name for p in tmp_path.iterdir()] == []


@pytest.mark.slow
def test_a_run_with_checkpoints_elsewhere(tmp_path):
  there = tmp_path / 'there'
  changes = {'evals': {}, 'ckpt.dir': str(there)}
  train.run(tiny.simple(total_steps=1, **changes), str(tmp_path / 'run'))
  assert not (tmp_path / 'run' / 'checkpoints').exists()
  assert json.loads((there / '1' / 'manifest.json').read_text())
  with pytest.raises(ValueError, match='of another run'):
    train.run(tiny.simple(total_steps=2, **changes), str(tmp_path / 'new'))


@pytest.mark.parametrize('name', ['run[lr=1]', 'run*', 'run?', 'a\\b'])
def test_paths_that_orbax_takes_for_patterns_are_refused(name, tmp_path):
  """Of run[1] its checkpoints would have no arrays, without a word."""
  with pytest.raises(ValueError, match='for a pattern and loses arrays'):
    train.run(tiny.config(), str(tmp_path / name))
  config = tiny.config(**{'ckpt.dir': str(tmp_path / name)})
  with pytest.raises(ValueError, match=r'ckpt\.dir=.*loses arrays'):
    train.run(config, str(tmp_path / 'run'))
  assert not (tmp_path / name).exists()


@pytest.mark.parametrize(
  'name, put',
  [
    ('6', lambda path: path.symlink_to('/nowhere')),
    ('6', lambda path: path.touch()),
    ('1٢', lambda path: path.mkdir()),  # 12 to Orbax, and no step to us
    ('6.orbax-checkpoint-tmp', lambda path: path.symlink_to('/nowhere')),
    ('preflight', lambda path: path.symlink_to('..')),
  ],
)
def test_what_stands_in_the_way_of_a_save(tmp_path, name, put):
  (tmp_path / '4').mkdir()
  (tmp_path / '2').symlink_to('/nowhere')  # behind: no save comes there
  (tmp_path / '3.orbax-checkpoint-tmp').mkdir()  # of a run that was killed
  state = jax.eval_shape(small_run.state)
  preflight.check_folder(tmp_path, state)
  put(tmp_path / name)
  with pytest.raises(ValueError, match='stands in the way') as error:
    preflight.check_folder(tmp_path, state)
  assert str(error.value).startswith(f'{tmp_path}/{name} stands')
  assert '\n' not in str(error.value)


@pytest.mark.parametrize('end', ['', '/checkpoints/3', '/best'])
def test_what_is_missing_to_read_a_url_is_said(tmp_path, monkeypatch, end):
  def missing(*_):
    raise ImportError('Install s3fs to access S3')

  url = f's3://bucket/x{end}'
  kind = type(folders.as_path(url))
  for name in ('exists', 'is_dir', 'iterdir', 'read_bytes', 'stat'):
    monkeypatch.setattr(kind, name, missing)
  message = f"init_from.path='{url}': {url} cannot be reached: Install s3fs"
  for call in (folders.find, folders.hold):
    with pytest.raises(ValueError) as error:
      call(url)
    assert str(error.value).startswith(message)
    assert '\n' not in str(error.value)
  (tmp_path / folders.POINTER).write_text(json.dumps({'dir': url, 'run': 'a'}))
  for call in (folders.find, lambda at: place.settle(at, None, False)):
    with pytest.raises(ValueError, match='cannot be reached: Install s3fs'):
      call(tmp_path)
