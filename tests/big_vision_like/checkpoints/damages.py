"""Damages to the files of a checkpoint, drawn with a seed."""

import collections
import pathlib
import shutil

import numpy as np
import pytest

from big_vision_like.checkpoints import folders, manifest

ORBAX = '_CHECKPOINT_METADATA'


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


def damage(step: pathlib.Path, number: int) -> tuple[str, str]:
  """Damages a checkpoint at a place that the number says.

  Returns:
    (kind, name) of the file.
  """
  rng = np.random.default_rng(number)
  by_kind = collections.defaultdict(list)
  for name in files_of(step):
    by_kind[kind_of(name)].append(name)
  kinds = sorted(by_kind)
  kind = kinds[number % len(kinds)]
  name = str(rng.choice(by_kind[kind]))
  DAMAGES[number // len(kinds) % len(DAMAGES)](step / name, rng)
  return kind, name


def trial(saved: pathlib.Path, folder: pathlib.Path, number: int) -> str:
  """Damages a copy of a checkpoint; returns the file's kind.

  Raises:
    AssertionError: it was read silently, or another file was named.
  """
  step = shutil.copytree(saved, folder / str(number) / saved.name)
  kind, name = damage(step, number)
  with pytest.raises(folders.DamagedError) as error:
    folders.hold(step, say=lambda text: None)
  assert name in str(error.value), (kind, name, error.value)
  shutil.rmtree(folder / str(number))
  return kind
