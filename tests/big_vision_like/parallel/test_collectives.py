"""The collectives of the compiled train step, counted against tables by hand.

ResNet-14 of width 4 has 128 features; 48 images a step are 6 a device; 13
classes are padded to 88. Shapes are those on one device, dims sorted (hlo.py).
docs/sharding.md has the same tables in words.
"""

import collections
import functools

import jax
import pytest

from big_vision_like import experiment
from big_vision_like.training import step
from input_pipeline.labels.space import LabelSpace
from tests import hlo, tiny

# The backbone is data-parallel over all devices, whatever the mesh.
# Channels of its batch norms: the stem's, then those of conv1, conv2, conv3
# and the shortcut of the one unit of each block.
BN_CHANNELS = [
  4,
  *(4, 4, 16, 16),
  *(8, 8, 32, 32),
  *(16, 16, 64, 64),
  *(32, 32, 128, 128),
]
KERNEL_GRADIENTS = [
  (3, 4, 7, 7),
  *((4, 4), (3, 3, 4, 4), (4, 16), (4, 16)),
  *((8, 16), (3, 3, 8, 8), (8, 32), (16, 32)),
  *((16, 32), (3, 3, 16, 16), (16, 64), (32, 64)),
  *((32, 64), (3, 3, 32, 32), (32, 128), (64, 128)),
]
GRADIENTS = [('all-reduce', 'f32', s, 'all') for s in KERNEL_GRADIENTS]
# Sums of x and x^2.
MOMENTS = [('all-reduce', 'f32', (c,), 'all') for c in BN_CHANNELS] * 2
# Gradients of scale and bias. For statistics of the whole batch the gradient
# of the input needs the same sums.
BN_GRADIENTS = [('all-reduce', 'f32', (c,), 'all') for c in BN_CHANNELS] * 2
SCALARS = [
  ('all-reduce', 's32', (), 'all'),  # number of valid examples
  ('all-reduce', 'f32', (), 'all'),  # loss
  ('all-reduce', 'f32', (), 'all'),  # labels per image, the task's metric
]
BACKBONE = GRADIENTS + MOMENTS + BN_GRADIENTS + SCALARS

# grad_norm and update_norm: the kernel's part and the bias's.
HEAD_NORMS = [('all-reduce', 'f32', (), 'model')] * 4
HEAD = {
  (8, 1): [
    ('all-reduce', 'f32', (88, 128), 'all'),  # gradient of the kernel
    ('all-reduce', 'f32', (88,), 'all'),  # of the bias
  ],
  (4, 2): [
    ('all-gather', 's32', (12, 32), 'model'),  # label ids
    ('all-gather', 'f32', (12, 128), 'model'),  # features
    ('all-reduce', 'f32', (12,), 'model'),  # loss per example
    ('all-gather', 'f32', (12,), 'model'),  # its gradient
    ('reduce-scatter', 'f32', (6, 128), 'model'),  # gradient of the features
    ('all-reduce', 'f32', (44, 128), 'data'),  # of the kernel
    ('all-reduce', 'f32', (44,), 'data'),  # of the bias
    *HEAD_NORMS,
  ],
  (2, 4): [
    ('all-gather', 's32', (24, 32), 'model'),
    ('all-gather', 'f32', (24, 128), 'model'),
    ('all-reduce', 'f32', (24,), 'model'),
    ('all-gather', 'f32', (24,), 'model'),
    ('reduce-scatter', 'f32', (6, 128), 'model'),
    ('all-reduce', 'f32', (22, 128), 'data'),
    ('all-reduce', 'f32', (22,), 'data'),
    *HEAD_NORMS,
  ],
  (1, 8): [  # 'model' is all devices; no device shares its columns
    ('all-gather', 's32', (32, 48), 'all'),
    ('all-gather', 'f32', (48, 128), 'all'),
    ('all-reduce', 'f32', (48,), 'all'),
    ('all-gather', 'f32', (48,), 'all'),
    ('reduce-scatter', 'f32', (6, 128), 'all'),
    *[('all-reduce', 'f32', (), 'all')] * 4,
  ],
}


def build(mesh, **changes):
  changes = {
    'mesh.data': mesh[0],
    'mesh.model': mesh[1],
    'input.batch_size': 48,
    'task.class_multiple': 88,
    **changes,
  }
  return experiment.build(tiny.config(**changes), space=LabelSpace.of_count(13))


