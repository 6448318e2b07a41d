"""The logistic loss with unknown labels and confidences.

The formula of docs/label-states.md as a dense float64 array is the reference,
on every mesh; a second check is automatic differentiation of that array.
"""

import itertools
import math
from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from big_vision_like import experiment
from big_vision_like.losses import classification
from input_pipeline.labels.space import LabelSpace
from tests import hlo, tiny
from tests.big_vision_like.losses import test_classification as plain

CLASSES = 101
MODES = list(
  itertools.product(
    get_args(classification.Unknown), get_args(classification.Confidence)
  )
)


def problem(classes=CLASSES):
  """`plain.problem` with confidences [B, L] and negatives [B, 7]."""
  p = plain.problem(classes)
  rng = np.random.default_rng(1)
  p['conf'] = rng.uniform(0, 1, p['ids'].shape).astype(np.float32)
  p['conf'][4] = 1
  p['negatives'] = np.full((plain.BATCH, 7), -1, np.int32)
  for row, labels in list(zip(p['negatives'], p['ids']))[2:]:  # two have none
    free = np.setdiff1d(np.arange(classes), labels)
    count = rng.integers(1, 8)
    row[:count] = rng.choice(free, count, replace=False)
  p['negatives'][5, 0] = np.setdiff1d([classes - 1, 0], p['ids'][5])[0]
  return p


def dense_terms(p, classes, unknown, confidence):
  """[B, C] factors of softplus(-z), present, and of softplus(z), absent."""
  shape = (plain.BATCH, classes)
  present, absent = np.zeros(shape), np.zeros(shape)
  if unknown == 'negative':
    absent[:] = 1
  for row in range(plain.BATCH):
    for c in p['negatives'][row]:
      if c >= 0:
        absent[row, c] = 1
    for c, q in zip(p['ids'][row], p['conf'][row].astype(np.float64)):
      if c >= 0:
        present[row, c] = 1 if confidence == 'ignore' else q
        absent[row, c] = 1 - q if confidence == 'target' else 0
  return present, absent


def reference(p, classes, unknown, confidence):
  """Loss per example and gradients of its weighted sum, in float64."""
  x, w, b = (p[n].astype(np.float64) for n in ('features', 'kernel', 'bias'))
  present, absent = dense_terms(p, classes, unknown, confidence)
  z = x @ w + b
  loss = present * np.logaddexp(0, -z) + absent * np.logaddexp(0, z)
  sigmoid = 1 / (1 + np.exp(-z))
  dz = absent * sigmoid - present * (1 - sigmoid)
  dz *= p['weights'][:, None]
  return loss.sum(1), (dz @ w.T, x.T @ dz, dz.sum(0))


def loss_of(unknown, confidence, reduction='sum_classes'):
  def loss_fn(logits, labels, classes):
    ids, conf, negatives = labels
    return classification.sigmoid_sparse(
      logits,
      ids,
      classes,
      reduction,
      unknown=unknown,
      confidence=confidence,
      label_conf=conf,
      negative_ids=negatives,
    )

  return loss_fn


EVERYWHERE = [(shape, *mode) for shape in (None, (2, 4)) for mode in MODES]


@pytest.mark.parametrize(
  'shape, unknown, confidence',
  [
    *EVERYWHERE,
    ((8, 1), 'negative', 'weight'),
    ((4, 2), 'ignore', 'target'),
    ((1, 8), 'ignore', 'weight'),
  ],
)
def test_is_dense_reference(shape, unknown, confidence):
  p = problem()
  labels = (p['ids'], p['conf'], p['negatives'])
  loss_fn = loss_of(unknown, confidence)
  *actual, text = plain.run(shape, p, CLASSES, 8, loss_fn, labels)
  expected = reference(p, CLASSES, unknown, confidence)
  plain.assert_matches(actual, expected, CLASSES)
  plain.assert_logits_stay(text, shape)


def test_at_the_papers_size():
  classes = 18_291
  p = problem(classes)
  labels = (p['ids'], p['conf'], p['negatives'])
  loss_fn = loss_of('ignore', 'target')
  *actual, _ = plain.run((1, 8), p, classes, 200, loss_fn, labels)
  plain.assert_matches(
    actual, reference(p, classes, 'ignore', 'target'), classes
  )


