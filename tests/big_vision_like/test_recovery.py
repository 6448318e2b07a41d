"""train.on_nonfinite in whole runs: skip and rollback, and their bounds."""

import collections
import os

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from big_vision_like import recovery, train
from big_vision_like.config import settings
from big_vision_like.runtime import writers
from big_vision_like.tasks import multilabel
from big_vision_like.training.state import TrainState
from input_pipeline import device
from tests import tiny

RECORD = 40  # of the second batch


@pytest.fixture
def batches(monkeypatch):
  """RECORD breaks the loss; returns the records of each batch."""
  ids = []
  real, real_loss = device.to_global, multilabel.Task.loss

  def noted(batch, *args):
    ids.append(batch['_id'].tolist())
    return real(batch, *args)

  def loss(self, params, extra, batch, rng, train):
    per_example, extra, aux = real_loss(self, params, extra, batch, rng, train)
    hit = (batch['_id'] == RECORD).any()
    return per_example + jnp.where(hit, np.nan, 0.0), extra, aux

  monkeypatch.setattr(device, 'to_global', noted)
  monkeypatch.setattr(multilabel.Task, 'loss', loss)
  return ids


def config(policy, **changes):
  base = {
    'total_steps': 6,
    'log_every_steps': 3,
    'evals': {},
    'ckpt.every_steps': 1,
    'train.on_nonfinite': policy,
  }
  return tiny.simple(**{**base, **changes})


def bad_steps(batches):
  return [i for i, ids in enumerate(batches, 1) if RECORD in ids]


def check(state, total):
  assert int(state.step) == int(state.opt_state.count) == total
  for x in jax.tree.leaves((state.params, state.extra, state.opt_state)):
    assert np.isfinite(x).all()


@pytest.mark.slow
def test_skipped_steps_are_named_and_counted(batches, tmp_path, capsys):
  state = train.run(config('skip'), str(tmp_path / 'w'))
  check(state, 6)
  said = capsys.readouterr().out
  bad = bad_steps(batches)
  assert bad
  for number in bad:
    assert f'step {number} was passed over: loss nan (loss)' in said
    assert str(batches[number - 1]) in said
  last = list(writers.read_metrics(tmp_path / 'w'))[-1]
  assert last['train/skipped_steps'] == len(bad)


@pytest.mark.slow
def test_a_rollback_goes_on_behind_the_batches_since_the_checkpoint(
  batches, tmp_path, capsys
):
  state = train.run(config('rollback'), str(tmp_path / 'w'))
  check(state, 6)
  said = capsys.readouterr().out
  bad = bad_steps(batches)
  assert len(batches) == 6  # no batch is read twice
  for number in bad:
    assert f'at step {number} (loss' in said
    with np.load(recovery.batch_file(str(tmp_path / 'w'), number)) as kept:
      assert kept['_id'].tolist() == batches[number - 1]
    # Saved at every step; the frozen state of the last step looked at is not.
    assert f'back to the checkpoint of step {number - 1}, rollback' in said
  assert said.count('back to the checkpoint') == len(bad) > 0


class Checkpoints:
  """A stand-in: a state of step 3, or none."""

  def __init__(self, step):
    self.step = step

  def latest_step(self):
    return self.step

  def restore(self, abstract, step):
    return abstract.replace(step=jnp.int32(step))


class Data:
  """A stand-in of batches, which cannot be read again past step 8."""

  def key(self, field, index):
    return f'record {index}'

  def again(self, step):
    if step > 8:
      raise OSError('storage is away')
    image = np.full((2, 3), step, ml_dtypes.bfloat16)
    return {'image': image, '_id': np.array([4, 7])}


def made(policy, ckpt, workdir, **changes):
  complete = settings.complete(config(policy, **changes))
  nothing = jnp.zeros(())
  state = TrainState(nothing, {}, {}, {}, nothing, None, jnp.int32(5))
  silent = writers.Console(silent=True)
  return state, recovery.Recovery(
    complete, state, ckpt, Data(), silent, lambda: None, str(workdir)
  )


def test_rollbacks_are_bounded(tmp_path):
  state, recovered = made('rollback', Checkpoints(3), tmp_path)
  for step in (6, 7, 8):
    assert int(recovered.look(step, state, collections.deque()).step) == step
  assert recovered.figures() == {'rollbacks': 3}
  with pytest.raises(FloatingPointError, match='after 3 rollbacks'):
    recovered.look(9, state, collections.deque())


def test_without_a_checkpoint_there_is_nothing_to_go_back_to(tmp_path):
  state, recovered = made('rollback', Checkpoints(None), tmp_path)
  with pytest.raises(FloatingPointError, match='no checkpoint to go back to'):
    recovered.look(6, state, collections.deque())


def test_the_batch_that_stops_a_run_is_kept_without_pickles(tmp_path):
  state, recovered = made('stop', Checkpoints(3), tmp_path)
  state = state.replace(nonfinite_step=jnp.int32(7))
  path = recovery.batch_file(str(tmp_path), 7)
  with pytest.raises(FloatingPointError, match=f'The batch is kept in {path}'):
    recovered.look(8, state, collections.deque())
  with np.load(path, allow_pickle=False) as file:
    kept = {k: v.tolist() for k, v in file.items()}
  assert kept == {
    'image': [[7.0] * 3] * 2,
    '_id': [4, 7],
    '_key': ['record 4', 'record 7'],
  }
  # What stops the run is said also where the batch cannot be had any more.
  state = state.replace(nonfinite_step=jnp.int32(9))
  message = r'(?s)not finite at step 9.*could not be kept.*storage is away'
  with pytest.raises(FloatingPointError, match=message):
    recovered.look(9, state, collections.deque())
  assert os.listdir(tmp_path) == [os.path.basename(path)]


def test_skipped_steps_are_bounded(tmp_path):
  most = {'train.max_skipped': 2}
  state, recovered = made('skip', Checkpoints(3), tmp_path, **most)
  state = state.replace(nonfinite_step=jnp.int32(-1))

  def steps(*flags):
    return collections.deque(
      recovery.Step(
        i, {'_id': np.array([i])}, {'skipped': flag, 'loss': np.float32(9)}
      )
      for i, flag in enumerate(flags, 1)
    )

  seen = steps(0.0, 1.0, 0.0, 1.0)
  recovered.look(4, state, seen)
  recovered.look(4, state, seen)  # at a save: counted once
  assert recovered.figures() == {'skipped_steps': 2}
  with pytest.raises(
    FloatingPointError, match=r'train\.max_skipped=2 .*step 5'
  ):
    recovered.look(5, state, steps(0.0, 1.0, 0.0, 1.0, 1.0))
  assert os.listdir(tmp_path) == ['bad_batch-5.npz']
