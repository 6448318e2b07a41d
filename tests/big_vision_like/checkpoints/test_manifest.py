"""What the manifest of a checkpoint finds, and that it is always there."""

import collections
import json
import os
import pathlib
import re
import shutil

import numpy as np
import pytest

from big_vision_like.checkpoints import (
  folders,
  leases,
  manager,
  manifest,
  reading,
  step_names,
)
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


ADDED = {  # what somebody adds -> how it is named
  'a': (lambda path: path.symlink_to('.'), 'a is a link'),
  'b': (lambda path: path.symlink_to('/'), 'b is a link'),
  'params/c': (lambda path: path.symlink_to('_METADATA'), 'params/c is a link'),
  'pipe': (lambda path: os.mkfifo(path), 'pipe is a pipe'),
  'empty': (
    lambda path: path.mkdir(),
    'empty was not there when the checkpoint was written',
  ),
  'extra/d/new/er': (
    lambda path: path.mkdir(parents=True),
    'extra/d/new/er was not there when the checkpoint was written',
  ),
}


def test_what_was_added_and_is_no_file(saved, tmp_path):
  for name, (add, line) in ADDED.items():
    step = shutil.copytree(saved, tmp_path / name.replace('/', '-') / '7')
    add(step / name)
    assert manifest.problems(step) == [line]
  (step / 'loop').symlink_to('.')
  assert len(manifest.problems(step)) == 2
  (step / manifest.FILE).unlink()
  (step / 'meta' / 'metadata').write_bytes(b'{}')  # of an older version
  assert manifest.problems(step) == ['loop is a link']


def in_place(step, name, put):
  (step / name).unlink()
  put(step / name)


@pytest.mark.parametrize(
  'name', ['manifest.json', 'meta/metadata', damages.ORBAX]
)
def test_what_is_no_file_in_the_place_of_one(saved, tmp_path, name):
  found = {}
  for kind, put in {
    'a link': lambda path: path.symlink_to('/proc/self/mem'),
    'a folder': lambda path: path.mkdir(),
    'a pipe': lambda path: os.mkfifo(path),
  }.items():
    step = shutil.copytree(saved, tmp_path / kind / '7')
    in_place(step, name, put)
    found[kind] = manifest.problems(step)[0]
    lease = leases.take(step)  # waits for nobody
    assert lease is not None
    lease.close()
    with pytest.raises(folders.DamagedError, match='damaged or incomplete'):
      folders.hold(step)
  assert name in found['a folder']
  assert found['a link'].startswith(name) and 'a link' in found['a link']
  assert found['a pipe'].startswith(name) and 'a pipe' in found['a pipe']


def test_files_that_cannot_be_read_are_named(saved, tmp_path, monkeypatch):
  """As of a bad disk, or another user."""
  step = shutil.copytree(saved, tmp_path / '7')
  real = manifest._hash

  def refuse(path):
    if path.parent.name == 'params':
      raise OSError(5, 'Input/output error', str(path))
    return real(path)

  monkeypatch.setattr(manifest, '_hash', refuse)
  found = manifest.problems(step)
  assert found
  for line in found:
    assert re.fullmatch(r'params/\S+ cannot be read: Input/output error', line)


def test_json_that_nests_too_deeply(saved, tmp_path):
  deep = '[' * 200_000
  for name in (manifest.FILE, damages.ORBAX, 'meta/metadata'):
    step = shutil.copytree(saved, tmp_path / name.replace('/', '-') / '7')
    (step / name).write_text(deep)
    assert manifest.problems(step)
    (step / manifest.FILE).unlink()
    manifest.problems(step)  # as of an older version: its reader will say it
    if name == 'meta/metadata':
      with pytest.raises(folders.DamagedError, match='deep'):
        reading.read_meta(step)
  for content in ('{"content": [], "sha256": ""}', '{"content": {"step": 7}}'):
    (step / manifest.FILE).write_text(content)
    assert manifest.problems(step) == ['manifest.json has changed']
  (tmp_path / folders.BEST_FILE).write_text(deep)
  with pytest.raises(folders.DamagedError, match=r'best\.json is damaged'):
    folders.read_best(tmp_path)
  (tmp_path / folders.POINTER).write_text(deep)
  with pytest.raises(ValueError, match='does not say where'):
    folders.of_workdir(tmp_path)


def test_a_manifest_that_is_well_formed_and_says_nothing(saved, tmp_path):
  """Whoever changes files can write a digest too."""
  step = shutil.copytree(saved, tmp_path / '7')
  whole = json.loads((step / manifest.FILE).read_text())['content']
  for key, value in {
    'files': [], 'step': '7', 'orbax': None, 'empty': 3, 'folder': 1,
    'time_ns': 'x',
  }.items():  # fmt: skip
    (step / manifest.FILE).write_bytes(manifest._text({**whole, key: value}))
    assert manifest.problems(step) == ['manifest.json has changed']
  for entry in ([], {'size': 1}, {'size': 'x', 'sha256': ''}):
    told = {**whole, 'files': {'a': entry}}
    (step / manifest.FILE).write_bytes(manifest._text(told))
    assert manifest.problems(step) == ['manifest.json has changed']


NAMES = ['06', '006', '+6', '6 ', '²', '٦', '6' * 5000]


def test_other_names_that_read_as_steps(saved, tmp_path, capsys):
  assert [step_names.step_of(name) for name in NAMES] == [None] * len(NAMES)
  assert [step_names.step_of(n) for n in ('0', '6', '10')] == [0, 6, 10]
  shutil.copytree(saved, tmp_path / '7')
  for name in NAMES[:-1]:
    shutil.copytree(saved, tmp_path / name)
  for _ in range(2):
    assert folders.by_step(tmp_path) == [tmp_path / '7']
  said = capsys.readouterr().err.splitlines()
  assert sorted(said) == sorted(
    f'{tmp_path}/{name} is not named as the folder of a step is, by its number '
    'alone: it is not used'
    for name in NAMES[:-1]
  )
  assert folders.find(tmp_path).name == '7'
  assert verify_checkpoint.main([f'--checkpoint={tmp_path}']) == 1
  assert verify_checkpoint.main([f'--checkpoint={tmp_path}/7']) == 0
  assert verify_checkpoint.main([f'--checkpoint={tmp_path}/06']) == 2
  folders.check_names(tmp_path)
  shutil.rmtree(tmp_path / '7')
  with pytest.raises(folders.DamagedError, match='no other checkpoint'):
    folders.check_names(tmp_path)