@pytest.mark.parametrize('unknown, confidence', MODES)
def test_gradient_is_that_of_the_dense_formula(unknown, confidence):
  p = problem()
  z = p['features'] @ p['kernel'] + p['bias']
  present, absent = (
    jnp.asarray(t, jnp.float32)
    for t in dense_terms(p, CLASSES, unknown, confidence)
  )

  def dense(z):
    return jnp.sum(
      present * jax.nn.softplus(-z) + absent * jax.nn.softplus(z), axis=1
    )

  def sparse(z):
    labels = (p['ids'], p['conf'], p['negatives'])
    return loss_of(unknown, confidence)(z, labels, CLASSES)

  scaled = lambda fn: lambda z: jnp.sum(fn(z) ** 2)  # unequal cotangents
  expected, actual = jax.grad(scaled(dense))(z), jax.grad(scaled(sparse))(z)
  np.testing.assert_allclose(
    actual, expected, rtol=1e-5, atol=2e-6 * np.abs(expected).max()
  )


def test_by_hand():
  """z = 0 everywhere but z_2 = log 3: softplus(z_2) = log 4, of -z_2 log 4/3.

  Class 0 and 2 are labelled with confidence 1/2 and 1/4, class 3 is absent.
  """
  logits = jnp.array([[0.0, 0.0, math.log(3), 0.0, 0.0]])
  labels = (
    jnp.array([[0, 2, -1]]),
    jnp.array([[0.5, 0.25, 0]]),
    jnp.array([[3]]),
  )
  log2, log4, log4_3 = math.log(2), math.log(4), math.log(4 / 3)
  expected = {
    ('negative', 'ignore'): 4 * log2 + log4_3,
    ('negative', 'target'): 4 * log2 + 0.25 * log4_3 + 0.75 * log4,
    ('negative', 'weight'): 3.5 * log2 + 0.25 * log4_3,
    ('ignore', 'ignore'): 2 * log2 + log4_3,
    ('ignore', 'target'): 2 * log2 + 0.25 * log4_3 + 0.75 * log4,
    ('ignore', 'weight'): 1.5 * log2 + 0.25 * log4_3,
  }
  for mode, value in expected.items():
    actual = loss_of(*mode)(logits, labels, 5)
    np.testing.assert_allclose(actual, [value], rtol=1e-6, err_msg=str(mode))
    mean = loss_of(*mode, 'mean_classes')(logits, labels, 5)
    known = 5 if mode[0] == 'negative' else 3
    np.testing.assert_allclose(mean, [value / known], rtol=1e-6)


def test_an_image_of_which_nothing_is_known_costs_nothing():
  labels = jnp.array([[-1]]), jnp.array([[0.0]]), jnp.array([[-1, -1]])
  fn = loss_of('ignore', 'target', 'mean_classes')
  logits = jnp.array([[5.0, -5.0]])
  loss, grad = jax.value_and_grad(lambda z: fn(z, labels, 2)[0])(logits)
  assert loss == 0
  np.testing.assert_array_equal(grad, [[0, 0]])


def test_certain_labels_are_plain_labels():
  p = problem()
  z = jnp.asarray(p['features'] @ p['kernel'])
  sure = np.ones_like(p['conf'])
  for unknown in get_args(classification.Unknown):
    labels = (p['ids'], sure, p['negatives'])
    expected = loss_of(unknown, 'ignore')(z, labels, CLASSES)
    for confidence in ('target', 'weight'):
      actual = loss_of(unknown, confidence)(z, labels, CLASSES)
      np.testing.assert_allclose(actual, expected, rtol=1e-6)


def test_extreme_logits_are_stable():
  """Right by 1e4 costs nothing, wrong by 1e4 costs 1e4."""
  logits = jnp.array([[1e4, -1e4], [-1e4, 1e4]])
  labels = (
    jnp.array([[0], [0]]),
    jnp.array([[1.0], [0.5]]),
    jnp.array([[1], [1]]),
  )
  fn = loss_of('ignore', 'weight')
  loss, grad = jax.value_and_grad(
    lambda z: jnp.sum(fn(z, labels, 2) * jnp.array([1.0, 10.0]))
  )(logits)
  np.testing.assert_array_equal(fn(logits, labels, 2), [0, 1.5e4])
  np.testing.assert_array_equal(loss, 1.5e5)
  np.testing.assert_array_equal(grad, [[0, 0], [-5, 10]])


