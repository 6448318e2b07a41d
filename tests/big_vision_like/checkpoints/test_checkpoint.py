"""Finding checkpoints, metadata, restoring onto other meshes."""

import shutil

import jax
import numpy as np
import pytest

from big_vision_like import experiment
from big_vision_like.checkpoints import folders, formats, manager
from input_pipeline.labels.space import LabelSpace
from tests import tiny


def make(data, model, **changes):
  changes |= {'mesh.data': data, 'mesh.model': model}
  return experiment.build(
    tiny.config(**changes),
    space=LabelSpace.of_count(13),
    devices=jax.devices()[: data * model],
  )


def same(left, right):
  for a, b in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
    if jax.dtypes.issubdtype(a.dtype, jax.dtypes.prng_key):
      a, b = jax.random.key_data(a), jax.random.key_data(b)
    np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


@pytest.mark.slow
def test_state_comes_back_equal_on_any_mesh(tmp_path):
  exp = make(2, 4, **{'train.ema_decay': 0.9})
  state = exp.init(3)
  ckpt = manager.Checkpointer(str(tmp_path))
  meta = {'step': 0, 'config': {}, 'num_classes': 13, 'note': 'x'}
  ckpt.save(0, state, meta)
  ckpt.wait()
  assert ckpt.meta(0) == {**meta, 'format': formats.NUMBER}
  ckpt.close()
  for data, model in [(2, 4), (8, 1), (1, 8), (1, 1)]:
    other = make(data, model, **{'train.ema_decay': 0.9})
    reader = manager.Checkpointer(str(tmp_path), read_only=True)
    restored = reader.restore(other.abstract_state, 0)
    same(restored, state)
    kernel = restored.params['head']['kernel']
    assert kernel.sharding.shard_shape(kernel.shape)[1] == 16 // model


def write_empty(folder, *leave_out):
  """A folder with the files that make a checkpoint complete."""
  names = ['params/_METADATA', 'extra/_METADATA', 'train/_METADATA']
  for name in {*names, 'meta/metadata'} - {*leave_out}:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).touch()


def test_find(tmp_path):
  with pytest.raises(FileNotFoundError, match='no checkpoint there'):
    folders.find(tmp_path)
  for step in (3, 20, 100):
    write_empty(tmp_path / 'checkpoints' / str(step))
  unfinished = tmp_path / 'checkpoints' / '200.orbax-checkpoint-tmp'
  unfinished.mkdir()
  newest = tmp_path / 'checkpoints' / '100'
  assert folders.find(tmp_path) == newest
  assert folders.find(tmp_path / 'checkpoints') == newest
  assert folders.find(newest.parent / '20').name == '20'


def test_find_passes_over_incomplete_checkpoints_and_says_so(tmp_path, capsys):
  root = tmp_path / 'checkpoints'
  for missing in ('meta/metadata', 'params/_METADATA', 'train/_METADATA'):
    write_empty(root / '20', missing)
    with pytest.raises(folders.DamagedError, match=f'20 is.*no {missing}'):
      folders.find(tmp_path)
    write_empty(root / '3')
    assert folders.find(tmp_path) == root / '3'
    said = capsys.readouterr().err
    assert said == (
      f'checkpoint {root / "20"} is incomplete (no {missing}): passed over\n'
    )
    shutil.rmtree(root)
  write_empty(root / '20', 'meta/metadata')
  write_empty(root / '3')
  with pytest.raises(folders.DamagedError, match='no meta/metadata'):
    folders.find(root / '20')  # it is the one that was asked for
