"""Asynchronous workers in the real experiment: meshes, resume, plan, errors."""

import jax
import numpy as np
import pytest

from big_vision_like import experiment, plan, train
from big_vision_like.checkpoints import folders, reading
from input_pipeline.labels.space import LabelSpace
from tests import hlo, tiny
from tests.big_vision_like.parallel import test_sharded_training as sharded
from tests.big_vision_like.training.test_downpour import same

pytestmark = pytest.mark.usefixtures('programs_kept')

ASYNC = {'train.mode': 'downpour', 'train.downpour.head_shards': 8}
ONE = {'mesh.data': 1, 'mesh.model': 1}


@pytest.fixture(scope='module')
def synchronous():
  return sharded.train(4, **ONE)


@pytest.fixture(scope='module')
def eight_workers():
  return sharded.train(10, **ONE, **ASYNC, **{'train.downpour.workers': 8})


@pytest.mark.slow
@pytest.mark.usual_compiling
@pytest.mark.nightly
def test_one_worker_trains_as_without_workers_to_the_bit(synchronous):
  for policy in ('round_robin', 'event'):
    options = {'train.downpour.workers': 1, 'train.downpour.policy': policy}
    _, losses, params = sharded.train(4, **ONE, **ASYNC, **options)
    assert losses == synchronous[1]
    same(params, synchronous[2])


@pytest.mark.slow
def test_more_workers_part_from_it(synchronous, eight_workers):
  """At the first push all weights are alike, at the second they are not."""
  relative = np.abs(np.divide(eight_workers[1][:4], synchronous[1]) - 1)
  assert relative[0] < 1e-6
  assert (relative[1:] > 1e-3).all()


@pytest.mark.slow
@pytest.mark.parametrize(
  'data, model', [pytest.param(8, 1, marks=pytest.mark.nightly), (2, 4)]
)
def test_copies_are_divided_and_meshes_agree(eight_workers, data, model):
  mesh = {'mesh.data': data, 'mesh.model': model}
  exp, losses, params = sharded.train(
    10, **mesh, **ASYNC, **{'train.downpour.workers': 8}
  )
  np.testing.assert_allclose(losses, eight_workers[1], rtol=1e-5)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-6),
    params,
    eight_workers[2],
  )
  copies = exp.init(0).workers.params
  for leaf in jax.tree.leaves(copies):
    shapes = {s.data.shape[0] for s in leaf.addressable_shards}
    assert shapes == {8 // data}
  kernel = copies['head']['kernel']
  assert kernel.addressable_shards[0].data.shape[2] == 16 // model


@pytest.mark.slow
def test_no_collective_moves_copies():
  """A push brings one worker's weights to the devices, not all workers'."""
  workers = 24  # a number that occurs nowhere else
  config = tiny.config(
    **ASYNC,
    **{'mesh.data': 4, 'mesh.model': 2, 'train.downpour.workers': workers},
  )
  exp = experiment.build(config, space=LabelSpace.of_count(13))
  with jax.set_mesh(exp.mesh):
    lowered = exp.jitted_train_step.lower(exp.abstract_state, exp.batch_spec)
  moved = hlo.collectives(lowered.compile().as_text())
  assert moved
  for op, shape in moved:
    assert not shape or shape[0] not in (workers, workers // 4), (op, shape)


def test_copies_that_the_devices_do_not_divide_are_whole():
  config = tiny.config(**ASYNC, **{'mesh.data': 2, 'mesh.model': 4})
  config.train.downpour.workers = 3
  copies = experiment.build(
    config, space=LabelSpace.of_count(13)
  ).abstract_state.workers
  kernel, conv = copies.params['head']['kernel'], copies.params['backbone']
  assert kernel.sharding.shard_shape(kernel.shape) == (3, 128, 4)
  for leaf in jax.tree.leaves(conv):
    assert leaf.sharding.is_fully_replicated


@pytest.mark.slow
@pytest.mark.parametrize('policy', ['event'])
def test_resume_is_exact_to_the_bit(tmp_path, policy):
  changes = {
    **ASYNC,
    'evals': {},
    'train.ema_decay': 0.9,
    'train.downpour.workers': 2,
    'train.downpour.policy': policy,
  }
  whole = train.run(tiny.config(**changes), str(tmp_path / 'a'))
  train.run(tiny.config(total_steps=3, **changes), str(tmp_path / 'b'))
  resumed = train.run(tiny.config(**changes), str(tmp_path / 'b'))
  assert int(resumed.step) == 6
  same(resumed, whole)


@pytest.mark.slow
def test_warm_start_reaches_the_workers_and_sync_is_no_resume(tmp_path):
  before = train.run(
    tiny.config(total_steps=2, evals={}), str(tmp_path / 'sync')
  )
  warm = {
    **ASYNC,
    'evals': {},
    'total_steps': 1,
    'train.downpour.workers': 2,
    'init_from.path': str(tmp_path / 'sync'),
  }
  state = train.run(tiny.config(**warm), str(tmp_path / 'warm'))
  waiting = jax.tree.map(lambda x: x[1], state.workers.params)
  same(waiting['backbone'], before.params['backbone'])
  stored = reading.stored_shapes(folders.find(tmp_path / 'sync'), 'train')
  assert not [name for name in stored if 'workers' in name]
  other = tiny.config(evals={}, **ASYNC)
  other.resume.accept_config_change = True
  with pytest.raises(ValueError, match=r'train\.mode.*\n.*workers'):
    train.run(other, str(tmp_path / 'sync'))


def test_plan_counts_the_copies_and_shows_the_servers():
  changes = {**ASYNC, **ONE, 'train.downpour.workers': 5}
  exp = experiment.build(
    tiny.config(**changes),
    space=LabelSpace.of_count(13),
    devices=jax.devices()[:1],
  )
  made = plan.make(exp, count_flops=False)
  assert made.worker_bytes == 5 * made.param_bytes + 4 * 5
  base = plan.make(
    experiment.build(
      tiny.config(**ONE),
      space=LabelSpace.of_count(13),
      devices=jax.devices()[:1],
    ),
    count_flops=False,
  )
  assert made.device_bytes == base.device_bytes + made.worker_bytes
  assert 'parameter servers: 17' in plan.describe(exp, made)


@pytest.mark.parametrize(
  'changes, words',
  [
    ({'train.mode': 'async'}, r"train\.mode='async'; valid: sync, downpour"),
    (
      {'train.downpour.head_shards': 3},
      r'head_shards=3 does not divide task\.class_multiple=8.*multiple of 3',
    ),
    (
      {'train.downpour.head_shards': 0},
      r'head_shards=0 must be int of at least',
    ),
    ({'train.downpour.servers': 0}, r'servers=0 must be int of at least 1'),
    ({'train.downpour.workers': 0}, r'workers=0 must be int of at least 1'),
    ({'train.downpour.policy': 'lifo'}, r"policy='lifo'; valid: round_robin"),
  ],
)
def test_config_errors_name_the_key(changes, words):
  with pytest.raises(ValueError, match=words):
    experiment.build(
      tiny.config(**{**ASYNC, **changes}), space=LabelSpace.of_count(13)
    )
