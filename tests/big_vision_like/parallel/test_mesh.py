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
  assert placed[name].spec == mesh.spec_for(name, leaf.ndim)
  whole = mesh.shardings(tree, created)
  assert whole[f'opt_state/slots/ms/{name}'].spec == whole[name].spec
  alone = mesh.create(dict(data=1, model=8))
  spec = mesh.spec_for(name, leaf.ndim)
  assert mesh.slot_spec(spec, leaf, alone) == spec


@pytest.mark.parametrize('place', ['', 'params/', 'opt_state/slots/ms/'])
@pytest.mark.parametrize(
  'arrays, expected',
  [
    # A matrix and its vector: the class-partitioned head.
    (
      {'head/kernel': (4, 16), 'head/bias': (16,)},
      {'head/kernel': P(None, 'model'), 'head/bias': P('model')},
    ),
    # Heads for pixels: 21 classes, which no mesh divides.
    ({'head/kernel': (1, 1, 4, 21), 'head/bias': (21,)}, {}),
    ({'head/kernel': (3, 3, 4, 21), 'head/bias': (21,)}, {}),
    ({'head/rate6/kernel': (3, 3, 4, 21), 'head/rate6/bias': (21,)}, {}),
    # Boxes and their classes, in modules of the head.
    ({'head/boxes/kernel': (4, 84), 'head/boxes/bias': (84,)}, {}),
    ({'box_head/kernel': (4, 21), 'box_head/bias': (21,)}, {}),
    # Two heads of one tree, told apart.
    (
      {
        'a/head/kernel': (4, 16), 'a/head/bias': (16,),
        'b/head/kernel': (1, 1, 4, 21), 'b/head/bias': (21,),
      },
      {'a/head/kernel': P(None, 'model'), 'a/head/bias': P('model')},
    ),
    # A slot of the bias alone: the kernel is frozen.
    ({'head/bias': (16,)}, {'head/bias': P('model')}),
    ({'head/kernel': (16,), 'head/bias': (4, 16)}, {}),
  ],
)  # fmt: skip
def test_the_rule_of_a_head_is_its_name_and_rank(arrays, expected, place):
  tree = {f'{place}{name}': np.zeros(size) for name, size in arrays.items()}
  placed = mesh.shardings(tree, mesh.create(dict(data=2, model=4)))
  for name in arrays:
    assert placed[f'{place}{name}'].spec == expected.get(name, P()), name


def test_workers_copies_of_a_head_for_pixels_are_whole():
  make = lambda *shape: {
    'kernel': np.zeros((3, *shape)), 'bias': np.zeros((3, shape[-1]))
  }  # fmt: skip
  created = mesh.create(dict(data=2, model=4))
  heads = {'head': make(4, 16), 'pixels': {'head': make(1, 1, 4, 21)}}
  tree = {'workers': {'params': heads}}
  placed = mesh.shardings(tree, created)['workers']['params']
  assert placed['head']['kernel'].spec == P(None, None, 'model')
  assert placed['head']['bias'].spec == P(None, 'model')
  assert placed['pixels']['head']['kernel'].spec == P()
  assert placed['pixels']['head']['bias'].spec == P()
  assert mesh.spec_for('workers/params/head/kernel', 3) == P(None, 'model')
  assert mesh.spec_for('workers/params/head/kernel', 5) == P()


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
