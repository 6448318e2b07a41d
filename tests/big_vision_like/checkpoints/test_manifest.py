"""What the manifest of a checkpoint finds, and that it is always there."""

import collections
import json
import pathlib
import shutil

import numpy as np
import pytest

from big_vision_like.checkpoints import folders, manager, manifest
from tests.big_vision_like.checkpoints import small_run
from tools import verify_checkpoint

ORBAX = '_CHECKPOINT_METADATA'


@pytest.fixture(scope='module')
def saved(tmp_path_factory) -> pathlib.Path:
  """A checkpoint of step 7."""
  return small_run.save(tmp_path_factory.mktemp('saved'), 7) / '7'


def kind_of(name: str) -> str:
  """What a file of a checkpoint holds."""
  if name in (manifest.FILE, ORBAX, 'commit_success.txt', 'meta/metadata'):
    return name
  kinds = {'d': 'arrays', 'manifest.ocdbt': 'index'}
  for part, kind in kinds.items():
    if part in name.split('/'):
      return kind
  return name.partition('/')[2].partition('/')[0]


def files_of(step: pathlib.Path) -> list[str]:
  found = (p for p in step.rglob('*') if p.is_file())
  return sorted(p.relative_to(step).as_posix() for p in found)


def time_of_commit(content: bytes) -> range:
  """Where the digits are that are known to a day only (manifest.py)."""
  start = content.index(b'commit_timestamp_nsecs": ') + 24
  return range(start, content.index(b',', start) + 1)


def flip(path: pathlib.Path, rng: np.random.Generator) -> None:
  data = bytearray(path.read_bytes())
  left_out = time_of_commit(bytes(data)) if path.name == ORBAX else ()
  place = rng.choice([i for i in range(len(data)) if i not in left_out])
  data[place] ^= 1 << int(rng.integers(8))
  path.write_bytes(data)


def cut(path: pathlib.Path, rng: np.random.Generator) -> None:
  data = path.read_bytes()
  path.write_bytes(data[: int(rng.integers(1, len(data)))])


def empty(path: pathlib.Path, rng: np.random.Generator) -> None:
  path.write_bytes(b'')


def delete(path: pathlib.Path, rng: np.random.Generator) -> None:
  path.unlink()


def add(path: pathlib.Path, rng: np.random.Generator) -> None:
  path.with_name(f'{path.name}_{rng.integers(99)}').write_bytes(b'more')


def swap(path: pathlib.Path, rng: np.random.Generator) -> None:
  """Bytes of the same number from somewhere else."""
  data = path.read_bytes()
  path.write_bytes(rng.bytes(len(data)))


DAMAGES = (flip, cut, empty, delete, add, swap)


def trial(saved: pathlib.Path, folder: pathlib.Path, number: int) -> str:
  """Damages a copy at a place that the number says; returns the file's kind.

  Raises:
    AssertionError: it was read silently, or another file was named.
  """
  rng = np.random.default_rng(number)
  step = shutil.copytree(saved, folder / str(number) / '7')
  by_kind = collections.defaultdict(list)
  for name in files_of(step):
    by_kind[kind_of(name)].append(name)
  kinds = sorted(by_kind)
  kind = kinds[number % len(kinds)]
  name = str(rng.choice(by_kind[kind]))
  damage = DAMAGES[number // len(kinds) % len(DAMAGES)]
  damage(step / name, rng)
  with pytest.raises(folders.DamagedError) as error:
    folders.hold(step, say=lambda text: None)
  assert name in str(error.value), (damage.__name__, name, error.value)
  shutil.rmtree(folder / str(number))
  return kind


def found_of(saved: pathlib.Path, folder: pathlib.Path, trials: range) -> int:
  kinds = collections.Counter(trial(saved, folder, n) for n in trials)
  assert kinds.keys() == {kind_of(name) for name in files_of(saved)}
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
  for name in (ORBAX, 'commit_success.txt', manifest.FILE):
    content = (step / name).read_bytes()
    known = time_of_commit(content) if name == ORBAX else range(0)
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
  name = files_of(step)[-1]
  with folders.hold(step, later=True) as held:
    held.prove()
  flip(step / name, np.random.default_rng(0))
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
  number = len(files_of(saved))
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
