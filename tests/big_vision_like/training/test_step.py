"""The pure train step on a task small enough to follow by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from big_vision_like.training import step


class LinearTask:
  """Squared error of w.x + b; counts its calls in extra."""

  def init(self, rng, batch):
    dim = batch['image'].shape[-1]
    params = {'w': jnp.arange(1.0, dim + 1), 'b': jnp.zeros(())}
    return params, {'calls': jnp.zeros(()), 'count': jnp.zeros((), jnp.int32)}

  def loss(self, params, extra, batch, rng, train):
    out = batch['image'] @ params['w'] + params['b']
    error = jnp.square(out - batch['label'])
    return error, jax.tree.map(lambda x: x + 1, extra), {'out': out}


def make_batch(seed=0, size=8, mask=None):
  rng = np.random.default_rng(seed)
  return {
    'image': jnp.asarray(rng.normal(size=(size, 3)), jnp.float32),
    'label': jnp.asarray(rng.normal(size=size), jnp.float32),
    '_mask': jnp.ones(size, bool) if mask is None else jnp.asarray(mask),
    '_id': jnp.arange(size),
  }


def start(tx, *, ema=False):
  return step.make_init(LinearTask().init, tx, ema=ema)(
    jax.random.key(0), make_batch()
  )


def reference(batch, w, b):
  """float64 mean squared error over the mask and its gradient."""
  x, y = np.float64(batch['image']), np.float64(batch['label'])
  m = np.asarray(batch['_mask'])
  error = (x @ w + b - y) * m
  num = max(m.sum(), 1)
  return (error**2).sum() / num, 2 * error @ x / num, 2 * error.sum() / num


@pytest.mark.parametrize('accum', [1, 2, 4])
def test_loss_and_gradient_are_means_over_the_mask(accum):
  mask = [True, True, False, True, False, True, True, False]
  batch = make_batch(mask=mask)
  tx = optax.sgd(0.1)
  train_step = jax.jit(
    step.make_train_step(LinearTask(), tx, accum_steps=accum)
  )
  state, metrics = train_step(start(tx), batch)
  loss, dw, db = reference(batch, np.arange(1.0, 4), 0.0)
  np.testing.assert_allclose(metrics['loss'], loss, rtol=1e-6)
  np.testing.assert_allclose(
    metrics['grad_norm'], np.sqrt((dw**2).sum() + db**2), rtol=1e-6
  )
  np.testing.assert_allclose(
    state.params['w'], np.arange(1.0, 4) - 0.1 * dw, rtol=1e-6
  )
  assert int(state.step) == 1
  assert int(state.extra['calls']) == accum


def test_a_batch_without_valid_examples_changes_no_parameter():
  tx = optax.sgd(0.1)
  before = start(tx)
  after, metrics = step.make_train_step(LinearTask(), tx)(
    before, make_batch(mask=[False] * 8)
  )
  assert float(metrics['loss']) == 0
  np.testing.assert_array_equal(after.params['w'], before.params['w'])
  assert int(after.step) == 1


def test_ema_follows_its_formula():
  tx = optax.sgd(0.1)
  state = start(tx, ema=True)
  ema, calls = np.float64(state.params['w']), 0.0
  train_step = step.make_train_step(LinearTask(), tx, ema_decay=0.7)
  for seed in range(5):
    state, _ = train_step(state, make_batch(seed))
    ema = 0.7 * ema + 0.3 * np.float64(state.params['w'])
    calls = 0.7 * calls + 0.3 * (seed + 1)
  np.testing.assert_allclose(state.ema['w'], ema, rtol=1e-5)
  # What belongs to the weights, as batch statistics do, is averaged with them;
  # a whole number is the newest.
  evaluated = state.for_evaluation()
  assert evaluated.params is state.ema
  np.testing.assert_allclose(evaluated.extra['calls'], calls, rtol=1e-5)
  assert int(evaluated.extra['count']) == int(state.extra['count']) == 5
  assert float(state.extra['calls']) == 5
  plain = start(tx)
  assert plain.ema_extra is None and plain.for_evaluation() is plain


@pytest.mark.parametrize('poison', [np.nan, np.inf])
def test_non_finite_step_is_named_and_nothing_after_it_is_applied(poison):
  tx = optax.sgd(0.1, momentum=0.9)
  train_step = jax.jit(step.make_train_step(LinearTask(), tx, ema_decay=0.5))
  state = start(tx, ema=True)
  state, _ = train_step(state, make_batch(0))
  good = jax.device_get(state.replace(rng=None))
  bad = make_batch(1)
  bad['image'] = bad['image'].at[2, 1].set(poison)
  state, _ = train_step(state, bad)
  assert int(state.nonfinite_step) == 2
  state, _ = train_step(state, make_batch(2))
  assert int(state.nonfinite_step) == 2
  kept = jax.device_get(state.replace(rng=None))
  expected = good.replace(nonfinite_step=kept.nonfinite_step)
  jax.tree.map(np.testing.assert_array_equal, kept, expected)
  assert int(state.step) == 1


def test_a_poisoned_example_that_is_masked_does_no_harm():
  tx = optax.sgd(0.1)
  batch = make_batch(mask=[True] * 7 + [False])
  clean, _ = step.make_train_step(LinearTask(), tx)(start(tx), batch)
  batch['label'] = batch['label'].at[7].set(1e30)
  dirty, _ = step.make_train_step(LinearTask(), tx)(start(tx), batch)
  np.testing.assert_array_equal(clean.params['w'], dirty.params['w'])


def test_random_numbers_depend_on_the_step_alone():
  class Noisy(LinearTask):
    def loss(self, params, extra, batch, rng, train):
      noise = jax.random.normal(rng, batch['label'].shape)
      return noise + 0 * params['b'], extra, {}

  tx = optax.sgd(0.1)
  train_step = step.make_train_step(Noisy(), tx)
  state = start(tx)
  state1, first = train_step(state, make_batch(0))
  _, second = train_step(state1, make_batch(0))
  _, again = train_step(state, make_batch(5))
  assert first['loss'] != second['loss']
  assert first['loss'] == again['loss']


class TwoStreams(LinearTask):
  """The linear task on two streams, their losses by name."""

  def loss(self, params, extra, batch, rng, train):
    losses, aux = {}, {}
    for name, stream in (('main', ''), ('other', 'other/')):
      out = batch[f'{stream}image'] @ params['w'] + params['b']
      losses[name] = jnp.square(out - batch[f'{stream}label'])
      aux[f'{stream}out'] = out
    return losses, extra, aux


def two_batches():
  """8 examples of which 6 count, and 4 of which 3 do."""
  main = make_batch(0, mask=[True, True, False, True, False, True, True, True])
  other = make_batch(1, size=4, mask=[False, True, True, True])
  return main, other, main | {f'other/{k}': v for k, v in other.items()}


@pytest.mark.parametrize('accum', [1, 2, 4])
def test_losses_by_stream_are_the_sum_of_their_means(accum):
  main, other, batch = two_batches()
  tx = optax.sgd(0.1)
  train_step = jax.jit(
    step.make_train_step(TwoStreams(), tx, accum_steps=accum)
  )
  state, metrics = train_step(start(tx), batch)
  parts = [reference(x, np.arange(1.0, 4), 0.0) for x in (main, other)]
  loss, dw, db = (sum(values) for values in zip(*parts, strict=True))
  np.testing.assert_allclose(metrics['loss'], loss, rtol=1e-6)
  np.testing.assert_allclose(metrics['main/loss'], parts[0][0], rtol=1e-6)
  np.testing.assert_allclose(metrics['other/loss'], parts[1][0], rtol=1e-6)
  np.testing.assert_allclose(
    metrics['grad_norm'], np.sqrt((dw**2).sum() + db**2), rtol=1e-6
  )
  np.testing.assert_allclose(
    state.params['w'], np.arange(1.0, 4) - 0.1 * dw, rtol=1e-6
  )
  for name, of_stream in (('out', main), ('other/out', other)):
    mask = np.asarray(of_stream['_mask'])
    out = np.float64(of_stream['image']) @ np.arange(1.0, 4)
    np.testing.assert_allclose(metrics[name], out[mask].mean(), rtol=1e-5)


def test_what_is_masked_in_a_stream_does_not_count():
  tx = optax.sgd(0.1)
  train_step = step.make_train_step(TwoStreams(), tx)
  _, _, batch = two_batches()
  clean, _ = train_step(start(tx), batch)
  batch['other/label'] = batch['other/label'].at[0].set(1e30)
  dirty, _ = train_step(start(tx), batch)
  np.testing.assert_array_equal(clean.params['w'], dirty.params['w'])


def test_one_stream_by_name_is_as_without_names():
  class Named(LinearTask):
    def loss(self, *args):
      losses, extra, aux = super().loss(*args)
      return {'': losses}, extra, aux

  tx, batch = optax.sgd(0.1), make_batch(mask=[True] * 7 + [False])
  plain, metrics = step.make_train_step(LinearTask(), tx)(start(tx), batch)
  named, same = step.make_train_step(Named(), tx)(start(tx), batch)
  np.testing.assert_array_equal(plain.params['w'], named.params['w'])
  assert same.pop('main/loss') == metrics['loss']
  assert same.keys() == metrics.keys()


@pytest.mark.parametrize(
  ('losses', 'words'),
  [
    ({'othr': 4}, r"the stream 'othr'; valid: 'main'"),
    ({'': 8, 'main': 8}, r"the stream 'main'.*each once"),
    ({'other': 8}, r"the stream 'other' must be .* \[4\], got \[8\]"),
    ({}, 'of no stream'),
  ],
)
def test_losses_of_no_stream_or_another_size_are_refused(losses, words):
  class Wrong(LinearTask):
    def loss(self, params, extra, batch, rng, train):
      zeros = {k: jnp.zeros(n) + params['b'] for k, n in losses.items()}
      return zeros, extra, {}

  tx = optax.sgd(0.1)
  with pytest.raises(ValueError, match=words):
    step.make_train_step(Wrong(), tx)(start(tx), two_batches()[-1])
