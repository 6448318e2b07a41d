"""Steps passed over inside the step: not finite, or spikes of the loss."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from big_vision_like.training import optim, skipping, step
from tests.big_vision_like.training.test_step import LinearTask, make_batch

SKIP = skipping.Options(nonfinite=True)


def rms():
  params = {'w': jnp.zeros(3), 'b': jnp.zeros(())}
  options = dict(type='rmsprop', weight_decay=1e-3)
  return optim.build(options, lambda count: 0.1 / (1 + count), params)


def begin(tx, skip):
  init = step.make_init(LinearTask().init, tx, ema=True, skip=skip)
  state = init(jax.random.key(0), make_batch())
  made = step.make_train_step(LinearTask(), tx, ema_decay=0.5, skip=skip)
  return state, jax.jit(made)


@pytest.mark.parametrize('poison', [np.nan, np.inf, 1e38])
def test_a_step_that_is_not_finite_leaves_all_but_the_counts(poison):
  state, train_step = begin(rms(), SKIP)
  state, metrics = train_step(state, make_batch(0))
  assert metrics['skipped'] == 0
  bad = make_batch(1)
  bad['image'] = bad['image'].at[2, 1].set(poison)
  after, metrics = train_step(state, bad)
  assert metrics['skipped'] == 1
  assert int(after.step) == int(after.opt_state.count) == 2
  assert int(after.nonfinite_step) == -1
  expected = state.replace(
    step=after.step, opt_state=state.opt_state._replace(count=jnp.int32(2))
  )
  for name in ('params', 'extra', 'opt_state', 'ema', 'ema_extra'):
    jax.tree.map(
      np.testing.assert_array_equal,
      getattr(after, name),
      getattr(expected, name),
    )
  again, metrics = train_step(after, make_batch(2))
  assert metrics['skipped'] == 0 and int(again.step) == 3
  assert not np.array_equal(again.params['w'], after.params['w'])


def test_clean_steps_are_those_without_the_option_to_the_bit():
  plain, plain_step = begin(rms(), skipping.NOTHING)
  ours, our_step = begin(rms(), skipping.Options(True, 6.0))
  for seed in range(3):
    plain, _ = plain_step(plain, make_batch(seed))
    ours, _ = our_step(ours, make_batch(seed))
  jax.tree.map(np.testing.assert_array_equal, ours.params, plain.params)


def test_no_spike_in_a_thousand_clean_losses_and_every_true_one_after():
  """A falling loss with noise; then one of 10 standard deviations more."""
  options = skipping.Options(spike_sigma=6.0)
  rng = np.random.default_rng(0)
  trend = 2 + 5 * np.exp(-np.arange(1000) / 150)
  losses = (trend + 0.1 * rng.normal(size=1000)).astype(np.float32)
  state, _ = begin(rms(), options)

  def one(seen, loss):
    spike = skipping.is_spike(
      options, state.replace(loss_statistics=seen), loss
    )
    return skipping.with_loss(seen, loss), spike

  seen, spikes = jax.lax.scan(one, skipping.fresh_statistics(), losses)
  assert not spikes.any()
  np.testing.assert_allclose(seen.mean, 2, atol=0.1)
  np.testing.assert_allclose(jnp.sqrt(seen.variance), 0.1, rtol=0.5)
  assert one(seen, 2 + 1.0)[1] and not one(seen, 2.2)[1]


def test_the_first_losses_make_their_mean_and_variance():
  seen = skipping.fresh_statistics()
  values = np.array([3.0, 1.0, 4.0, 1.0, 5.0])
  for value in values:
    seen = skipping.with_loss(seen, jnp.float32(value))
  np.testing.assert_allclose(seen.mean, values.mean(), rtol=1e-6)
  np.testing.assert_allclose(seen.variance, values.var(), rtol=1e-6)
  assert int(seen.count) == 5


def test_a_batch_scaled_by_10_000_is_passed_over():
  state, train_step = begin(rms(), skipping.Options(spike_sigma=6.0))
  for seed in range(skipping.WARMUP + 5):
    state, metrics = train_step(state, make_batch(seed))
    assert metrics['skipped'] == 0
  wild = make_batch(7)
  wild['label'] = wild['label'] * 1e4
  after, metrics = train_step(state, wild)
  assert metrics['skipped'] == 1
  np.testing.assert_array_equal(after.params['w'], state.params['w'])
  assert int(after.loss_statistics.count) == int(state.loss_statistics.count)