def test_small_losses_keep_their_digits():
  """softplus(-z) at z = 20 is 2e-9, where softplus(z) - z rounds to 0."""
  logits = jnp.array([[20.0, -20.0]])
  labels = jnp.array([[0]]), None, jnp.array([[1]])
  loss = loss_of('ignore', 'ignore')(logits, labels, 2)
  np.testing.assert_allclose(loss, [2 * math.log1p(math.exp(-20))], rtol=1e-6)


@pytest.mark.parametrize('shape', [None, (2, 4)])
def test_ids_outside_the_classes_contribute_nothing(shape):
  p = problem()
  stray = {k: p[k].copy() for k in ('ids', 'conf', 'negatives')}
  free = [p['ids'] < 0, p['negatives'] < 0]
  stray['ids'][free[0]] = CLASSES
  stray['negatives'][free[1]] = 10**6
  results = []
  for q in (p, stray):
    labels = (q['ids'], q['conf'], q['negatives'])
    loss_fn = loss_of('ignore', 'target', 'mean_classes')
    results.append(plain.run(shape, p, CLASSES, 8, loss_fn, labels)[:2])
  jax.tree.map(np.testing.assert_array_equal, *results)


@pytest.mark.parametrize(
  'options, message',
  [
    (dict(unknown='absent'), "unknown='absent'; valid: negative, ignore"),
    (dict(confidence='soft'), "confidence='soft'; valid: ignore, target, wei"),
    (
      dict(confidence='target'),
      r'needs label_conf of shape \(2, 3\), got None',
    ),
    (
      dict(confidence='weight', label_conf=jnp.zeros((2, 2))),
      r'label_conf of shape \(2, 3\), got \(2, 2\)',
    ),
    (dict(unknown='ignore'), "unknown='ignore' needs negative_ids"),
    (
      dict(unknown='ignore', negative_ids=jnp.zeros((1, 2), jnp.int32)),
      'batch size',
    ),
  ],
)
def test_wrong_arguments_are_named(options, message):
  ids = jnp.zeros((2, 3), jnp.int32)
  with pytest.raises(ValueError, match=message):
    classification.sigmoid_sparse(jnp.zeros((2, 4)), ids, 3, **options)


def tiny_config(label, **changes):
  config = tiny.config(**changes)
  config.input.ops[-1].update(label)
  return config


STATES = dict(confidence=True, max_negatives=9)


@pytest.mark.slow
def test_the_step_moves_no_logits():
  """As in test_sharded_training.py, with all label states."""
  data, model = 2, 4
  changes = {
    'mesh.data': data,
    'mesh.model': model,
    'input.batch_size': 48,
    'task.class_multiple': 88,
    'task.unknown': 'ignore',
    'task.confidence': 'target',
  }
  exp = experiment.build(
    tiny_config(STATES, **changes), space=LabelSpace.of_count(13)
  )
  with jax.set_mesh(exp.mesh):
    lowered = exp.jitted_train_step.lower(exp.abstract_state, exp.batch_spec)
  moved = hlo.collectives(lowered.compile().as_text())
  assert moved
  rows, columns = {48, 48 // data, 48 // 8}, {88, 88 // model}
  for op, shape in moved:
    logits = len(shape) >= 2 and shape[-2] in rows and shape[-1] in columns
    assert not logits, (op, shape)


@pytest.mark.parametrize(
  'task, label, message',
  [
    (
      {'task.unknown': 'ignore'}, {},
      r"needs the field 'negative_ids', .* \(set max_negatives of the op 'labe",
    ),
    (
      {'task.confidence': 'target'}, dict(max_negatives=3),
      r"needs the field 'label_conf', .* \(set confidence=True of the op 'labe",
    ),
    ({'task.unknown': 'absent'}, {}, "task.unknown='absent'; valid: negative"),
    ({'task.confidence': 'no'}, {}, "task.confidence='no'; valid: ignore, "),
  ],
)  # fmt: skip
def test_a_missing_field_is_named_with_the_option(task, label, message):
  with pytest.raises(ValueError, match=message):
    experiment.build(tiny_config(label, **task), space=LabelSpace.of_count(13))
