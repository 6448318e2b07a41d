"""Mesh sizes, path rules and their errors."""

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from big_vision_like.parallel import mesh


@pytest.mark.parametrize(
  'data, model, expected',
  [(-1, 1, (8, 1)), (-1, 2, (4, 2)), (2, -1, (2, 4)), (1, 8, (1, 8))],
)
def test_shape(data, model, expected):
  assert mesh.shape(dict(data=data, model=model), 8) == expected
  created = mesh.create(dict(data=data, model=model))
  assert created.devices.shape == expected
  assert created.axis_names == ('data', 'model')


@pytest.mark.parametrize(
  'data, model, words',
  [
    (3, 1, 'mesh.data=3 x mesh.model=1'),
    (-1, 3, 'mesh.model=3'),
    (-1, -1, 'only one'),
    (0, 8, 'mesh.data=0'),
    (16, 1, '8 devices'),
  ],
)
def test_shape_errors_name_the_key(data, model, words):
  with pytest.raises(ValueError, match=words):
    mesh.shape(dict(data=data, model=model), 8)


def test_parameters_slots_and_averages_follow_the_table():
  tree = {
    'params': {
      'head': {'kernel': np.zeros((4, 16)), 'bias': np.zeros(16)},
      'backbone': {'conv1': {'kernel': np.zeros((7, 7, 3, 8))}},
    },
    'opt_state': {'slots': {'ms': {'head': {'kernel': np.zeros((4, 16))}}}},
    'step': np.zeros(()),
  }
  placed = mesh.shardings(tree, mesh.create(dict(data=2, model=4)))
  assert placed['params']['head']['kernel'].spec == P(None, 'model')
  assert placed['params']['head']['bias'].spec == P('model')
  assert placed['params']['backbone']['conv1']['kernel'].spec == P()
  slot = placed['opt_state']['slots']['ms']['head']['kernel']
  assert slot.spec == P(None, 'model')
  assert placed['step'].spec == P()


@pytest.mark.parametrize(
  'name, shape, expected',
  [
    ('backbone/conv1/kernel', (7, 7, 3, 8), P(None, None, None, 'data')),
    ('backbone/conv2/kernel', (3, 3, 8, 8), P(None, None, 'data', None)),
    ('backbone/bn1/scale', (8,), P('data')),
    ('backbone/bn1/bias', (6,), P()),
    ('head/kernel', (4, 16), P('data', 'model')),
    ('head/kernel', (6, 16), P(None, 'model')),
    ('head/bias', (16,), P('model')),
  ],
)
def test_split_slots_take_the_first_whole_dim(name, shape, expected):
  leaf = np.zeros(shape)
  tree = {name: leaf, f'opt_state/slots/ms/{name}': leaf}
  created = mesh.create(dict(data=4, model=2))
  placed = mesh.shardings(tree, created, shard_slots=True)
  assert placed[f'opt_state/slots/ms/{name}'].spec == expected
  assert placed[name].spec == mesh.spec_for(name, leaf)
  whole = mesh.shardings(tree, created)
  assert whole[f'opt_state/slots/ms/{name}'].spec == whole[name].spec
  alone = mesh.create(dict(data=1, model=8))
  assert mesh.slot_spec(name, leaf, alone) == mesh.spec_for(name, leaf)


def test_odd_class_count_is_refused_with_the_key_to_change():
  tree = {'head': {'kernel': np.zeros((4, 101))}}
  with pytest.raises(ValueError, match=r'head/kernel.*task\.class_multiple'):
    mesh.shardings(tree, mesh.create(dict(data=2, model=4)))


def test_batch_must_be_a_multiple_of_the_devices():
  created = mesh.create(dict(data=-1, model=2))
  mesh.check_batch(created, 16, 'input.batch_size')
  with pytest.raises(ValueError, match=r'input\.batch_size=12'):
    mesh.check_batch(created, 12, 'input.batch_size')


def test_path_names_cover_dicts_tuples_and_attributes():
  tree = {'a': [1, {'b': 2}]}
  leaves = jax.tree_util.tree_leaves_with_path(tree)
  assert [mesh.path_name(p) for p, _ in leaves] == ['a/0', 'a/1/b']
