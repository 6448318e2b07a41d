"""The loss of pixels against float64 numpy; what the task refuses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from scipy import ndimage

from big_vision_like.config import plugins
from big_vision_like.tasks import segmentation
from big_vision_like.training import step
from input_pipeline.labels.space import LabelSpace

SIDE, STRIDE, GRID = 25, 8, 4  # features at 0, 8, 16 and 24
NUM_NAMES, NUM_OUTPUTS = 4, 5
RATES = (1, 3)


class EighthPixel(nn.Module):
  """A backbone whose features are the pixels at their centres."""

  @nn.compact
  def __call__(self, image, train):
    del train
    return {'block4': image[:, ::STRIDE, ::STRIDE], 'pooled': image[:, 0, 0]}


def make(seed=0, **options):
  """(task, params, batch): the last example does not count."""
  task = segmentation.Task(
    EighthPixel(), space=LabelSpace.of_count(NUM_NAMES), rates=RATES, **options
  )
  rng = np.random.default_rng(seed)
  labels = rng.integers(0, NUM_OUTPUTS, (4, SIDE, SIDE), np.uint8)
  labels[rng.random(labels.shape) < 0.3] = 255
  labels[1, :, 10:] = 255  # few of it are valid
  batch = {
    'image': rng.integers(0, 256, (4, SIDE, SIDE, 3), np.uint8),
    'segmentation': labels,
    '_mask': np.array([1, 1, 1, 0], bool),
  }
  normal = lambda *shape: rng.standard_normal(shape).astype(np.float32)
  head = {
    f'rate{r}': {
      'kernel': normal(3, 3, 3, NUM_OUTPUTS), 'bias': normal(NUM_OUTPUTS)
    }
    for r in RATES
  }  # fmt: skip
  return task, {'backbone': {}, 'head': head}, batch


def loss(task, params, batch, train=True):
  run = jax.jit(task.loss, static_argnums=4)
  return np.asarray(run(params, {}, batch, jax.random.key(0), train)[0])


def logits_of(params, batch):
  """float64 [B, GRID, GRID, C]: features, zeros around them, all taps."""
  x = batch['image'].astype(float)[:, ::STRIDE, ::STRIDE] / 127.5 - 1
  out = 0.0
  for rate in RATES:
    weights = params['head'][f'rate{rate}']
    padded = np.pad(x, ((0, 0), (rate, rate), (rate, rate), (0, 0)))
    for i in range(3):
      for j in range(3):
        rows = slice(i * rate, i * rate + GRID)
        columns = slice(j * rate, j * rate + GRID)
        out = out + padded[:, rows, columns] @ weights['kernel'][i, j].astype(
          float
        )
    out = out + weights['bias']
  return out


def pixel_losses(params, batch, loss_at):
  """List of B arrays: float64 cross-entropy of the valid pixels of each."""
  logits, labels = logits_of(params, batch), batch['segmentation']
  if loss_at == 'grid':
    labels = labels[:, ::STRIDE, ::STRIDE]
  else:
    points = np.meshgrid(*[np.arange(SIDE) / STRIDE] * 2, indexing='ij')
    fine = lambda z: ndimage.map_coordinates(z, points, order=1, mode='nearest')
    logits = np.stack(
      [
        np.stack([fine(z) for z in np.moveaxis(one, -1, 0)], -1)
        for one in logits
      ]
    )
  found = []
  for one, ids in zip(logits, labels):
    chosen, ids = one[ids != 255], ids[ids != 255]
    log_p = chosen - np.log(np.exp(chosen).sum(-1, keepdims=True))
    found.append(-log_p[np.arange(len(ids)), ids])
  return found


@pytest.mark.parametrize('loss_at', ['grid', 'pixels'])
def test_the_mean_over_the_batch_is_that_over_its_valid_pixels(loss_at):
  task, params, batch = make(loss_at=loss_at)
  per_example = loss(task, params, batch)
  losses = pixel_losses(params, batch, loss_at)
  count = sum(map(len, losses[:3])) / 3
  expected = [one.sum() / count for one in losses]
  np.testing.assert_allclose(per_example[:3], expected[:3], rtol=1e-5)
  np.testing.assert_allclose(
    per_example[:3].mean(), np.concatenate(losses[:3]).mean(), rtol=1e-5
  )
  assert len({len(one) for one in losses[:3]}) > 1  # weights differ


@pytest.mark.parametrize('loss_at', ['grid', 'pixels'])
def test_normalised_by_image_every_image_has_the_same_weight(loss_at):
  task, params, batch = make(loss_at=loss_at, normalise='image')
  expected = [one.mean() for one in pixel_losses(params, batch, loss_at)]
  np.testing.assert_allclose(loss(task, params, batch), expected, rtol=1e-5)


def test_the_step_takes_the_mean_over_what_counts():
  """Loss and gradient of the train step do not see a masked example."""
  task, params, batch = make()
  gradients = jax.jit(step.make_gradients(task))
  run = lambda b: gradients(params, {}, b, jax.random.key(0))
  result = run(batch)
  losses = pixel_losses(params, batch, 'grid')[:3]
  np.testing.assert_allclose(
    result.loss, np.concatenate(losses).mean(), rtol=1e-5
  )
  # Another image, fewer valid pixels, or a label that is none: all the same.
  for ids in (255, 7, batch['segmentation'][0]):
    other = {k: v.copy() for k, v in batch.items()}
    other['image'][3], other['segmentation'][3] = 9, ids
    found = run(other)
    jax.tree.map(np.testing.assert_array_equal, found.grads, result.grads)
    assert found.loss == result.loss


def test_gradient_is_that_of_the_mean():
  """Central differences of the float64 loss along a random direction."""
  task, params, batch = make(loss_at='pixels')
  gradients = jax.jit(step.make_gradients(task))
  grads = gradients(params, {}, batch, jax.random.key(0)).grads
  rng = np.random.default_rng(3)
  way = jax.tree.map(lambda p: rng.standard_normal(p.shape), params)

  def mean(size):
    moved = jax.tree.map(lambda p, w: p + size * w, params, way)
    return np.concatenate(pixel_losses(moved, batch, 'pixels')[:3]).mean()

  expected = (mean(1e-5) - mean(-1e-5)) / 2e-5
  found = sum(
    float((np.asarray(g, float) * w).sum())
    for g, w in zip(jax.tree.leaves(grads), jax.tree.leaves(way))
  )
  assert found == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize('normalise', ['batch', 'image'])
def test_void_has_no_loss_and_no_gradient(normalise):
  task, params, batch = make(normalise=normalise)
  batch['segmentation'][:] = 255
  gradients = jax.jit(step.make_gradients(task))
  result = gradients(params, {}, batch, jax.random.key(0))
  assert result.loss == 0
  assert not any(np.asarray(g).any() for g in jax.tree.leaves(result.grads))


@pytest.mark.parametrize('label', [NUM_OUTPUTS, 254])
def test_a_label_outside_of_the_classes_stops_a_run(label):
  task, params, batch = make(normalise='image')
  batch['segmentation'][1, 8, 0] = label
  found = loss(task, params, batch)
  assert np.isnan(found).tolist() == [False, True, False, False]
  between = batch['segmentation'].copy()  # of no feature: not looked at
  between[1, 8, 0], between[1, 8, 1] = 0, label
  found = loss(task, params, batch | {'segmentation': between})
  assert np.isfinite(found).all()


def test_large_logits_do_not_overflow():
  logits = jnp.array([[300.0, -300.0, 0.0]] * 3)
  losses, valid = segmentation.pixel_losses(
    logits, jnp.array([0, 1, 255], jnp.uint8)
  )
  assert losses.tolist() == [0, 600, 0]
  assert valid.tolist() == [True, True, False]


def test_without_a_background_ids_are_labels():
  task = segmentation.Task(
    EighthPixel(),
    space=LabelSpace.of_count(NUM_OUTPUTS),
    background=False,
    rates=RATES,
  )
  other, params, batch = make()
  assert task.num_classes == NUM_OUTPUTS and other.num_classes == NUM_NAMES
  np.testing.assert_array_equal(
    loss(task, params, batch), loss(other, params, batch)
  )


def test_the_prediction_is_the_logits_of_the_grid():
  task, params, batch = make()
  state = type('State', (), dict(params=params, extra={}))
  found = task.predictions['logits'](state, batch)['logits']
  assert found.shape == (4, GRID, GRID, NUM_OUTPUTS)
  assert found.dtype == jnp.float32
  np.testing.assert_allclose(
    found, logits_of(params, batch), rtol=1e-5, atol=1e-5
  )


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    (dict(space=LabelSpace.of_count(255)), r'^255 labels .* 2 to 255 classes'),
    (
      dict(space=LabelSpace.of_count(1), background=False),
      r'^1 labels and task\.background=False',
    ),
  ],
)
def test_labels_that_do_not_fit_are_named(options, message):
  with pytest.raises(ValueError, match=message):
    segmentation.Task(
      EighthPixel(), **dict(space=LabelSpace.of_count(20)) | options
    )


NUMBERS = 'must be list of int of at least 1, not empty, each once'


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    (dict(loss_at='all'), "task.loss_at='all'; valid: grid, pixels"),
    (dict(normalise='pixel'), "task.normalise='pixel'; valid: batch, image"),
    (dict(rates=()), f'task.rates=() {NUMBERS}'),
    (dict(rates=(6, 6)), f'task.rates=(6, 6) {NUMBERS}'),
    (dict(rates=(0, 6)), f'task.rates=(0, 6) {NUMBERS}'),
    (
      dict(pixels='caffe'),
      "task.pixels='caffe'; valid: inception, imagenet, msra",
    ),
  ],
)
def test_mistakes_are_named(options, message):
  with pytest.raises(ValueError) as error:
    plugins.check_kwargs('task', segmentation.Task, options)
  assert str(error.value) == message


def test_the_largest_numbers_of_classes():
  for num, background in ((254, True), (255, False), (1, True)):
    segmentation.Task(
      EighthPixel(), space=LabelSpace.of_count(num), background=background
    )
