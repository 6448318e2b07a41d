"""Losses against dense float64 numpy, on every mesh; what travels between."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType

from big_vision_like.losses import classification
from big_vision_like.models.parts import heads
from big_vision_like.parallel import constraints
from tests import hlo

MESHES = [(8, 1), (4, 2), (2, 4), (1, 8)]
BATCH, FEATURES, CLASSES = 16, 48, 101


def make_mesh(shape):
  return jax.make_mesh(
    shape, ('data', 'model'), axis_types=(AxisType.Auto,) * 2
  )


def problem(classes=CLASSES, seed=0):
  """features, kernel, bias, ids padded with -1, weights of the examples."""
  rng = np.random.default_rng(seed)
  ids = np.full((BATCH, 5), -1, np.int32)
  for row in ids[1:]:  # the first has no label
    count = rng.integers(1, 5)
    row[rng.choice(5, count, replace=False)] = rng.choice(
      classes, count, replace=False
    )
  ids[2, 0], ids[3] = classes - 1, [0, 1, 2, 3, classes - 1]
  return dict(
    features=rng.normal(size=(BATCH, FEATURES)).astype(np.float32),
    kernel=rng.normal(size=(FEATURES, classes)).astype(np.float32),
    bias=rng.normal(size=classes).astype(np.float32),
    ids=ids,
    weights=rng.uniform(0.5, 2, BATCH).astype(np.float32),
  )


def dense_targets(ids, classes):
  targets = np.zeros((len(ids), classes))
  for row, labels in zip(targets, ids):
    row[labels[labels >= 0]] = 1
  return targets


def sigmoid_reference(p):
  """Loss per example and gradients of its weighted sum, in float64."""
  x, w, b = (p[n].astype(np.float64) for n in ('features', 'kernel', 'bias'))
  z = x @ w + b
  y = dense_targets(p['ids'], z.shape[1])
  loss = np.maximum(z, 0) - z * y + np.log1p(np.exp(-np.abs(z)))
  dz = (1 / (1 + np.exp(-z)) - y) * p['weights'][:, None]
  return loss.sum(1), (dz @ w.T, x.T @ dz, dz.sum(0))


def softmax_reference(p, label, smoothing):
  x, w, b = (p[n].astype(np.float64) for n in ('features', 'kernel', 'bias'))
  z = x @ w + b
  classes = z.shape[1]
  y = dense_targets(label[:, None], classes)
  counted = (label >= 0)[:, None]
  y = ((1 - smoothing) * y + smoothing / classes) * counted
  log_q = z - z.max(1, keepdims=True)
  log_q -= np.log(np.exp(log_q).sum(1, keepdims=True))
  dz = (np.exp(log_q) * counted - y) * p['weights'][:, None]
  return -(y * log_q).sum(1), (dz @ w.T, x.T @ dz, dz.sum(0))


def run(shape, p, classes, multiple, loss_fn, labels):
  """(per example, gradients of features, kernel, bias), compiled HLO text."""
  head = heads.ClassifierHead(classes, class_multiple=multiple)
  pad = heads.padded_classes(classes, multiple) - classes

  def objective(features, params):
    logits = head.apply({'params': params}, features)
    loss = loss_fn(logits, labels, classes)
    return jnp.sum(loss * p['weights']), loss

  # Padded columns hold rubbish: it must not matter.
  params = dict(
    kernel=np.pad(p['kernel'], ((0, 0), (0, pad)), constant_values=7),
    bias=np.pad(p['bias'], (0, pad), constant_values=9),
  )
  step = jax.jit(jax.value_and_grad(objective, argnums=(0, 1), has_aux=True))
  if shape is None:
    compiled = step.lower(p['features'], params).compile()
    (_, loss), (dx, grads) = compiled(p['features'], params)
  else:
    mesh = make_mesh(shape)
    with jax.set_mesh(mesh):
      spec = jax.sharding.PartitionSpec
      x = jax.device_put(p['features'], spec(constraints.BATCH))
      params = jax.device_put(
        params, dict(kernel=spec(None, 'model'), bias=spec('model'))
      )
      compiled = step.lower(x, params).compile()
      (_, loss), (dx, grads) = compiled(x, params)
  return loss, (dx, grads['kernel'], grads['bias']), compiled.as_text()


def assert_matches(actual, expected, classes):
  loss, (dx, dw, db) = actual
  want_loss, (want_dx, want_dw, want_db) = expected
  scale = lambda a: 2e-6 * np.abs(a).max()  # float32 sums of up to 1e4 terms
  close = lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=scale(b))
  close(loss, want_loss)
  close(dx, want_dx)
  close(dw[:, :classes], want_dw)
  close(db[:classes], want_db)
  assert not np.any(dw[:, classes:])
  assert not np.any(db[classes:])


def assert_logits_stay(text, shape):
  """Only rows of features, ids and sums travel, and gradients of params."""
  found = hlo.collectives(text)
  if shape is None:
    assert not found
    return
  assert found  # the parser sees something
  data, model = shape
  for collective in found:
    if {CLASSES, 104, 104 // model} & set(collective.shape):
      # Parameter gradients, summed over 'data'.
      assert data > 1
      assert sorted(collective.shape) in [
        sorted([FEATURES, 104 // model]),
        [104 // model],
      ], collective
    else:
      assert math.prod(collective.shape) <= BATCH * FEATURES, collective


@pytest.mark.parametrize('shape', [None, *MESHES])
def test_sigmoid_is_dense_reference(shape):
  p = problem()
  *actual, text = run(
    shape, p, CLASSES, 8, classification.sigmoid_sparse, p['ids']
  )
  assert_matches(actual, sigmoid_reference(p), CLASSES)
  assert_logits_stay(text, shape)


@pytest.mark.parametrize('shape', [(4, 2), (1, 8)])
def test_sigmoid_at_the_papers_size(shape):
  classes = 18_291
  p = problem(classes)
  *actual, _ = run(
    shape, p, classes, 200, classification.sigmoid_sparse, p['ids']
  )
  assert actual[1][1].shape == (FEATURES, 18_400)
  assert_matches(actual, sigmoid_reference(p), classes)


@pytest.mark.parametrize('smoothing', [0.0, 0.1])
@pytest.mark.parametrize('shape', [None, *MESHES])
def test_softmax_is_dense_reference(shape, smoothing):
  p = problem()
  label = np.array([-1, 0, 100, 50, 51, 25, *range(10, 20)], np.int32)

  def loss_fn(logits, label, classes):
    return classification.softmax_sparse(logits, label, classes, smoothing)

  *actual, text = run(shape, p, CLASSES, 8, loss_fn, label)
  assert_logits_stay(text, shape)
  assert_matches(actual, softmax_reference(p, label, smoothing), CLASSES)
  assert actual[0][0] == 0
  assert not np.any(actual[1][0][0])


def test_hlo_parser_sees_gathered_logits():
  """The check above can fail: logits gathered on purpose are found."""
  mesh = make_mesh((2, 4))
  with jax.set_mesh(mesh):
    spec = jax.sharding.PartitionSpec
    x = jax.device_put(np.ones((16, 104), np.float32), spec('data', 'model'))
    gathered = jax.jit(
      lambda x: constraints.constrain(jnp.sin(x), 'data', None)
    )
    text = gathered.lower(x).compile().as_text()
  assert ('all-gather', (8, 104)) in hlo.collectives(text)


def test_hlo_parser_reads_tuples_and_starts():
  text = """
  %a = (f32[32,8]{1,0}, bf16[4]{0}) all-reduce(%x, %y), channel_id=1
  %b = f32[2,3]{1,0:T(8,128)} all-gather-start(%x), dimensions={0}
  %c = f32[] add(%all-reduce.1, %d)
  """
  assert hlo.collectives(text) == [
    ('all-reduce', (32, 8)),
    ('all-reduce', (4,)),
    ('all-gather', (2, 3)),
  ]


def test_inside_shard_map_each_device_sees_its_own_rows():
  """Where the mesh's axes are manual already, the plain code runs."""
  p = problem()
  logits = p['features'] @ p['kernel'] + p['bias']
  rows = jax.sharding.PartitionSpec(constraints.BATCH)
  with jax.set_mesh(make_mesh((2, 4))):
    fn = jax.shard_map(
      lambda z, i: classification.sigmoid_sparse(z, i, CLASSES),
      in_specs=(rows, rows),
      out_specs=rows,
    )
    actual = jax.jit(fn)(logits, p['ids'])
  expected = sigmoid_reference(p)[0]
  np.testing.assert_allclose(actual, expected, rtol=2e-6)


