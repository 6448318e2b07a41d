"""A pose net's loss and poses on one device and on eight are the same."""

import functools

import jax
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from big_vision_like.models import resnet
from big_vision_like.tasks import pose
from big_vision_like.training import step
from input_pipeline.labels.space import LabelSpace, Skeleton
from input_pipeline.labels.vocabulary import Vocabulary
from tests import hlo

NUM, HEIGHT, WIDTH = 8, 25, 17
NAMES = 'head', 'left', 'right'
IMAGES = P(('data', 'model'))


def batch():
  rng = np.random.default_rng(0)
  keypoints = rng.uniform(0, 24, (NUM, 3, 3, 3)).astype(np.float32)
  keypoints[..., 2] = rng.integers(0, 3, (NUM, 3, 3))
  back = rng.normal(0, 1, (NUM, 2, 3)).astype(np.float32)
  return {
    'image': rng.integers(0, 256, (NUM, HEIGHT, WIDTH, 3), np.uint8),
    'person_keypoints': keypoints[:, 0],
    'other_keypoints': keypoints[:, 1:],
    'crop_to_image': back,
    '_mask': np.arange(NUM) < NUM - 1,
  }


def make(**options):
  space = LabelSpace(Vocabulary(('person',)), keypoints=Skeleton(NAMES))
  return pose.Task(
    resnet.Model(depth=14, width=4, output_stride=8, bn='frozen'),
    space,
    radius=6.0,
    auxiliary='block3/unit1',
    **options,
  )


@pytest.fixture(scope='module')
def variables():
  params, extra = jax.device_get(
    jax.jit(make().init)(jax.random.key(0), batch())
  )
  for name in ('keypoints', 'auxiliary'):  # fresh heads have ties, no peaks
    params[name] = jax.tree.map(lambda x: 40 * x, params[name])
  return params, extra


def on_eight(program, *args):
  """(what it gives, its HLO): the last of `args` is split by image."""
  mesh = jax.make_mesh((4, 2), ('data', 'model'), (AxisType.Auto,) * 2)
  with jax.set_mesh(mesh):
    places = NamedSharding(mesh, P()), NamedSharding(mesh, IMAGES)
    placed = [*jax.device_put(args[:-1], places[0]), args[-1]]
    placed[-1] = jax.device_put(args[-1], places[1])
    compiled = jax.jit(program).lower(*placed).compile()
    return compiled(*placed), compiled.as_text()


def test_loss_and_gradient(variables):
  gradients = step.make_gradients(make())
  program = lambda params, extra, batch: gradients(
    params, extra, batch, jax.random.key(0)
  )
  expected = jax.jit(program)(*variables, batch())
  found, text = on_eight(program, *variables, batch())
  np.testing.assert_allclose(found.loss, expected.loss, rtol=1e-5)
  jax.tree.map(
    functools.partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-5),
    found.grads, expected.grads,
  )  # fmt: skip
  # Maps of features and of pixels stay where their images are.
  assert {found.op for found in hlo.collectives(text)} == {'all-reduce'}


@pytest.mark.parametrize('voting', ['top', 'grid'])
def test_poses_are_made_where_the_images_are(variables, voting):
  poses = make(voting=voting).predictions['poses']

  def program(params, extra, batch):
    state = type('State', (), dict(params=params, extra=extra))
    return poses(state, batch)

  expected = jax.jit(program)(*variables, batch())
  found, text = on_eight(program, *variables, batch())
  for name in ('keypoints', 'scores'):
    np.testing.assert_allclose(
      found[name], expected[name], rtol=1e-5, atol=1e-5
    )
  assert len(found['scores'].sharding.device_set) == 8
  assert not hlo.collectives(text)
