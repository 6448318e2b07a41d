"""train.on_nonfinite in whole runs: skip and rollback, and their bounds."""

import collections

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from big_vision_like import recovery, train
from big_vision_like.config import settings
from big_vision_like.runtime import writers
from big_vision_like.tasks import multilabel
from big_vision_like.training.state import TrainState
from input_pipeline import pipeline
from tests import tiny

RECORD = 40  # of the second batch


@pytest.fixture
def batches(monkeypatch):
  """RECORD breaks the loss; returns the records of each batch."""
  ids = []
  real, real_loss = pipeline.TrainIterator.__next__, multilabel.Task.loss

  def noted(self):
    batch = real(self)
    ids.append(batch['_id'].tolist())
    return batch

  def loss(self, params, extra, batch, rng, train):
    per_example, extra, aux = real_loss(self, params, extra, batch, rng, train)
    hit = (batch['_id'] == RECORD).any()
    return per_example + jnp.where(hit, np.nan, 0.0), extra, aux

  monkeypatch.setattr(pipeline.TrainIterator, '__next__', noted)
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
  return tiny.config(**{**base, **changes})


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


def made(policy, ckpt, **changes):
  complete = settings.complete(config(policy, **changes))
  nothing = jnp.zeros(())
  state = TrainState(nothing, {}, {}, {}, nothing, None, jnp.int32(5))
  key = lambda field, index: f'record {index}'
  silent = writers.Console(silent=True)
  return state, recovery.Recovery(
    complete, state, ckpt, key, silent, lambda: None
  )


def test_rollbacks_are_bounded():
  state, recovered = made('rollback', Checkpoints(3))
  for step in (6, 7, 8):
    assert int(recovered.look(step, state, collections.deque()).step) == step
  assert recovered.figures() == {'rollbacks': 3}
  with pytest.raises(FloatingPointError, match='after 3 rollbacks'):
    recovered.look(9, state, collections.deque())


def test_without_a_checkpoint_there_is_nothing_to_go_back_to():
  state, recovered = made('rollback', Checkpoints(None))
  with pytest.raises(FloatingPointError, match='no checkpoint to go back to'):
    recovered.look(6, state, collections.deque())


def test_skipped_steps_are_bounded():
  state, recovered = made('skip', Checkpoints(3), **{'train.max_skipped': 2})
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
