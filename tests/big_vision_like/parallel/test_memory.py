"""What the compiled train step keeps, and in which types."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from big_vision_like import experiment, plan
from big_vision_like.checkpoints import manager
from big_vision_like.training import optim
from input_pipeline import device
from input_pipeline.labels.space import LabelSpace
from tests import tiny

pytestmark = pytest.mark.usefixtures('programs_kept')


def build(**changes):
  num = changes.get('mesh.data', 8) * changes.get('mesh.model', 1)
  return experiment.build(
    tiny.config(**changes),
    space=LabelSpace.of_count(13),
    devices=jax.devices()[:num],
  )


def compiled(exp):
  with jax.set_mesh(exp.mesh):
    lowered = exp.jitted_train_step.lower(exp.abstract_state, exp.batch_spec)
  return lowered.compile()


def batch_of(exp, seed=0):
  """A batch of noise with one label an image."""
  rng = np.random.default_rng(seed)
  batch = {}
  for name, spec in exp.batch_spec.items():
    if name == 'label_ids':
      value = np.full(spec.shape, -1)
      value[:, 0] = rng.integers(0, exp.task.num_classes, len(value))
    elif name == '_mask':
      value = np.ones(spec.shape)
    else:
      value = rng.integers(0, 256, spec.shape)
    batch[name] = value.astype(spec.dtype)
  return device.to_global(batch, exp.batch_sharding)


def run(exp, state, steps):
  losses = []
  for i in range(steps):
    state, metrics = exp.train_step(state, batch_of(exp, i))
    losses.append(float(metrics['loss']))
  return state, losses


@pytest.mark.slow
@pytest.mark.parametrize('split', [False, True])
def test_the_new_state_takes_the_place_of_the_old(split):
  """Donation: the step holds no second copy of params, slots, averages."""
  exp = build(
    **{
      'mesh.data': 4,
      'mesh.model': 2,
      'mesh.shard_slots': split,
      'train.ema_decay': 0.9,
    }
  )
  state_bytes = plan.bytes_per_device(exp.abstract_state)
  memory = compiled(exp).memory_analysis()
  assert memory.alias_size_in_bytes >= state_bytes
  new = memory.output_size_in_bytes - memory.alias_size_in_bytes
  assert new < 0.05 * state_bytes  # metrics and their table of pointers


@pytest.mark.slow
def test_split_slots_train_the_same_with_fewer_bytes():
  """RMSProp's two slots on 8 devices; the rest of the state stays whole."""
  rate = {'schedule.lr': 1e-3}  # see test_sharded_training.train
  whole = build(**rate)
  split = build(**rate, **{'mesh.shard_slots': True})
  a, b = plan.make(whole), plan.make(split)
  assert b.param_bytes == a.param_bytes
  # 8 does not divide the stem's kernel, those of 4 to 4 channels and the three
  # batch norms of 4; the head's bias belongs to 'model'.
  uncut = 7 * 7 * 3 * 4 + 4 * 4 + 3 * 3 * 4 * 4 + 3 * 2 * 4 + 16
  count = 4
  assert a.slot_bytes == count + 2 * 4 * a.num_params
  assert b.slot_bytes == count + 2 * 4 * ((a.num_params - uncut) // 8 + uncut)
  states, losses = [], []
  for exp in (whole, split):
    state, curve = run(exp, exp.init(0), 3)
    states.append(state)
    losses.append(curve)
  np.testing.assert_allclose(losses[1], losses[0], rtol=1e-5)
  for item in ('params', 'opt_state', 'extra'):
    jax.tree.map(
      lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=2e-6),
      jax.device_get(getattr(states[1], item)),
      jax.device_get(getattr(states[0], item)),
    )
  held = lambda s: sum(
    x.addressable_shards[0].data.nbytes for x in jax.tree.leaves(s.opt_state)
  )
  assert [held(s) for s in states] == [a.slot_bytes, b.slot_bytes]


