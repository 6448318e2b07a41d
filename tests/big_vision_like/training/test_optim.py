"""Optimisers against float64 numpy rollouts, optax and torch."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from big_vision_like.training import optim, schedules

STEPS = 25
SCHEDULE = schedules.build(
  dict(type='staircase', lr=0.1, factor=0.5, decay_steps=7), STEPS, 1
)
PATHS = (
  'backbone/bn1/scale',
  'backbone/conv1/kernel',
  'head/bias',
  'head/kernel',
)


def lr_at(t):
  return 0.1 * 0.5 ** (t // 7)


def make_params(seed=0):
  rng = np.random.default_rng(seed)
  draw = lambda *shape: rng.normal(size=shape).astype(np.float32)
  return {
    'backbone': {
      'bn1': {'scale': draw(4)},
      'conv1': {'kernel': draw(3, 3, 2, 4)},
    },
    'head': {'bias': draw(5), 'kernel': draw(4, 5)},
  }


def flat(tree):
  paths = jax.tree.leaves(optim.param_paths(tree))
  return dict(zip(paths, jax.tree.leaves(tree)))


def make_grads(params):
  """STEPS trees of gradients, of sizes from 1e-3 to 1e1."""
  rng = np.random.default_rng(7)
  return [
    jax.tree.map(
      lambda p: (rng.normal(size=p.shape) * 10 ** rng.uniform(-3, 1)).astype(
        np.float32
      ),
      params,
    )
    for _ in range(STEPS)
  ]


def rollout(cfg, params=None):
  """Params after STEPS updates of `cfg`, and the last state."""
  params = make_params() if params is None else params
  grads = make_grads(params)
  tx = optim.build(cfg, SCHEDULE, params)
  state = tx.init(params)

  @jax.jit
  def step(params, state, grads):
    updates, state = tx.update(grads, state, params)
    return optax.apply_updates(params, updates), state

  for gradient in grads:
    params, state = step(params, state, gradient)
  return params, state


def exact_rollout(rule, prepare=lambda grads, weights: grads, after=None):
  """The same in float64: rule(w, g, slots, lr, t) -> w, for each parameter."""
  params = make_params()
  weights = {n: w.astype(np.float64) for n, w in flat(params).items()}
  slots = {n: {} for n in weights}
  for t, tree in enumerate(make_grads(params)):
    grads = {n: g.astype(np.float64) for n, g in flat(tree).items()}
    grads = prepare(grads, weights)
    for n in weights:
      weights[n] = rule(weights[n], grads[n], slots[n], lr_at(t), t)
  return weights


def tf_rmsprop(rho=0.9, mu=0.9, epsilon=1.0, initial_ms=1.0):
  def rule(w, g, slots, lr, t):
    ms = slots.get('ms', np.full_like(w, initial_ms))
    slots['ms'] = rho * ms + (1 - rho) * g * g
    mom = mu * slots.get('mom', 0.0) + lr * g / np.sqrt(slots['ms'] + epsilon)
    slots['mom'] = mom
    return w - mom

  return rule


def tf_momentum(mu=0.9, nesterov=False):
  def rule(w, g, slots, lr, t):
    slots['a'] = mu * slots.get('a', 0.0) + g
    return w - lr * (g + mu * slots['a'] if nesterov else slots['a'])

  return rule


def adam_rule(w, g, slots, lr, t):
  slots['m'] = 0.9 * slots.get('m', 0.0) + 0.1 * g
  slots['v'] = 0.999 * slots.get('v', 0.0) + 0.001 * g * g
  m = slots['m'] / (1 - 0.9 ** (t + 1))
  v = slots['v'] / (1 - 0.999 ** (t + 1))
  return w - lr * m / (np.sqrt(v) + 1e-8)


def assert_close(params, expected, rtol=1e-5, atol=1e-5):
  """Float32 after 25 steps; weights are of order 1 and above."""
  got = flat(params)
  assert got.keys() == expected.keys()
  for name, value in expected.items():
    np.testing.assert_allclose(got[name], value, rtol, atol, err_msg=name)


@pytest.mark.parametrize(
  'cfg, rule',
  [
    (dict(type='rmsprop'), tf_rmsprop()),
    (
      dict(
        type='rmsprop', decay=0.8, momentum=0.5, epsilon=1e-3, initial_ms=0.0
      ),
      tf_rmsprop(0.8, 0.5, 1e-3, 0.0),
    ),
    (dict(type='momentum'), tf_momentum()),
    (dict(type='momentum', momentum=0.7), tf_momentum(0.7)),
    (dict(type='momentum', nesterov=True), tf_momentum(nesterov=True)),
    (dict(type='sgd'), lambda w, g, slots, lr, t: w - lr * g),
    (dict(type='adam'), adam_rule),
  ],
)
def test_float64_rollout(cfg, rule):
  params, state = rollout(cfg)
  assert_close(params, exact_rollout(rule))
  assert int(state.count) == STEPS
  assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(params))


def test_rmsprop_slots_start_at_one_and_zero():
  params = make_params()
  state = optim.build({'type': 'rmsprop'}, SCHEDULE, params).init(params)
  slots = optim.slot_trees(state)
  assert slots.keys() == {'rms/nu', 'momentum/trace'}
  assert all(np.all(s == 1) for s in jax.tree.leaves(slots['rms/nu']))
  assert all(np.all(s == 0) for s in jax.tree.leaves(slots['momentum/trace']))
  assert tuple(flat(slots['rms/nu'])) == PATHS


def test_rmsprop_first_steps_by_hand():
  """g = 2, lr = 0.1 then 0.05, epsilon 1: written out."""
  params = {'w': jnp.array([3.0])}
  rate = lambda step: jnp.where(step == 0, 0.1, 0.05)
  tx = optim.build({'type': 'rmsprop'}, rate, params)
  state = tx.init(params)
  g = {'w': jnp.array([2.0])}
  one, state = tx.update(g, state, params)
  # ms = .9 + .1 * 4 = 1.3; mom = .1 * 2 / sqrt(2.3)
  np.testing.assert_allclose(one['w'], [-0.131876], rtol=1e-5)
  two, _ = tx.update(g, state, params)
  # ms = .9 * 1.3 + .4 = 1.57; mom = .9 * .131876 + .05 * 2 / sqrt(2.57)
  np.testing.assert_allclose(two['w'], [-0.181067], rtol=1e-5)


def optax_rollout(tx):
  params = make_params()
  state = tx.init(params)
  for grads in make_grads(params):
    updates, state = tx.update(grads, state, params)
    params = optax.apply_updates(params, updates)
  return {n: np.asarray(w) for n, w in flat(params).items()}


@pytest.mark.parametrize(
  'cfg, theirs',
  [
    (dict(type='momentum'), optax.sgd(SCHEDULE, 0.9)),
    (dict(type='momentum', nesterov=True), optax.sgd(SCHEDULE, 0.9, True)),
    (dict(type='adam'), optax.adam(SCHEDULE)),
    (
      dict(
        type='adam', weight_decay=0.1, weight_decay_on='all', decoupled=True
      ),
      optax.adamw(SCHEDULE, weight_decay=0.1),
    ),
    (
      # Rate inside the buffer: scale by it before the trace.
      dict(type='rmsprop'),
      optax.chain(
        optax.scale_by_rms(0.9, eps=1.0, initial_scale=1.0),
        optax.scale_by_learning_rate(SCHEDULE),
        optax.trace(0.9),
      ),
    ),
    (
      dict(type='momentum', clip=('global_norm', 2.0)),
      optax.chain(optax.clip_by_global_norm(2.0), optax.sgd(SCHEDULE, 0.9)),
    ),
  ],
)
def test_agrees_with_optax(cfg, theirs):
  assert_close(rollout(cfg)[0], optax_rollout(theirs))


@pytest.mark.parametrize('nesterov', [False, True])
def test_momentum_agrees_with_torch(nesterov):
  torch = pytest.importorskip('torch')
  params = make_params()
  weights = {n: torch.tensor(w) for n, w in flat(params).items()}
  theirs = torch.optim.SGD(
    list(weights.values()), lr=0.1, momentum=0.9, nesterov=nesterov
  )
  for t, tree in enumerate(make_grads(params)):
    theirs.param_groups[0]['lr'] = lr_at(t)
    for n, g in flat(tree).items():
      weights[n].grad = torch.tensor(g)
    theirs.step()
  ours, _ = rollout(dict(type='momentum', nesterov=nesterov))
  assert_close(ours, {n: w.numpy() for n, w in weights.items()})


@pytest.mark.parametrize('on', ['kernels', 'all'])
def test_coupled_weight_decay(on):
  def add_l2(grads, weights):
    return {
      n: g + 0.1 * weights[n] if on == 'all' or n.endswith('kernel') else g
      for n, g in grads.items()
    }

  cfg = dict(type='rmsprop', weight_decay=0.1, weight_decay_on=on)
  expected = exact_rollout(tf_rmsprop(), add_l2)
  assert_close(rollout(cfg)[0], expected)


def test_coupled_is_gradient_of_half_the_squared_norm():
  """weight_decay 1e-4 stands for the loss term 1e-4 * sum(w^2) / 2."""
  params = make_params()
  zero = jax.tree.map(jnp.zeros_like, params)
  cfg = dict(type='sgd', weight_decay=1e-4)
  tx = optim.build(cfg, lambda step: 1.0, params)
  updates, _ = tx.update(zero, tx.init(params), params)

  def term(params):
    kernels = [w for n, w in flat(params).items() if n.endswith('kernel')]
    return sum(1e-4 * 0.5 * jnp.sum(w**2) for w in kernels)

  expected = flat(jax.grad(term)(params))
  for name, update in flat(updates).items():
    np.testing.assert_allclose(-update, expected[name], rtol=1e-6)


def test_decoupled_weight_decay():
  base = tf_momentum()

  def rule(w, g, slots, lr, t):
    return base(w, g, slots, lr, t) - (lr * 0.1 * w if w.ndim > 1 else 0.0)

  cfg = dict(type='momentum', weight_decay=0.1, decoupled=True)
  assert_close(rollout(cfg)[0], exact_rollout(rule))


@pytest.mark.parametrize('kind', ['global_norm', 'per_tensor'])
def test_clipping_comes_after_l2(kind):
  limit = 1.5

  def prepare(grads, weights):
    grads = {
      n: g + 0.1 * weights[n] * n.endswith('kernel') for n, g in grads.items()
    }
    norms = {n: np.sqrt(np.sum(g * g)) for n, g in grads.items()}
    if kind == 'global_norm':
      whole = np.sqrt(sum(v * v for v in norms.values()))
      norms = dict.fromkeys(norms, whole)
    return {n: g * min(1, limit / norms[n]) for n, g in grads.items()}

  cfg = dict(type='momentum', weight_decay=0.1, clip=[kind, limit])
  assert_close(rollout(cfg)[0], exact_rollout(tf_momentum(), prepare))


@pytest.mark.parametrize('kind', ['global_norm', 'per_tensor'])
def test_clipping_leaves_small_and_zero_gradients(kind):
  params = {'a': jnp.array([3.0, 4.0]), 'b': jnp.zeros(2)}
  grads = {'a': jnp.array([0.3, 0.4]), 'b': jnp.zeros(2)}
  cfg = dict(type='sgd', clip=(kind, 1.0))
  tx = optim.build(cfg, lambda step: 1.0, params)
  updates, _ = tx.update(grads, tx.init(params), params)
  np.testing.assert_array_equal(updates['a'], -grads['a'])
  np.testing.assert_array_equal(updates['b'], [0, 0])


@pytest.mark.parametrize('kind', ['rmsprop', 'momentum', 'adam', 'sgd'])
def test_frozen_parameters_never_change_and_have_no_slots(kind):
  cfg = dict(
    type=kind,
    freeze=['backbone/.*'],
    weight_decay=0.1,
    weight_decay_on='all',
    decoupled=True,
  )
  params, state = rollout(cfg)
  start = make_params()
  for name, value in flat(start['backbone']).items():
    np.testing.assert_array_equal(flat(params['backbone'])[name], value)
  assert np.all(params['head']['kernel'] != start['head']['kernel'])
  slots = optim.slot_trees(state)
  num = {'rmsprop': 2, 'momentum': 1, 'adam': 2, 'sgd': 0}
  assert len(slots) == num[kind]
  for slot in slots.values():
    assert list(flat(slot)) == ['head/bias', 'head/kernel']


def test_frozen_gradients_do_not_count_in_the_global_norm():
  params = {'a': {'w': jnp.zeros(1)}, 'b': {'w': jnp.zeros(1)}}
  grads = {'a': {'w': jnp.array([1e6])}, 'b': {'w': jnp.array([0.5])}}
  cfg = dict(type='sgd', clip=('global_norm', 1.0), freeze=['a/w'])
  tx = optim.build(cfg, lambda step: 1.0, params)
  updates, _ = tx.update(grads, tx.init(params), params)
  assert updates['b']['w'] == -0.5 and updates['a']['w'] == 0


def test_lr_multipliers_first_match_counts():
  cfg = dict(
    type='rmsprop',
    lr_multipliers=[('head/bias', 20.0), ('head/.*', 10.0)],
  )
  factors = dict(zip(PATHS, (1.0, 1.0, 20.0, 10.0)))
  names = iter(PATHS * STEPS)
  base = tf_rmsprop()

  def rule(w, g, slots, lr, t):
    return base(w, g, slots, lr * factors[next(names)], t)

  assert_close(rollout(cfg)[0], exact_rollout(rule))


def test_ema_formula():
  """ema <- d ema + (1 - d) p, 20 steps, against float64."""
  rng = np.random.default_rng(0)
  ema, exact = {'w': jnp.ones(5)}, np.ones(5)
  for _ in range(20):
    p = rng.normal(size=5).astype(np.float32)
    ema = optim.ema_update(ema, {'w': p}, 0.97)
    exact = 0.97 * exact + 0.03 * p
  np.testing.assert_allclose(ema['w'], exact, rtol=1e-5, atol=1e-6)
  same = optim.ema_update({'w': p}, {'w': p}, 0.9999)
  np.testing.assert_array_equal(same['w'], p)


def test_param_paths():
  paths = optim.param_paths(make_params())
  assert paths['backbone']['conv1']['kernel'] == 'backbone/conv1/kernel'
  assert tuple(jax.tree.leaves(paths)) == PATHS


def test_builds_from_shapes_alone():
  shapes = jax.eval_shape(lambda: jax.tree.map(jnp.asarray, make_params()))
  tx = optim.build({'type': 'rmsprop'}, SCHEDULE, shapes)
  slots = optim.slot_trees(jax.eval_shape(tx.init, shapes))
  assert slots['rms/nu']['head']['bias'].shape == (5,)


@pytest.mark.parametrize(
  'cfg, message',
  [
    (dict(type='rmsprob'), "optim.type.*did you mean 'rmsprop'"),
    (dict(), 'optim.type.*rmsprop, momentum, sgd, adam'),
    (dict(type='rmsprop', rho=0.9), 'optim.rho: unknown.*decay.*freeze'),
    (dict(type='sgd', momentum=0.9), 'optim.momentum: unknown.*sgd takes'),
    (
      dict(type='rmsprop', decay=1.0),
      r'optim.decay=1.0 must be float in \[0, 1\)',
    ),
    (dict(type='rmsprop', decay=-0.1), 'optim.decay=-0.1 must'),
    (dict(type='rmsprop', momentum=1.5), 'optim.momentum=1.5 must'),
    (dict(type='rmsprop', epsilon=0), 'optim.epsilon=0 must be float above 0'),
    (dict(type='rmsprop', epsilon='1'), "optim.epsilon='1' must be float"),
    (dict(type='rmsprop', initial_ms=-1), 'optim.initial_ms=-1 must be'),
    (dict(type='momentum', nesterov=1), 'optim.nesterov=1 must be bool'),
    (dict(type='adam', beta2=1), r'optim.beta2=1 must be float in \[0, 1\)'),
    (
      dict(type='sgd', weight_decay=-1e-4),
      'optim.weight_decay=-0.0001 must be float of at least 0',
    ),
    (dict(type='sgd', weight_decay=float('nan')), 'weight_decay=nan must be'),
    (dict(type='sgd', weight_decay=float('inf')), 'weight_decay=inf must be'),
    (
      dict(type='sgd', weight_decay_on='conv'),
      "optim.weight_decay_on='conv'; valid: kernels, all",
    ),
    (dict(type='sgd', decoupled='no'), "optim.decoupled='no' must be bool"),
    (dict(type='sgd', clip=1.0), r"optim.clip=1.0 must be \('global_norm' or"),
    (
      dict(type='sgd', clip=('norm', 1.0)),
      r"clip=\('norm', 1.0\) must be \('global_norm' or 'per_tensor', float",
    ),
    (
      dict(type='sgd', clip=('global_norm', 0)),
      r'optim.clip=.*float above 0\)',
    ),
    (dict(type='sgd', freeze=['backbon/.*']), 'optim.freeze.*backbone, head'),
    (dict(type='sgd', freeze=['backbone']), 'optim.freeze.*as a whole'),
    (
      dict(type='sgd', freeze='head/.*'),
      "optim.freeze='head/.*' must be list of str",
    ),
    (dict(type='sgd', freeze=['(']), 'not a regular expression'),
    (dict(type='sgd', freeze=['.*']), 'leaves no parameter'),
    (
      dict(type='sgd', lr_multipliers=[('tail/.*', 2.0)]),
      'optim.lr_multipliers.*backbone, head',
    ),
    (
      dict(type='sgd', lr_multipliers=[('head/.*', -2.0)]),
      r'optim.lr_multipliers=.*-2.0.* must be list of \(str, float of at',
    ),
    (
      dict(type='sgd', lr_multipliers=['head/.*']),
      r'optim.lr_multipliers=.* must be list of \(str, float',
    ),
  ],
)
def test_mistakes_are_named(cfg, message):
  with pytest.raises(ValueError, match=message):
    optim.build(cfg, SCHEDULE, make_params())


def test_update_without_params_is_refused():
  params = make_params()
  tx = optim.build({'type': 'sgd'}, SCHEDULE, params)
  with pytest.raises(ValueError, match='needs the params'):
    tx.update(params, tx.init(params))
