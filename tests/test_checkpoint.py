"""Finding checkpoints, metadata, restoring onto other meshes."""

import jax
import numpy as np
import pytest

from big_vision_like import checkpoint, experiment
from tests import tiny


def make(data, model, **changes):
  changes |= {'mesh.data': data, 'mesh.model': model}
  return experiment.build(
    tiny.config(**changes),
    num_classes=13,
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
  ckpt = checkpoint.Checkpointer(str(tmp_path))
  ckpt.save(0, state, {'step': 0, 'note': 'x'})
  ckpt.wait()
  assert ckpt.meta(0) == {'step': 0, 'note': 'x'}
  ckpt.close()
  for data, model in [(2, 4), (8, 1), (1, 8), (1, 1)]:
    other = make(data, model, **{'train.ema_decay': 0.9})
    reader = checkpoint.Checkpointer(str(tmp_path), read_only=True)
    restored = reader.restore(other.abstract_state, 0)
    same(restored, state)
    kernel = restored.params['head']['kernel']
    assert kernel.sharding.shard_shape(kernel.shape)[1] == 16 // model


def test_find(tmp_path):
  with pytest.raises(FileNotFoundError, match='no checkpoint there'):
    checkpoint.find(tmp_path)
  for step in (3, 20, 100):
    (tmp_path / 'checkpoints' / str(step) / 'params').mkdir(parents=True)
  unfinished = tmp_path / 'checkpoints' / '200.orbax-checkpoint-tmp'
  unfinished.mkdir()
  newest = tmp_path / 'checkpoints' / '100'
  assert checkpoint.find(tmp_path) == newest
  assert checkpoint.find(tmp_path / 'checkpoints') == newest
  assert checkpoint.find(newest.parent / '20').name == '20'
