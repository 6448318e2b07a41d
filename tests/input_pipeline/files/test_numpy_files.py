"""Arrays in files: what comes back, and what is refused and never run."""

import random
import warnings

import numpy as np
import pytest

from big_vision_like.checkpoints import safetensors_files
from input_pipeline.files import numpy_files
from tests.input_pipeline.files import hostile_arrays
from tools.near_duplicates import signatures

READERS = {
  'npy': (hostile_arrays.NPY, numpy_files.mapped, 'x.npy'),
  'npz': (hostile_arrays.NPZ, numpy_files.read_all, 'x.npz'),
  'safetensors': (
    hostile_arrays.SAFETENSORS, safetensors_files.read, 'x.safetensors',
  ),
}  # fmt: skip


@pytest.mark.parametrize(
  'array',
  [
    np.arange(24, dtype=np.int32).reshape(2, 3, 4),
    np.asfortranarray(np.random.default_rng(0).normal(size=(3, 5))),
    np.zeros((0, 2), np.int64), np.float16(2.5), np.array([True, False]),
  ],
  ids=str,
)  # fmt: skip
def test_arrays_come_back(tmp_path, array):
  np.save(tmp_path / 'x.npy', array)
  np.savez(tmp_path / 'x.npz', a=array, b=np.arange(3))
  for found in (
    numpy_files.mapped(tmp_path / 'x.npy'),
    numpy_files.read(tmp_path / 'x.npy'),
    numpy_files.read_all(tmp_path / 'x.npz')['a'],
  ):
    np.testing.assert_array_equal(found, array)
    assert found.dtype == np.asarray(array).dtype
  assert [*numpy_files.read_all(tmp_path / 'x.npz')] == ['a', 'b']
  with pytest.raises(FileNotFoundError):
    numpy_files.mapped(tmp_path / 'none.npy')


@pytest.mark.parametrize(
  'reader, kind',
  [(reader, kind) for reader in READERS for kind in READERS[reader][0]],
)
def test_hostile_files_are_one_line(reader, kind, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  table, read, name = READERS[reader]
  path = tmp_path / name
  words = hostile_arrays.write(table, kind, path, random.Random(0))
  with pytest.raises(ValueError) as error:
    read(str(path))
  said = str(error.value)
  assert str(path) in said and words in said
  assert '\n' not in said and len(said) < 700
  if reader != 'npz':  # the same in one that compares images
    with pytest.raises(ValueError, match=r'embeddings=.*x\.') as error:
      signatures.open_vectors(str(path), 3)
    assert words in str(error.value)
  assert not (tmp_path / hostile_arrays.CANARY).exists()


def test_the_payload_would_run(tmp_path, monkeypatch):
  """Where pickles are allowed: else these tests show nothing."""
  monkeypatch.chdir(tmp_path)
  hostile_arrays.write(
    hostile_arrays.NPY, 'Python objects', tmp_path / 'x.npy', random.Random(0)
  )
  with warnings.catch_warnings():
    warnings.simplefilter('ignore')
    np.load(tmp_path / 'x.npy', allow_pickle=True)
  assert (tmp_path / hostile_arrays.CANARY).exists()