@pytest.mark.slow
@pytest.mark.parametrize(
  'before, after',
  [(False, True), pytest.param(True, False, marks=pytest.mark.nightly)],
)
def test_checkpoints_do_not_depend_on_split_slots(tmp_path, before, after):
  mesh = {'mesh.data': 4, 'mesh.model': 2, 'train.ema_decay': 0.9}
  first = build(**mesh, **{'mesh.shard_slots': before})
  state, _ = run(first, first.init(0), 1)
  ckpt = manager.Checkpointer(str(tmp_path))
  ckpt.save(1, state, {'config': {}, 'num_classes': 13})
  ckpt.wait()
  ckpt.close()
  other = build(**mesh, **{'mesh.shard_slots': after})
  reader = manager.Checkpointer(str(tmp_path), read_only=True)
  restored = reader.restore(other.abstract_state, 1)
  wanted = other.abstract_state.opt_state
  for x, y, spec in zip(
    jax.tree.leaves(state.opt_state),
    jax.tree.leaves(restored.opt_state),
    jax.tree.leaves(wanted),
    strict=True,
  ):
    np.testing.assert_array_equal(x, y)
    assert y.sharding == spec.sharding


# XLA's CPU backend drops the barriers around what is to be computed again
# before it orders the operations, so that there it saves nothing; kept, they
# show what other backends do.
KEEP_BARRIERS = {
  'xla_disable_hlo_passes': 'cse_barrier_expander,optimization-barrier-expander'
}


@pytest.mark.slow
def test_rematerialisation_lowers_the_memory_of_temporaries():
  def temporaries(remat):
    exp = build(
      **{
        'mesh.data': 1,
        'model.depth': 50,
        'model.remat': remat,
        'model.conv': 'native',
        'input.batch_size': 512,
      }
    )
    with jax.set_mesh(exp.mesh):
      lowered = exp.jitted_train_step.lower(exp.abstract_state, exp.batch_spec)
    memory = lowered.compile(compiler_options=KEEP_BARRIERS).memory_analysis()
    return memory.temp_size_in_bytes

  assert temporaries(True) < 0.7 * temporaries(False)


@pytest.mark.slow
def test_bfloat16_is_for_computing_only():
  exp = build(
    **{'model.compute_dtype': 'bfloat16', 'mesh.model': 2, 'mesh.data': 4}
  )
  state, losses = run(exp, exp.init(0), 1)
  assert np.isfinite(losses).all()
  for item in (state.params, state.extra, state.opt_state.slots):
    for leaf in jax.tree.leaves(item):
      assert leaf.dtype == jnp.float32
  with jax.set_mesh(exp.mesh):
    logits, features = (
      jax.jit(exp.predict[name])(state, batch_of(exp))[name]
      for name in ('logits', 'features')
    )
  assert logits.dtype == features.dtype == jnp.float32
  # The products really are of bfloat16.
  assert ' bf16[' in exp.jitted_train_step.lower(
    exp.abstract_state, exp.batch_spec
  ).as_text('hlo')


@pytest.mark.slow
def test_a_million_classes_on_eight_devices():
  classes, features = 1_000_000, 32  # ResNet of width 1
  exp = experiment.build(
    tiny.config(
      **{
        'mesh.data': 1,
        'mesh.model': 8,
        'model.width': 1,
        'task.reduction': 'mean_classes',
        'task.prior': 1e-6,
      }
    ),
    space=LabelSpace.of_count(classes),
  )
  state, losses = run(exp, exp.init(0), 2)
  assert np.isfinite(losses).all()
  assert int(state.nonfinite_step) == -1
  slots = optim.slot_trees(state.opt_state).values()
  assert len(slots) == 2
  for params in (state.params, *slots):
    kernel = params['head']['kernel']
    assert kernel.shape == (features, classes)
    for shard in kernel.addressable_shards:
      assert shard.data.nbytes == 4 * features * classes // 8
  # Nothing of the step holds a whole kernel or all logits of a device's rows.
  memory = compiled(exp).memory_analysis()
  shard = 4 * features * classes // 8
  assert memory.alias_size_in_bytes < 3.1 * shard  # kernel and two slots
  assert memory.temp_size_in_bytes < 4 * shard