def test_sigmoid_agrees_with_optax():
  p = problem()
  logits = jnp.asarray(p['features'] @ p['kernel'] + p['bias'])
  dense = jnp.asarray(dense_targets(p['ids'], CLASSES), jnp.float32)
  expected = optax.sigmoid_binary_cross_entropy(logits, dense).sum(1)
  actual = classification.sigmoid_sparse(logits, p['ids'], CLASSES)
  np.testing.assert_allclose(actual, expected, rtol=1e-6)


def test_mean_classes_divides_by_the_true_number():
  p = problem()
  logits = jnp.pad(p['features'] @ p['kernel'], ((0, 0), (0, 3)))
  total = classification.sigmoid_sparse(logits, p['ids'], CLASSES)
  mean = classification.sigmoid_sparse(
    logits, p['ids'], CLASSES, 'mean_classes'
  )
  np.testing.assert_allclose(mean, total / CLASSES, rtol=1e-6)


def test_extreme_logits_are_stable():
  """softplus(z) - z y at |z| = 1e4, and its gradient, without overflow."""
  logits = jnp.array([[1e4, -1e4, 0.0], [1e4, -1e4, 0.0]])
  ids = jnp.array([[0, -1], [1, -1]], jnp.int32)
  loss, grad = jax.vmap(
    jax.value_and_grad(
      lambda z, i: classification.sigmoid_sparse(z[None], i[None], 3)[0]
    )
  )(logits, ids)
  rounding = 2e4 * 2**-23  # of the largest term of the sum
  np.testing.assert_allclose(
    loss, [math.log(2), 2e4 + math.log(2)], rtol=0, atol=rounding
  )
  np.testing.assert_array_equal(grad, [[0, 0, 0.5], [1, -1, 0.5]])
  loss = classification.softmax_sparse(logits, jnp.array([0, 1]), 3)
  np.testing.assert_array_equal(loss, [0, 2e4])