def counted(text, mesh):
  return collections.Counter(map(tuple, hlo.transfers(text, mesh)))


def of_step(mesh, **changes):
  exp = build(mesh, **changes)
  with jax.set_mesh(exp.mesh):
    lowered = exp.jitted_train_step.lower(exp.abstract_state, exp.batch_spec)
  return counted(lowered.compile().as_text(), mesh)


@pytest.mark.slow
@pytest.mark.parametrize('mesh', HEAD, ids=str)
def test_the_step_moves_exactly_this(mesh):
  assert of_step(mesh) == collections.Counter(BACKBONE + HEAD[mesh])


@pytest.mark.slow
def test_split_slots_add_one_gather_a_parameter():
  """And turn sums of kernel gradients into sums over 'data', then of parts.

  A reduce-scatter where the compiler has that pass; here an all-reduce over
  'data', a cut to a fourth, an all-reduce over 'model'. The head's bias is
  split by class already, and its kernel's gradient is summed as before.
  """
  found = of_step((4, 2), **{'mesh.shard_slots': True})
  parts = [
    (1, 3, 7, 7),
    *((1, 4), (1, 3, 3, 4), (1, 16), (1, 16)),
    *((4, 8), (2, 3, 3, 8), (2, 32), (4, 32)),
    *((8, 16), (3, 3, 4, 16), (4, 64), (8, 64)),
    *((16, 32), (3, 3, 8, 32), (8, 128), (16, 128)),
  ]
  parts = [tuple(n for n in sorted(p) if n != 1) for p in parts]
  expected = [
    *[('all-reduce', 'f32', s, 'data') for s in KERNEL_GRADIENTS],
    *[('all-reduce', 'f32', s, 'model') for s in parts],
    *[('all-gather', 'f32', s, 'data') for s in KERNEL_GRADIENTS],
    *[('all-gather', 'f32', (c,), 'data') for c in BN_CHANNELS] * 2,
    ('all-gather', 'f32', (44, 128), 'data'),
    *[('all-reduce', 'f32', (), 'data')] * len(parts),  # of grad_norm
    *MOMENTS,
    *BN_GRADIENTS,
    *SCALARS,
    *HEAD[4, 2],
  ]
  assert found == collections.Counter(expected)


@functools.cache
def of_gradients(bn, group):
  """Of forward and backward alone, without new batch statistics."""
  mesh = (8, 1)
  exp = build(mesh, **{'model.bn': bn, 'model.bn_group': group})
  gradients = step.make_gradients(exp.task)

  def loss_and_gradients(state, batch):
    result = gradients(state.params, state.extra, batch, state.rng)
    return result.loss, result.grads

  with jax.set_mesh(exp.mesh):
    lowered = jax.jit(loss_and_gradients).lower(
      exp.abstract_state, exp.batch_spec
    )
  return counted(lowered.compile().as_text(), mesh)


@pytest.mark.slow
def test_ghost_batch_norm_moves_no_moments():
  gradients = collections.Counter(
    GRADIENTS + BN_GRADIENTS + SCALARS[:2] + HEAD[8, 1]
  )
  moments = collections.Counter(MOMENTS)
  # Groups of 3 of the 6 images of a device, and all 6.
  assert of_gradients('ghost', 3) == gradients
  assert of_gradients('ghost', 6) == gradients
  assert of_gradients('batch', 6) == gradients + moments
  # A group over two devices does move them.
  assert of_gradients('ghost', 12) != gradients


def test_the_parser_reads_the_three_forms_of_groups():
  columns = [[0, 2, 4, 6], [1, 3, 5, 7]]
  rows = [[0, 1], [2, 3], [4, 5], [6, 7]]
  for text, expected in [
    ('replica_groups={{0,2,4,6},{1,3,5,7}}', columns),
    ('replica_groups=[2,4]<=[4,2]T(1,0), use', columns),
    ('replica_groups=[4,2]<=[8], dimensions', rows),
    ("replica_groups=mesh['a'=4,'b'=2] {'a'}, x", columns),
    ("replica_groups=mesh['a'=4,'b'=2] {'b'}, x", rows),
    (
      "replica_groups=mesh['a'=1,'b'=2,'c'=4], device_ids=([4,2]T(1,0)) {'b'}",
      rows,
    ),
  ]:
    assert hlo.groups(text) == expected, text
