"""The plan of the paper's detector against arithmetic on its shapes.

A multiply-add for every tap of a kernel, in billions, of an image of 600x1024:
82 up to conv4, 12 of the RPN, 0.73 a region.
"""

import math

import jax
import jax.numpy as jnp
import pytest

from big_vision_like import experiment, plan
from configs import coco_detection
from input_pipeline.labels.space import LabelSpace

# tests/big_vision_like/test_plan.py has the plan's own arithmetic.
pytestmark = [pytest.mark.slow, pytest.mark.nightly]

ROIS = {'paper': 256, 'tfod': 64}
BELOW, RPN, REGION = 82.0, 12.0, 0.73


def built(arguments=''):
  return experiment.build(
    coco_detection.get_config(arguments),
    LabelSpace.of_count(80),
    devices=jax.devices()[:1],
  )


def gmacs(program, *args):
  """Multiply-adds of the convolutions and products of a program, 1e9."""
  total = 0
  for equation in jax.make_jaxpr(program)(*args).eqns:
    name, params = equation.primitive.name, equation.params
    shapes = [x.aval.shape for x in (*equation.invars, *equation.outvars)]
    if name == 'conv_general_dilated':
      kernel = shapes[1]
      total += math.prod(shapes[2]) * math.prod(kernel[:-1])
    elif name == 'dot_general':
      (contracted, _), _ = params['dimension_numbers']
      total += math.prod(shapes[2]) * math.prod(
        shapes[0][dim] for dim in contracted
      )
    elif name not in _PLAIN:
      inner = params.get('jaxpr') or params.get('call_jaxpr')
      assert inner is None, name
  return total / 1e9


_PLAIN = frozenset({'pjit', 'jit', 'custom_jvp_call'})  # relu and the like


def test_parts_of_the_forward_pass():
  task = built().task
  shape = jax.ShapeDtypeStruct((1, 600, 1024, 3), jnp.uint8)
  params, extra = jax.eval_shape(task.init, jax.random.key(0), {'image': shape})
  image = {'image': shape}
  features = lambda p, e, b: task._map(p, e, b, None, False)[0]
  found = jax.eval_shape(features, params, extra, image)
  assert found.shape == (1, 38, 64, 1024)
  assert gmacs(features, params, extra, image) == pytest.approx(BELOW, rel=0.01)
  head = lambda p, x: task.heads['rpn'].apply({'params': p['rpn']}, x)
  assert gmacs(head, params, found) == pytest.approx(RPN, rel=0.05)
  crops = jax.ShapeDtypeStruct((1, 7, 7, 1024), jnp.float32)
  region = lambda p, e, x: task._pooled(p, e, x, None, False)[0]
  assert gmacs(region, params, extra, crops) == pytest.approx(REGION, rel=0.01)


@pytest.mark.parametrize('preset', ROIS)
def test_plan_of_a_preset(preset):
  """A step is three forward passes, two operations a multiply-add.

  XLA counts no taps on the padding: 6% less on maps of 7x7.
  """
  exp = built(f'preset={preset}')
  made = plan.make(exp)
  forward = BELOW + RPN + REGION * ROIS[preset]
  assert made.flops_per_image == pytest.approx(6e9 * forward, rel=0.08)
  rpn = 3 * 3 * 1024 * 512 + 512 + (512 + 1) * 12 * (2 + 4)
  parameters = 42_500_160 + rpn + (2048 + 1) * (81 + 4 * 80)
  assert made.num_params == parameters
  assert made.param_bytes == made.grad_bytes == 4 * parameters
  said = plan.describe(exp, made)
  assert f'train FLOPs per image {made.flops_per_image:.4g}' in said
  assert 'kept activations' in said