@pytest.mark.parametrize('shape', [None, (2, 4)])
def test_ids_outside_the_classes_contribute_nothing(shape):
  """Padded columns, beyond them, and below zero: never another class."""
  p = problem()
  p['ids'][:, 1:] = -1
  stray = p['ids'].copy()
  stray[:, 1:] = [CLASSES, 104, 10**6, -2]
  clean = run(shape, p, CLASSES, 8, classification.sigmoid_sparse, p['ids'])
  dirty = run(shape, p, CLASSES, 8, classification.sigmoid_sparse, stray)
  np.testing.assert_array_equal(clean[0], dirty[0])
  for a, b in zip(clean[1], dirty[1]):
    np.testing.assert_array_equal(a, b)


def test_repeated_id_counts_per_occurrence():
  logits = jnp.array([[0.5, -1.0, 2.0]])
  once = classification.sigmoid_sparse(logits, jnp.array([[2, -1]]), 3)
  twice = classification.sigmoid_sparse(logits, jnp.array([[2, 2]]), 3)
  np.testing.assert_allclose(once - twice, [2.0], rtol=1e-6)


def test_softmax_label_outside_gives_zero():
  logits = jnp.zeros((3, 4))
  loss = classification.softmax_sparse(logits, jnp.array([3, 2, -1]), 3)
  np.testing.assert_allclose(loss, [0, math.log(3), 0], rtol=1e-6)


@pytest.mark.parametrize(
  'call, message',
  [
    (
      lambda z, i: classification.sigmoid_sparse(z, i, 3, 'mean'),
      'sum_classes',
    ),
    (lambda z, i: classification.sigmoid_sparse(z, i, 5), 'at least 5'),
    (lambda z, i: classification.sigmoid_sparse(z, i[:, 0], 3), 'rank 2'),
    (lambda z, i: classification.sigmoid_sparse(z, i[:1], 3), 'batch size'),
    (lambda z, i: classification.sigmoid_sparse(z, i * 1.0, 3), 'integers'),
    (lambda z, i: classification.softmax_sparse(z, i, 3), 'rank 1'),
    (
      lambda z, i: classification.softmax_sparse(z, i[:, 0], 3, 1.0),
      'smoothing',
    ),
  ],
)
def test_wrong_arguments_are_named(call, message):
  with pytest.raises(ValueError, match=message):
    call(jnp.zeros((2, 4)), jnp.zeros((2, 3), jnp.int32))


def test_indivisible_class_axis_is_named():
  mesh = make_mesh((2, 4))
  with (
    jax.set_mesh(mesh),
    pytest.raises(ValueError, match=r'is 101, .*class_multiple'),
  ):
    jax.jit(classification.sigmoid_sparse, static_argnums=2)(
      jnp.zeros((16, 101)), jnp.zeros((16, 2), jnp.int32), 101
    )
