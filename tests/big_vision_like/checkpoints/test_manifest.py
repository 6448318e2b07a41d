"""What the manifest of a checkpoint finds, and that it is always there."""

import collections
import json
import pathlib
import shutil

import numpy as np
import pytest

from big_vision_like.checkpoints import folders, manager, manifest
from tests.big_vision_like.checkpoints import damages, small_run
from tools import verify_checkpoint


@pytest.fixture(scope='module')
def saved(tmp_path_factory) -> pathlib.Path:
  """A checkpoint of step 7."""
  return small_run.save(tmp_path_factory.mktemp('saved'), 7) / '7'


def found_of(saved: pathlib.Path, folder: pathlib.Path, trials: range) -> int:
  kinds = collections.Counter(damages.trial(saved, folder, n) for n in trials)
  files = damages.files_of(saved)
  assert kinds.keys() == {damages.kind_of(name) for name in files}
  return kinds.total()


def test_damages_of_all_kinds_of_files_are_found(saved, tmp_path):
  assert found_of(saved, tmp_path, range(100)) == 100


@pytest.mark.nightly
@pytest.mark.slow
def test_many_more_damages_are_found(saved, tmp_path):
  assert found_of(saved, tmp_path, range(100, 3000)) == 2900


def test_every_bit_of_what_orbax_writes_last(saved, tmp_path):
  """But digits of the time of the commit, held to a day."""
  step = shutil.copytree(saved, tmp_path / '7')
  for name in (damages.ORBAX, 'commit_success.txt', manifest.FILE):
    content = (step / name).read_bytes()
    known = (
      damages.time_of_commit(content) if name == damages.ORBAX else range(0)
    )
    silent = set()
    every = 1 if name != manifest.FILE else 97
    for place in range(0, len(content), every):
      changed = bytearray(content)
      changed[place] ^= 1 << place % 8
      (step / name).write_bytes(changed)
      if not manifest.problems(step):
        silent.add(place)
    (step / name).write_bytes(content)
    assert silent <= set(known)
    assert len(silent) < 15  # of the 19 digits
  assert manifest.problems(step) == []


def test_large_files_are_compared_while_they_are_read(
  saved, tmp_path, monkeypatch
):
  monkeypatch.setattr(manifest, '_SMALL', 0)
  step = shutil.copytree(saved, tmp_path / '7')
  name = damages.files_of(step)[-1]
  with folders.hold(step, later=True) as held:
    held.prove()
  damages.flip(step / name, np.random.default_rng(0))
  check = manifest.Check(step)
  assert check.found == []
  assert check.finish() == [f'{name} has other bytes than were written']
  with folders.hold(step, later=True) as held:
    with pytest.raises(folders.DamagedError, match=name):
      held.prove()
    # What a reader says of it gives way to the name of the file.
    with pytest.raises(folders.DamagedError, match=name), held.proving():
      raise folders.DamagedError('cannot be decoded')
  with pytest.raises(folders.DamagedError, match=name):
    folders.hold(step)


def test_the_wrong_folder_and_older_versions(saved, tmp_path):
  renamed = shutil.copytree(saved, tmp_path / '8')
  text = 'manifest.json is of step 7: the folder was renamed'
  assert manifest.problems(renamed) == [text]
  old = shutil.copytree(saved, tmp_path / '7')
  (old / manifest.FILE).unlink()
  assert manifest.problems(old) == ['manifest.json is missing']
  meta = json.loads((old / 'meta' / 'metadata').read_text())
  del meta['manifest']
  (old / 'meta' / 'metadata').write_text(json.dumps(meta))
  assert manifest.problems(old) is None
  old = old.rename(tmp_path / '9')
  text = 'meta/metadata is of step 7: the folder was renamed'
  assert manifest.problems(old) == [text]


def test_a_checkpoint_may_be_copied_and_moved(saved, tmp_path):
  copy = shutil.copytree(saved, tmp_path / 'run' / 'checkpoints' / '7')
  with folders.hold(tmp_path / 'run') as held:
    assert held.path == copy


def test_no_manifest_no_checkpoint(tmp_path, monkeypatch):
  """A save whose manifest fails has no name, and is told."""

  def full(*_):
    raise OSError(28, 'No space left on device')

  ckpt = manager.Checkpointer(str(tmp_path))
  ckpt.save(1, small_run.state(), small_run.META)
  ckpt.wait()
  monkeypatch.setattr(manifest, 'write', full)
  ckpt.save(2, small_run.state(), small_run.META)
  with pytest.raises(OSError, match='No space left'):
    ckpt.wait()
  assert ckpt.steps() == [1]
  monkeypatch.undo()
  ckpt.save(3, small_run.state(), small_run.META)
  ckpt.wait()
  ckpt.close()
  assert [p.name for p in folders.by_step(tmp_path / 'checkpoints')] == [
    '3', '1',
  ]  # fmt: skip


def test_verify_checkpoint(saved, tmp_path, capsys):
  shutil.copytree(saved, tmp_path / '7')
  assert verify_checkpoint.main([f'--checkpoint={tmp_path}']) == 0
  said = capsys.readouterr().out
  number = len(damages.files_of(saved))
  assert said.startswith(f'{tmp_path}/7: whole, {number} files, ')
  damaged = shutil.copytree(saved, tmp_path / '10')
  (tmp_path / '7' / 'meta' / 'metadata').unlink()
  assert verify_checkpoint.main([f'--checkpoint={tmp_path}']) == 1
  assert capsys.readouterr().out.splitlines() == [
    f'{tmp_path}/7: damaged',
    '  meta/metadata is missing',
    f'{damaged}: damaged',
    '  manifest.json is of step 7: the folder was renamed',
  ]
  assert verify_checkpoint.main([f'--checkpoint={tmp_path}/none']) == 2
