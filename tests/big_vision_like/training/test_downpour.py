"""Asynchronous workers against rollouts by hand, and against one worker."""

import heapq
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from big_vision_like.training import downpour, optim, step
from tests.big_vision_like.training.test_step import (
  LinearTask,
  TwoStreams,
  make_batch,
  reference,
  two_batches,
)

LR, MOMENTUM = 0.1, 0.9


def start(options, tx):
  init = downpour.make_init(
    step.make_init(LinearTask().init, tx, ema=False), options
  )
  return init(jax.random.key(0), make_batch())


def pushes(options, num, tx=None, **kwargs):
  """(final state, losses, staleness, who pushed) of `num` steps."""
  tx = tx or optax.sgd(LR, momentum=MOMENTUM)
  train_step = downpour.make_train_step(LinearTask(), tx, options, **kwargs)
  state, losses, staleness, order = start(options, tx), [], [], []
  for t in range(num):
    before = np.asarray(state.workers.version)
    state, metrics = train_step(state, make_batch(t))
    losses.append(float(metrics['loss']))
    staleness.append(int(metrics['staleness']))
    changed = np.flatnonzero(np.asarray(state.workers.version) != before)
    assert len(changed) == 1, 'one worker fetches at a step'
    order.append(int(changed[0]))
  return state, losses, staleness, order


def rollout(order, num_workers, *, coupled=0.0, decoupled=0.0, momentum=0.0):
  """The same in float64 numpy: (weights, losses, staleness, copies)."""
  weights, slot = np.array([1.0, 2.0, 3.0, 0.0]), np.zeros(4)
  held = [weights] * num_workers
  fetched = [0] * num_workers
  losses, staleness = [], []
  for t, worker in enumerate(order):
    own = held[worker]
    loss, dw, db = reference(make_batch(t), own[:3], own[3])
    slot = momentum * slot + np.append(dw, db) + coupled * own
    weights = weights - LR * (slot + decoupled * weights)
    losses.append(loss)
    staleness.append(t - fetched[worker])
    held[worker], fetched[worker] = weights, t + 1
  return weights, losses, staleness, np.stack(held)


def flat(params):
  return np.concatenate([params['w'], np.asarray(params['b'])[..., None]], -1)


def agrees(got, expected):
  state, losses, staleness, _ = got
  weights, losses64, staleness64, held = expected
  np.testing.assert_allclose(losses, losses64, rtol=1e-5)
  assert staleness == staleness64
  np.testing.assert_allclose(flat(state.params), weights, rtol=1e-5)
  np.testing.assert_allclose(flat(state.workers.params), held, rtol=1e-5)


@pytest.mark.parametrize('num', [1, 2, 5])
def test_round_robin(num):
  got = pushes(downpour.Options(num), 12)
  assert got[3] == [t % num for t in range(12)]
  assert got[2][num:] == [num - 1] * (12 - num)
  assert got[2][:num] == list(range(num))
  agrees(got, rollout(got[3], num, momentum=MOMENTUM))


@pytest.mark.parametrize('num', [1, 3])
def test_a_push_is_of_a_batch_of_every_stream(num):
  """Two steps: of one worker, and of two that hold the first weights."""
  options, tx = downpour.Options(num), optax.sgd(LR)
  train_step = downpour.make_train_step(TwoStreams(), tx, options)
  main, other, batch = two_batches()
  state, held = start(options, tx), np.array([1.0, 2.0, 3.0, 0.0])
  weights = held
  for _ in range(2):
    state, metrics = train_step(state, batch)
    own = weights if num == 1 else held
    losses, dw, db = zip(
      *(reference(x, own[:3], own[3]) for x in (main, other)), strict=True
    )
    weights = weights - LR * np.append(sum(dw), sum(db))
    np.testing.assert_allclose(metrics['loss'], sum(losses), rtol=1e-5)
    np.testing.assert_allclose(metrics['other/loss'], losses[1], rtol=1e-5)
  np.testing.assert_allclose(flat(state.params), weights, rtol=1e-5)


def test_random_draws_every_worker_and_never_in_turn():
  got = pushes(downpour.Options(4, policy='random'), 40)
  order = got[3]
  assert sorted(set(order)) == [0, 1, 2, 3]
  assert min(np.bincount(order)) >= 4
  assert any(a == b for a, b in itertools.pairwise(order))
  agrees(got, rollout(order, 4, momentum=MOMENTUM))


def test_event_is_a_priority_queue(monkeypatch):
  times = np.random.default_rng(3).lognormal(0, 0.8, 23).astype(np.float32)
  drawn = iter(times)

  def draw(key, options, shape):
    values = [next(drawn) for _ in range(int(np.prod(shape)))]
    return jnp.asarray(values).reshape(shape)

  monkeypatch.setattr(downpour, '_draw_times', draw)
  got = pushes(downpour.Options(3, policy='event'), 20)
  queue = [(float(time), i) for i, time in enumerate(times[:3])]
  heapq.heapify(queue)
  order = []
  for time in times[3:]:
    now, worker = heapq.heappop(queue)
    order.append(worker)
    heapq.heappush(queue, (now + float(time), worker))
  assert got[3] == order
  assert order != [t % 3 for t in range(20)]
  agrees(got, rollout(order, 3, momentum=MOMENTUM))


