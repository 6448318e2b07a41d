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
  told = {'format': formats.NUMBER, 'manifest': 'manifest.json'}
  assert ckpt.meta(0) == {**meta, **told}
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


def test_an_incomplete_one_is_refused_or_passed_over(tmp_path):
  root = tmp_path / 'checkpoints'
  for missing in ('meta/metadata', 'params/_METADATA', 'train/_METADATA'):
    folders._said.cache_clear()
    said = []
    write_empty(root / '20', missing)
    for path in (tmp_path, root / '20'):  # the only one; that was asked for
      for fall_back in (False, True):
        with pytest.raises(folders.DamagedError, match=f'20 is.*no {missing}'):
          folders.hold(path, say=said.append, fall_back=fall_back)
    write_empty(root / '3')
    with pytest.raises(folders.DamagedError, match=f'Before it .*{root / "3"}'):
      folders.hold(tmp_path, say=said.append)
    with folders.hold(tmp_path, say=said.append, fall_back=True) as held:
      assert held.path == root / '3'
    assert said == [
      f'checkpoint {root / "3"} has no manifest, as those of older versions: '
      'that its arrays are what was written cannot be proved',
      f'checkpoint {root / "20"} is damaged (no {missing}): passed over',
    ]
    shutil.rmtree(root)
