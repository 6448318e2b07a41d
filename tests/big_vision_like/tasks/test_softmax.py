"""Mixup and pixel scaling of the softmax task against float64 numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from big_vision_like.config import plugins
from big_vision_like.tasks import softmax
from big_vision_like.tasks.parts import backbone_task
from input_pipeline.labels.space import LabelSpace

NUM_CLASSES = 5


class Mean(nn.Module):
  """A backbone that is the mean pixel, so that the head sees the mixture."""

  @nn.compact
  def __call__(self, image, train):
    del train
    return {'pooled': image.mean((1, 2))}


def make(**options):
  task = softmax.Task(Mean(), space=LabelSpace.of_count(NUM_CLASSES), **options)
  rng = np.random.default_rng(0)
  batch = {
    'image': rng.integers(0, 256, (6, 4, 4, 3), np.uint8),
    'label': rng.integers(0, NUM_CLASSES, 6).astype(np.int32),
    '_mask': np.array([1, 1, 0, 1, 1, 1], bool),
  }
  params = {
    'backbone': {},
    'head': {
      'kernel': rng.standard_normal((3, NUM_CLASSES)).astype(np.float32),
      'bias': rng.standard_normal(NUM_CLASSES).astype(np.float32),
    },
  }
  return task, params, batch


def cross_entropy(params, image, label, smoothing=0.0):
  z = image.mean((1, 2)) @ params['head']['kernel'].astype(float)
  z = z + params['head']['bias']
  log_p = z - np.log(np.exp(z).sum(1, keepdims=True))
  target = (
    np.eye(NUM_CLASSES)[label] * (1 - smoothing) + smoothing / NUM_CLASSES
  )
  return -(target * log_p).sum(1)


@pytest.mark.parametrize('smoothing', [0.0, 0.1])
def test_mixup_mixes_images_and_losses(smoothing):
  task, params, batch = make(mixup=0.4, label_smoothing=smoothing)
  rng = jax.random.key(7)
  loss, _, _ = task.loss(params, {}, batch, rng, True)
  draw = float(jax.random.beta(jax.random.split(rng)[0], 0.4, 0.4))
  assert 0.01 < draw < 0.99
  # Example 2 does not count: it and example 3, whose partner it is, stay.
  share = np.array([draw, draw, 1, 1, draw, draw])
  x = batch['image'].astype(float) / 127.5 - 1
  other, label = np.roll(x, 1, 0), batch['label']
  mixed = (
    share[:, None, None, None] * x + (1 - share)[:, None, None, None] * other
  )
  expected = share * cross_entropy(params, mixed, label, smoothing) + (
    1 - share
  ) * cross_entropy(params, mixed, np.roll(label, 1), smoothing)
  np.testing.assert_allclose(loss, expected, rtol=2e-6)


def test_mixup_is_for_training_only_and_off_by_default():
  plain, params, batch = make()
  mixing, _, _ = make(mixup=0.4)
  key = jax.random.key(0)
  expected, _, _ = plain.loss(params, {}, batch, key, False)
  for task, train in ((plain, True), (mixing, False)):
    loss, _, _ = task.loss(params, {}, batch, key, train)
    np.testing.assert_array_equal(loss, expected)
  x = batch['image'].astype(float) / 127.5 - 1
  np.testing.assert_allclose(
    expected, cross_entropy(params, x, batch['label']), rtol=2e-6
  )


def test_weights_are_drawn_from_the_beta_distribution():
  draw = jax.vmap(lambda k: softmax.mixing_weights(k, jnp.ones(2, bool), 0.3))
  weights = np.asarray(draw(jax.random.split(jax.random.key(0), 4000)))
  assert (weights[:, 0] == weights[:, 1]).all()  # one draw a batch
  # Beta(a, a): mean 1/2, variance 1 / (4 (2 a + 1)).
  assert abs(weights[:, 0].mean() - 0.5) < 4 * np.sqrt(0.15625 / 4000)
  assert weights[:, 0].var() == pytest.approx(0.15625, rel=0.06)


def test_pixels():
  image = np.arange(256, dtype=np.uint8)[:, None].repeat(3, 1)
  unit = backbone_task.scale_pixels(jnp.asarray(image))
  np.testing.assert_allclose(unit, image / 127.5 - 1, rtol=0, atol=2e-7)
  standard = backbone_task.scale_pixels(jnp.asarray(image), 'imagenet')
  expected = (image / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
  np.testing.assert_allclose(standard, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
  'options,message',
  [
    (dict(mixup=-1.0), r'task.mixup=-1.0 must be float of at least 0'),
    (dict(mixup=float('inf')), r'task.mixup=inf must be float of at least 0'),
    (dict(label_smoothing=1), r'task.label_smoothing=1 must .* in \[0, 1\)'),
    (dict(class_multiple=0), r'task.class_multiple=0 must be int of at least'),
    (dict(pixels='caffe'), r"task.pixels='caffe'; valid: inception, imagenet"),
  ],
)
def test_mistakes_are_named(options, message):
  with pytest.raises(ValueError, match=message):
    plugins.check_kwargs('task', softmax.Task, options)