def test_times_are_log_normal():
  options = downpour.Options(1, policy='event', event_sigma=0.5)
  logs = np.log(downpour._draw_times(jax.random.key(0), options, (10_000,)))
  assert abs(logs.mean()) < 0.02
  assert abs(logs.std() - 0.5) < 0.02


def test_equal_times_are_a_round_robin():
  event = downpour.Options(3, policy='event', event_sigma=0.0)
  got, expected = pushes(event, 9), pushes(downpour.Options(3), 9)
  assert got[1:] == expected[1:]
  jax.tree.map(np.testing.assert_array_equal, got[0].params, expected[0].params)


@pytest.mark.parametrize('policy', ['round_robin', 'random', 'event'])
def test_one_worker_is_the_synchronous_step(policy):
  tx = optax.sgd(LR, momentum=MOMENTUM)
  options = downpour.Options(1, policy=policy)
  got, losses, staleness, _ = pushes(options, 6, tx)
  state = step.make_init(LinearTask().init, tx, ema=False)(
    jax.random.key(0), make_batch()
  )
  train_step = step.make_train_step(LinearTask(), tx)
  for t in range(6):
    state, metrics = train_step(state, make_batch(t))
    assert losses[t] == float(metrics['loss'])
  assert staleness == [0] * 6
  same(got.replace(workers=None), state)


@pytest.mark.parametrize('decoupled', [False, True])
def test_weight_decay_is_the_workers_or_the_servers(decoupled):
  config = dict(
    type='sgd', weight_decay=0.3, weight_decay_on='all', decoupled=decoupled
  )
  params = LinearTask().init(None, make_batch())[0]
  tx = optim.build(config, lambda _: LR, params)
  got = pushes(downpour.Options(3, decay_of_server=decoupled), 9, tx)
  name = 'decoupled' if decoupled else 'coupled'
  agrees(got, rollout(got[3], 3, **{name: 0.3}))


@pytest.mark.parametrize('bn_updates, calls', [('all', 7), ('first', 3)])
def test_whose_batches_move_the_statistics(bn_updates, calls):
  state, *_ = pushes(downpour.Options(3, bn_updates=bn_updates), 7)
  assert int(state.extra['calls']) == calls


def test_accumulation_and_averages():
  whole = pushes(downpour.Options(2), 5)[0]
  parts = pushes(downpour.Options(2), 5, accum_steps=4)[0]
  np.testing.assert_allclose(flat(parts.params), flat(whole.params), rtol=1e-5)
  tx, options = optax.sgd(LR), downpour.Options(2)
  init = step.make_init(LinearTask().init, tx, ema=True)
  state = downpour.make_init(init, options)(jax.random.key(0), make_batch())
  ema = flat(state.params).astype(np.float64)
  train_step = downpour.make_train_step(
    LinearTask(), tx, options, ema_decay=0.7
  )
  for t in range(4):
    state, _ = train_step(state, make_batch(t))
    ema = 0.7 * ema + 0.3 * flat(state.params)
  np.testing.assert_allclose(flat(state.ema), ema, rtol=1e-5)


@pytest.mark.parametrize('policy', ['round_robin', 'random', 'event'])
def test_non_finite_push_freezes_servers_and_workers(policy):
  tx = optax.sgd(LR, momentum=MOMENTUM)
  options = downpour.Options(3, policy=policy)
  train_step = jax.jit(downpour.make_train_step(LinearTask(), tx, options))
  state = start(options, tx)
  for t in range(4):
    state, _ = train_step(state, make_batch(t))
  good = state
  bad = make_batch(4)
  bad['image'] = bad['image'].at[2, 1].set(np.nan)
  for batch in (bad, make_batch(5), make_batch(6)):
    state, _ = train_step(state, batch)
    assert int(state.nonfinite_step) == 5
  same(state, good.replace(nonfinite_step=state.nonfinite_step))


def test_refetch_gives_all_workers_the_servers_weights():
  state, *_ = pushes(downpour.Options(3), 5)
  assert len(set(np.asarray(state.workers.params['b']).tolist())) == 3
  fresh = downpour.refetch(state)
  np.testing.assert_array_equal(
    flat(fresh.workers.params), np.tile(flat(state.params), (3, 1))
  )
  sync = state.replace(workers=None)
  assert downpour.refetch(sync) is sync


@pytest.mark.parametrize(
  'options, words',
  [
    (dict(workers=0), r'train\.downpour\.workers=0 must be int of at least'),
    (dict(policy='fifo'), r"policy='fifo'; valid: round_robin, random, event"),
    (dict(bn_updates='none'), r"bn_updates='none'; valid: all, first"),
    (dict(event_sigma=-1.0), r'event_sigma=-1\.0 must be float of at least 0'),
    (dict(event_sigma=np.nan), r'event_sigma=nan must be'),
  ],
)
def test_options_are_checked(options, words):
  with pytest.raises(ValueError, match=words):
    downpour.Options(**{'workers': 2, **options})


def same(left, right):
  """Equal to the bit, keys too."""
  for a, b in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
    if jax.dtypes.issubdtype(a.dtype, jax.dtypes.prng_key):
      a, b = jax.random.key_data(a), jax.random.key_data(b)
    np.testing.assert_array_equal(np.asarray(a), np.asarray(b))
