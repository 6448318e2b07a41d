"""model.freeze: frozen parts stay to the bit, without slots or gradient.

conv1 is the stem, conv2 to conv5 are block1 to block4, as the paper counts.
"""

import functools
import itertools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from big_vision_like import experiment
from big_vision_like.models import resnet
from big_vision_like.parallel import mesh
from input_pipeline.labels.space import LabelSpace
from tests import tiny

PARTS = {
  'none': (),
  'conv1': ('conv1', 'bn1'),
  'conv2': ('conv1', 'bn1', 'block1'),
  'conv3': ('conv1', 'bn1', 'block1', 'block2'),
  'conv4': ('conv1', 'bn1', 'block1', 'block2', 'block3'),
  'backbone': ('conv1', 'bn1', 'block1', 'block2', 'block3', 'block4'),
}


@functools.cache
def built(freeze: str, **changes) -> experiment.Experiment:
  config = tiny.config(
    **{'model.freeze': freeze, 'optim.weight_decay_on': 'all'}, **changes
  )
  return experiment.build(
    config,
    num_examples=60,
    space=LabelSpace.of_count(13),
    devices=jax.devices()[:2],
  )


def batch(exp, seed=0):
  rng = np.random.default_rng(seed)
  make = {
    'image': lambda s: rng.integers(0, 256, s.shape, np.uint8),
    'label_ids': lambda s: np.sort(rng.integers(-1, 13, s.shape), 1),
    '_mask': lambda s: np.ones(s.shape, bool),
    '_id': lambda s: np.arange(len(rng.random(s.shape))),
  }
  fields = {k: make[k](s).astype(s.dtype) for k, s in exp.batch_spec.items()}
  fields['label_ids'][:, 1:] = -1  # ids of an image are unique
  return fields


def arrays(tree) -> dict[str, np.ndarray]:
  leaves = jax.tree_util.tree_leaves_with_path(tree)
  return {mesh.path_name(p): np.asarray(x).copy() for p, x in leaves}


def is_frozen(name: str, freeze: str) -> bool:
  parts = '|'.join(PARTS[freeze])
  return bool(parts) and bool(
    re.search(rf'(^|/)(backbone/|batch_stats/)({parts})/', name)
  )


@pytest.mark.slow
@pytest.mark.parametrize('freeze,accum', [('conv3', 2), ('backbone', 1)])
def test_frozen_parts_stay_to_the_bit_and_the_others_move(freeze, accum):
  changes = {'train.accum_steps': accum, 'train.ema_decay': 0.5}
  exp = built(freeze, **({} if accum == 1 else changes))
  state = exp.init(0)
  # Every kind of float that arithmetic could touch, a negative zero above all.
  odd = jax.tree.map(lambda x: x.at[..., 0].set(-0.0), state.params)
  placed = jax.tree.map(lambda x: x.sharding, state.params)
  state = state.replace(params=jax.device_put(odd, placed))
  before = arrays({'params': state.params, 'extra': state.extra})
  for i in range(3):
    state, _ = exp.train_step(state, batch(exp, i))
  after = arrays({'params': state.params, 'extra': state.extra})
  assert before.keys() == after.keys()
  for name, value in before.items():
    same = value.tobytes() == after[name].tobytes()
    assert same == is_frozen(name, freeze), name


@pytest.mark.parametrize('freeze', PARTS)
def test_frozen_parameters_have_no_slots(freeze):
  exp = built(freeze)
  params = arrays_of_shapes(exp.abstract_state.params)
  slots = arrays_of_shapes(exp.abstract_state.opt_state)
  expected = [n for n in params if not is_frozen(n, freeze)]
  for slot in ('nu', 'trace'):
    found = [n for n in slots if f'/{slot}/' in f'/{n}']
    assert len(found) == len(expected) < len(params) + (freeze == 'none')
    assert all(any(f.endswith(n) for f in found) for n in expected)


def arrays_of_shapes(tree) -> list[str]:
  leaves = jax.tree_util.tree_leaves_with_path(tree)
  return [mesh.path_name(p) for p, _ in leaves]


def compiled_flops(exp, fn=None) -> float:
  spec = exp.batch_spec
  with jax.set_mesh(exp.mesh):
    lowered = (fn or exp.jitted_train_step).lower(exp.abstract_state, spec)
    return lowered.compile().cost_analysis()['flops']


@pytest.mark.slow
def test_frozen_parts_cost_no_gradient():
  """FLOPs of the compiled step fall with every part that is frozen.

  With the whole backbone frozen the step is the forward pass and the head.
  """
  exp = built('backbone')
  features = jax.jit(exp.predict['features'])
  forward = compiled_flops(exp, features)
  parts = ('none', 'conv1', 'conv3', 'backbone')
  flops = [compiled_flops(built(freeze)) for freeze in parts]
  assert all(a > b for a, b in itertools.pairwise(flops)), flops
  # conv1's input gradient is never needed, so the whole step is below 3.
  assert flops[0] > 2 * forward
  assert flops[-1] < 1.25 * forward, (flops, forward)


@pytest.mark.slow
def test_no_convolution_behind_a_frozen_backbone():
  """Each layer's convolution is compiled once, none as a gradient."""

  def convolutions(freeze: str) -> int:
    exp = built(freeze, **{'model.conv': 'native'})
    with jax.set_mesh(exp.mesh):
      lowered = exp.jitted_train_step.lower(exp.abstract_state, exp.batch_spec)
    return lowered.compile().as_text().count(' convolution(')

  model = resnet.Model(depth=14, width=4)
  shapes = jax.eval_shape(
    lambda x: model.init(jax.random.key(0), x, train=False),
    jnp.zeros((1, 16, 16, 3)),
  )
  kernels = [n for n in arrays_of_shapes(shapes['params']) if 'kernel' in n]
  assert convolutions('none') > 2 * len(kernels)
  # The head's products are no convolutions.
  assert convolutions('backbone') <= len(kernels)


def test_unknown_part_is_named():
  with pytest.raises(
    ValueError, match=r"model.freeze='conv9'; valid: none, conv1"
  ):
    built('conv9')
