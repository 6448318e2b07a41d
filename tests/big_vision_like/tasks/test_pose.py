"""G-RMI put together: losses by numpy, poses, what the task refuses."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from big_vision_like.config import plugins
from big_vision_like.models import resnet
from big_vision_like.tasks import pose
from big_vision_like.training import step
from input_pipeline.labels.space import LabelSpace, Skeleton
from input_pipeline.labels.vocabulary import Vocabulary
from tests.big_vision_like.losses import plain_pose
from tests.big_vision_like.ops.keypoints import plain

HEIGHT, WIDTH, STRIDE, GRID, RADIUS = 25, 17, 8, (4, 3), 6.25
NAMES = 'nose', 'left_eye', 'right_eye'
SPACE = LabelSpace(
  Vocabulary(('person',)), keypoints=Skeleton(NAMES, pairs=((1, 2),))
)
AUXILIARY = 'half'


class EighthPixel(nn.Module):
  """A backbone whose features are the pixels at their centres."""

  @nn.compact
  def __call__(self, image, train, taps=()):
    del train
    ends = {
      'block4': image[:, ::STRIDE, ::STRIDE],
      AUXILIARY: image[:, :: STRIDE // 2, :: STRIDE // 2],
      'pooled': image[:, 0, 0],
    }
    return {name: ends[name] for name in taps or ends}


def batch(height=HEIGHT, width=WIDTH):
  """Two persons, one without labels, one blank that does not count."""
  num, rng = len(NAMES), np.random.default_rng(0)
  places = rng.uniform(-3, (height + 3, width + 3), (4, num, 2))
  keypoints = np.zeros((4, num, 3), np.float32)
  keypoints[:2] = np.concatenate(
    [np.round(places[:2], 2), [[[2], [1], [0]], [[1], [2], [2]]]], -1
  )
  others = np.zeros((4, 2, num, 3), np.float32)
  others[0, 0] = keypoints[1]
  others[1] = keypoints[0] + np.float32([[[2, -1, 0]], [[5, 5, 0]]])
  image = rng.integers(0, 256, (4, height, width, 3), np.uint8)
  image[3] = 0
  back = np.zeros((4, 2, 3), np.float32)
  back[:3] = [[2, 0, 10], [0, 2, -4]]
  return {
    'image': image,
    'person_keypoints': keypoints,
    'other_keypoints': others,
    'crop_to_image': back,
    '_mask': np.array([1, 1, 1, 0], bool),
  }


def make(auxiliary: str | None = AUXILIARY, **options):
  """(task, params) on `EighthPixel`, its weights large."""
  task = pose.Task(
    EighthPixel(), SPACE, radius=RADIUS, auxiliary=auxiliary, **options
  )
  rng = np.random.default_rng(1)
  normal = lambda *shape: rng.normal(0, 2, shape).astype(np.float32)
  heads = {'keypoints': 9, 'auxiliary': 3}
  params = {
    name: {'kernel': normal(3, num), 'bias': normal(num)}
    for name, num in heads.items()
    if name in task.heads
  }
  return task, {'backbone': {}, **params}


def run(task, params, data, train=True, extra=None):
  program = jax.jit(task.loss, static_argnums=4)
  loss, _, aux = program(params, extra or {}, data, jax.random.key(0), train)
  return np.asarray(loss), {k: np.asarray(v) for k, v in aux.items()}


def head(params, name, data, stride):
  """float64 [B, h, w, C]."""
  features = data['image'][:, ::stride, ::stride].astype(float) / 127.5 - 1
  weights = params[name]
  return features @ weights['kernel'].astype(float) + weights['bias']


def expected(params, data, loss_at, delta, unlabelled):
  """float64 sums of the three losses of each person, [3, B]."""
  rows = []
  of_grid = head(params, 'keypoints', data, STRIDE)
  of_half = head(params, 'auxiliary', data, STRIDE // 2)
  for n, keypoints in enumerate(data['person_keypoints']):
    maps, stride = np.moveaxis(of_grid[n], -1, 0), STRIDE
    half, half_stride = np.moveaxis(of_half[n], -1, 0), STRIDE // 2
    if loss_at == 'pixels':
      maps = plain.fine(of_grid[n], (HEIGHT, WIDTH), stride)
      half = plain.fine(of_half[n], (HEIGHT, WIDTH), half_stride)
      stride = half_stride = 1
    others = data['other_keypoints'][n]
    offsets = np.stack([maps[3:6], maps[6:9]])
    rows.append([
      plain_pose.heatmap(maps[:3], keypoints, stride, RADIUS, unlabelled),
      plain_pose.offset(offsets, keypoints, stride, RADIUS, delta),
      plain_pose.heatmap(
        half, keypoints, half_stride, RADIUS, unlabelled, others
      ),
    ])  # fmt: skip
  return np.array(rows).T


@pytest.mark.parametrize(
  ('loss_at', 'reduction', 'unlabelled'),
  [('pixels', 'mean', 'mask'), ('grid', 'sum', 'negative')],
)
def test_the_losses_are_those_of_numpy(loss_at, reduction, unlabelled):
  task, params = make(
    loss_at=loss_at,
    reduction=reduction,
    unlabelled=unlabelled,
    huber_delta=2.0,
    heatmap_weight=3.0,
    offset_weight=0.5,
    auxiliary_weight=2.0,
  )
  data = batch()
  loss, aux = run(task, params, data)
  parts = expected(params, data, loss_at, 2.0, unlabelled)
  if reduction == 'mean':
    parts /= HEIGHT * WIDTH
  assert (parts[:, :2] > 0).all()
  names = 'heatmap', 'offset', 'auxiliary_heatmap'
  for name, part in zip(names, parts):
    np.testing.assert_allclose(aux[name], part, rtol=1e-4, err_msg=name)
  np.testing.assert_allclose(loss, [3, 0.5, 2] @ parts, rtol=1e-4)
  assert aux['num_labelled'].tolist() == [2, 3, 0, 0]
  assert loss.dtype == np.float32


def test_the_step_does_not_see_a_blank():
  task, params = make()
  gradients = jax.jit(step.make_gradients(task))
  found = gradients(params, {}, batch(), jax.random.key(0))
  data = batch()
  data['image'][3], data['person_keypoints'][3] = 77, 5
  other = gradients(params, {}, data, jax.random.key(0))
  jax.tree.map(np.testing.assert_array_equal, other.grads, found.grads)
  assert other.loss == found.loss > 0
  for grad in jax.tree.leaves(found.grads):
    assert np.isfinite(grad).all() and np.asarray(grad).any()


def state_of(params, extra=None):
  return type('State', (), dict(params=params, extra=extra or {}))


@pytest.mark.parametrize('which', ['top', 'exact', 'grid'])
def test_poses_are_the_peaks_of_the_votes(which):
  task, params = make(voting=which)
  data = batch()
  prediction = task.predictions['poses']
  assert prediction.kind == 'pose'
  seen = {name: data[name] for name in prediction.reads}
  found = jax.jit(lambda data: prediction(state_of(params), data))(seen)
  assert found['keypoints'].shape == (4, 3, 3) and found['scores'].shape == (4,)
  maps = head(params, 'keypoints', data, STRIDE)
  for n in range(4):
    fine, stride = plain.fine(maps[n], (HEIGHT, WIDTH), STRIDE), 1
    if which == 'grid':
      fine, stride = np.moveaxis(maps[n], -1, 0), STRIDE
    votes = plain.votes(fine, (HEIGHT, WIDTH), stride, RADIUS)
    peaks = votes.max((1, 2))
    np.testing.assert_allclose(found['keypoints'][n, :, 2], peaks, rtol=1e-4)
    np.testing.assert_allclose(found['scores'][n], peaks.mean(), rtol=1e-4)
    rows, columns = np.unravel_index(
      votes.reshape(3, -1).argmax(1), (HEIGHT, WIDTH)
    )
    place = np.stack([2 * (rows + 0.5) + 10, 2 * (columns + 0.5) - 4], -1)
    if n == 3:  # a blank: its matrix is 0
      place *= 0
    np.testing.assert_array_equal(found['keypoints'][n, :, :2], place)


def test_other_predictions():
  task, params = make()
  data = batch()
  assert [*task.predictions] == ['poses', 'heatmaps', 'features']
  heatmaps = task.predictions['heatmaps'](state_of(params), data)['heatmaps']
  np.testing.assert_allclose(
    heatmaps, head(params, 'keypoints', data, STRIDE)[..., :3],
    rtol=1e-4, atol=1e-5,
  )  # fmt: skip
  features = task.predictions['features'](state_of(params), data)['features']
  assert features.shape == (4, 3)


def test_without_the_third_loss_nothing_of_it_is_asked_for():
  task, params = make(auxiliary=None)
  data = batch()
  del data['other_keypoints']
  assert task.fields == ('image', 'person_keypoints')
  loss, aux = run(task, params, data)
  assert 'auxiliary_heatmap' not in aux
  np.testing.assert_allclose(
    loss, 4 * aux['heatmap'] + aux['offset'], rtol=1e-6
  )


@pytest.fixture(scope='module')
def small():
  """(task, params, extra) of a bfloat16 ResNet-14 with the layers of all."""
  model = resnet.Model(
    depth=14, width=4, output_stride=8, compute_dtype='bfloat16'
  )
  task = pose.Task(model, SPACE, auxiliary='block3/unit1')
  variables = jax.jit(task.init)(jax.random.key(0), batch())
  return task, *variables


def test_a_fresh_net_says_next_to_nothing(small):
  """Logits near 0: each labelled keypoint costs ln 2."""
  task, params, extra = small
  assert params.keys() == {'backbone', 'keypoints', 'auxiliary'}
  assert params['keypoints']['kernel'].shape == (128, 9)
  assert params['auxiliary']['kernel'].shape == (64, 3)
  for name in ('keypoints', 'auxiliary'):
    assert params[name]['kernel'].dtype == jnp.float32
    assert not params[name]['bias'].any()
  loss, aux = run(task, params, batch(), True, extra)
  assert loss.dtype == np.float32
  ln2 = np.log(2) * np.array([2, 3, 0, 0])
  np.testing.assert_allclose(aux['heatmap'], ln2, rtol=0.1)


def test_prediction_runs_no_layer_of_the_third_loss(small):
  task, params, extra = small
  bare = {k: v for k, v in params.items() if k != 'auxiliary'}
  predict = lambda data: task.predictions['poses'](state_of(bare, extra), data)
  found = jax.eval_shape(predict, batch())
  assert found['keypoints'].shape == (4, 3, 3)


def refused(message, data, options, model=None):
  model = model or resnet.Model(depth=14, width=4, output_stride=8)
  task = pose.Task(model, SPACE, **{'auxiliary': 'block3/unit1', **options})
  with pytest.raises(ValueError, match=message):
    jax.eval_shape(task.init, jax.random.key(0), data)


@pytest.mark.parametrize(
  ('size', 'fits'),
  [
    ((352, 257), '345x257 or 353x257'),
    ((64, 64), '57x57 or 65x65'),
    ((65, 64), '65x57 or 65x65'),
  ],
)
def test_a_crop_of_other_sides_is_refused(size, fits):
  message = (
    f"crop of {size[0]}x{size[1]} pixels and the endpoint 'block4' of .*: the "
    rf'sides of a crop must be n \* 8 \+ 1 pixels, here {fits}\n'
  )
  refused(message, batch(*size), {})


def test_an_endpoint_that_there_is_not_is_refused():
  refused(
    r"^task.auxiliary='block3/unit10' \(None: no such loss\): .*"
    r"'block3/unit10' is not an endpoint of this ResNet-14; valid: .*"
    r'block3/unit1\b',
    batch(),
    dict(auxiliary='block3/unit10'),
  )


def test_a_model_without_taps_is_told_why():
  class NoTaps(nn.Module):
    @nn.compact
    def __call__(self, image, train):
      return {'block4': nn.Dense(4)(image[:, ::8, ::8])}

  message = r"^task.auxiliary='x' \(None: .*NoTaps: .*'taps'"
  refused(message, batch(), dict(auxiliary='x'), NoTaps())


@pytest.mark.parametrize('field', ['person_keypoints', 'other_keypoints'])
def test_another_number_of_keypoints_is_refused(field):
  data = batch() | {field: batch()[field][..., :2, :]}
  message = f'{field!r} has 2 keypoints, the data name 3: nose, left_eye, right'
  refused(message, data, {})


@pytest.mark.parametrize(
  ('space', 'message'),
  [
    (LabelSpace.of_count(1), 'the task pose: the data have no keypoints;'),
    (
      LabelSpace(
        Vocabulary(('person',)), keypoints=Skeleton.of_pairs([(1, 2)])
      ),
      'the task pose: the data do not name their keypoints',
    ),
  ],
)
def test_data_without_keypoints_are_refused(space, message):
  with pytest.raises(ValueError, match=f'^{re.escape(message)}'):
    pose.Task(EighthPixel(), space)


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    (dict(radius=0), 'task.radius=0 must be float above 0'),
    (dict(huber_delta=-1.0), 'task.huber_delta=-1.0 must be float above 0'),
    (
      dict(heatmap_weight=-1.0),
      'task.heatmap_weight=-1.0 must be float of at least 0',
    ),
    (dict(loss_at='all'), "task.loss_at='all'; valid: pixels, grid"),
    (dict(voting='best'), "task.voting='best'; valid: top, exact, grid"),
    (dict(unlabelled=0), 'task.unlabelled=0; valid: mask, negative'),
    (dict(reduction='max'), "task.reduction='max'; valid: mean, sum"),
    (
      dict(accumulate='add'),
      "task.accumulate='add'; valid: auto, scatter, matmul",
    ),
  ],
)
def test_mistakes_are_named(options, message):
  with pytest.raises(ValueError) as error:
    plugins.check_kwargs('task', pose.Task, options)
  assert str(error.value) == message
