"""Endpoints by name and blocks on their own, against the whole net."""

import functools
from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from big_vision_like.models import resnet

UNITS = (2, 2, 2, 2)  # of depth 26
NAMES = (
  'conv1',
  *(f'block{b}/unit{u}' for b in (1, 2, 3, 4) for u in (1, 2)),
  *('block1', 'block2', 'block3', 'block4', 'pooled'),
)


def _model(**options):
  return resnet.Model(**{'depth': 26, 'width': 4, **options})


@functools.cache
def _variables(depth=26, width=4):
  """Random parameters and statistics, none of them trivial."""
  shapes = jax.eval_shape(
    functools.partial(_model(depth=depth, width=width).init, train=False),
    jax.random.key(0),
    jnp.zeros((1, 32, 32, 3)),
  )
  rng = np.random.default_rng(0)

  def fill(path, leaf):
    if path[-1].key == 'kernel':
      std = np.sqrt(2 / np.prod(leaf.shape[:-1]))
      return rng.normal(scale=std, size=leaf.shape).astype(np.float32)
    low = -0.5 if path[-1].key in ('bias', 'mean') else 0.5
    return rng.uniform(low, low + 1, leaf.shape).astype(np.float32)

  return jax.tree_util.tree_map_with_path(fill, shapes)


def _images(batch=4, height=41, width=32):
  rng = np.random.default_rng(1)
  return rng.uniform(-1, 1, (batch, height, width, 3)).astype(np.float32)


def _assert_equal(a, b):
  """To the bit, in every array."""

  def check(path, x, y):
    x, y = np.asarray(x), np.asarray(y)
    assert (x.dtype, x.shape) == (y.dtype, y.shape), path
    assert x.tobytes() == y.tobytes(), jax.tree_util.keystr(path)

  jax.tree_util.tree_map_with_path(check, a, b)


def _whole(model, variables, images, train):
  ends, updates = model.apply(variables, images, train, mutable=['batch_stats'])
  return ends['block4'], updates['batch_stats']


def _in_two_parts(model, variables, images, train, **placed):
  """Up to block3; then block4 on its own."""
  ends, updates = model.apply(
    variables, images, train, ('block3',), mutable=['batch_stats']
  )
  assert list(ends) == ['block3']
  features, updates = model.apply(
    {**variables, **updates},
    ends['block3'],
    'block4',
    train,
    **placed,
    method='stage',
    mutable=['batch_stats'],
  )
  return features, updates['batch_stats']


def _results(forward, model, train):
  """Features of block4, statistics and the gradient of every parameter."""
  variables, images = _variables(model.depth, model.width), _images()
  weight = jax.random.normal(jax.random.key(2), (32 * model.width,))

  def loss(params):
    features, stats = forward(
      model, {**variables, 'params': params}, images, train
    )
    total = (features.astype(jnp.float32) @ weight).mean()
    return total, (features, stats)

  return jax.jit(jax.value_and_grad(loss, has_aux=True))(variables['params'])


@pytest.mark.parametrize(
  ('options', 'train'),
  [
    ({}, True),
    ({}, False),
    (dict(bn='ghost', bn_group=2, depth=14, remat=True), True),
    (dict(bn='frozen', depth=14, output_stride=8), True),
    (dict(compute_dtype='bfloat16', output_stride=16, depth=14), True),
    pytest.param(
      dict(compute_dtype='bfloat16', output_stride=16, depth=14),
      False,
      marks=pytest.mark.nightly,
    ),
    (
      dict(
        conv='native', stride_in='first_unit_3x3', output_stride=16, width=3
      ),
      True,
    ),
    (dict(freeze='conv4', stride_in='first_unit_1x1', remat=True), True),
    (dict(freeze='backbone', depth=14), True),
  ],
  ids=str,
)
def test_block4_on_its_own_is_that_of_the_whole_net(options, train):
  """Features, statistics, gradients of all parameters, to the bit."""
  model = _model(**options)
  whole = _results(_whole, model, train)
  assert np.ptp(np.asarray(whole[0][1][0], np.float32)) > 0
  parts = _results(_in_two_parts, model, train)
  _assert_equal(whole, parts)


@pytest.mark.parametrize('train', [True, False])
def test_only_the_stage_updates_its_statistics(train):
  model, variables = _model(), _variables()
  crops = np.random.default_rng(3).uniform(0, 1, (6, 7, 7, 64))
  _, updates = model.apply(
    variables,
    crops.astype(np.float32),
    'block4',
    train,
    method='stage',
    mutable=['batch_stats'],
  )
  before, after = variables['batch_stats'], updates['batch_stats']
  assert before.keys() == after.keys()
  for name in before:
    moved = [
      not np.array_equal(a, b)
      for a, b in zip(
        jax.tree.leaves(before[name]), jax.tree.leaves(after[name])
      )
    ]
    assert all(moved) if train and name == 'block4' else not any(moved), name


def _forward(model, x, *args, **kwargs):
  """Compiled: x is the one array."""
  apply = lambda variables, x: model.apply(variables, x, *args, **kwargs)
  return jax.jit(apply)(_variables(model.depth), x)


@pytest.mark.parametrize('train', [True, False])
def test_block4_of_a_stored_map(train):
  """Operation by operation: programs of other cuts round in other places."""
  model, variables = _model(depth=14, bn_group=2, bn='ghost'), _variables(14)
  apply = functools.partial(model.apply, variables, mutable=['batch_stats'])
  ends, whole = apply(_images(), train, ('block3', 'block4'))
  found, alone = apply(ends['block3'], 'block4', train, method='stage')
  _assert_equal(found, ends['block4'])
  stats = lambda updates: updates['batch_stats']['block4']
  _assert_equal(stats(alone), stats(whole))


@pytest.mark.parametrize(
  ('stride_in', 'net', 'other', 'name', 'placed'),
  [
    ('last_unit_3x3', 32, 16, 'block4', dict(rate=2)),
    *(
      pytest.param(*case, marks=pytest.mark.nightly)
      for case in (
        ('last_unit_3x3', 32, 8, 'block3', dict(stride=1, rate=2)),
        ('first_unit_1x1', 32, 16, 'block4', dict(stride=1, rate=2)),
        ('first_unit_1x1', 16, 32, 'block4', dict(stride=2, rate=1)),
      )
    ),
    ('first_unit_3x3', 16, 32, 'block4', dict(stride=2, rate=1)),
  ],
)
def test_a_stage_placed_as_in_a_net_of_another_stride(
  stride_in, net, other, name, placed
):
  net, other = (
    _model(stride_in=stride_in, output_stride=stride) for stride in (net, other)
  )
  before = f'block{int(name[-1]) - 1}'

  def in_two_parts(variables, images):
    ends = other.apply(variables, images, False, (before,))
    return net.apply(
      variables, ends[before], name, False, **placed, method='stage'
    )

  found = jax.jit(in_two_parts)(_variables(), _images(2))
  _assert_equal(found, _forward(other, _images(2), False, (name,))[name])


@pytest.mark.parametrize(
  ('stride_in', 'rate'),
  [('last_unit_3x3', 1), ('first_unit_3x3', 1), ('first_unit_1x1', 2)],
)
def test_a_stride_takes_every_second_row_and_column(stride_in, rate):
  """Of the block at stride 1, its 3x3 dilated where it is behind the stride."""
  model = _model(stride_in=stride_in, depth=14)
  crops = np.random.default_rng(3).uniform(0, 1, (2, 7, 8, 64))
  dense, strided = (
    _forward(model, crops, 'block4', False, *placed, method='stage')
    for placed in ((1, rate), (2, 1))
  )
  np.testing.assert_allclose(dense[:, ::2, ::2], strided, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('stride_in', get_args(resnet.StrideIn))
@pytest.mark.parametrize('rate', [1, 2, 4])
@pytest.mark.parametrize(('stride', 'sides'), [(1, (7, 9)), (2, (4, 5))])
def test_sizes_of_crops(stride, sides, rate, stride_in):
  model = resnet.Model(depth=50, output_stride=16, stride_in=stride_in)
  shapes = jax.eval_shape(
    functools.partial(model.init, train=False),
    jax.random.key(0),
    jnp.zeros((1, 64, 64, 3)),
  )
  crops = jax.ShapeDtypeStruct((64, 7, 9, 1024), jnp.float32)
  out = jax.eval_shape(
    lambda v, x: model.apply(
      v, x, 'block4', False, stride, rate, method='stage'
    ),
    shapes,
    crops,
  )
  assert out.shape == (64, *sides, 2048)


def test_every_endpoint_has_a_name():
  model = _model()
  ends = _forward(model, _images(2), False, NAMES)
  assert ends.keys() == {*NAMES}
  for block in ('block1', 'block2', 'block3', 'block4'):
    _assert_equal(ends[f'{block}/unit2'], ends[block])
    assert ends[f'{block}/unit1'].shape[-1] == ends[block].shape[-1]
  usual = _forward(model, _images(2), False)
  assert usual.keys() == {'conv1', *NAMES[-5:]}
  for name in usual:
    np.testing.assert_allclose(usual[name], ends[name], rtol=1e-5, atol=1e-5)


def test_the_unit_before_the_last_is_what_an_empty_last_unit_passes_on():
  """Scale and bias 0 leave a unit its shortcut: every second feature."""
  variables = jax.tree.map(np.array, _variables())
  norm = variables['params']['block3']['unit2']['bn3']
  norm['scale'][:] = norm['bias'][:] = 0
  taps = ('block3/unit1', 'block3')
  ends = _model().apply(variables, _images(2), False, taps)
  _assert_equal(ends['block3'], ends['block3/unit1'][:, ::2, ::2])
  assert np.ptp(ends['block3']) > 0


def _count(lowered) -> int:
  return lowered.as_text().count('stablehlo.convolution')


def _num_kernels(*parts) -> int:
  params = _variables()['params']
  leaves = jax.tree_util.tree_leaves_with_path([params[p] for p in parts])
  return sum(path[-1].key == 'kernel' for path, _ in leaves)


STEM = ('conv1', 'bn1')


@pytest.mark.parametrize(
  ('taps', 'kernels'),
  [
    ((), _num_kernels(*STEM, 'block1', 'block2', 'block3', 'block4')),
    (('conv1',), 1),
    (('block3', 'block1'), _num_kernels(*STEM, 'block1', 'block2', 'block3')),
    # A unit without a shortcut of its own has three convolutions.
    (
      ('block3/unit1',),
      _num_kernels(*STEM, 'block1', 'block2', 'block3') - 3,
    ),
  ],
)
def test_nothing_is_computed_behind_the_last_tap(taps, kernels):
  """Training keeps the updates of statistics: no part is dropped for free.

  A step has each convolution once, and twice as a gradient: of its kernel and
  of its input, the images aside.
  """
  model = _model(conv='native')

  def loss(params):
    variables = {**_variables(), 'params': params}
    ends, updates = model.apply(
      variables, _images(), True, taps, mutable=['batch_stats']
    )
    return sum(x.mean() for x in ends.values()), updates

  params = _variables()['params']
  assert _count(jax.jit(loss).lower(params)) == kernels
  step = jax.jit(jax.value_and_grad(loss, has_aux=True)).lower(params)
  assert _count(step) == 3 * kernels - 1


def test_block4_on_crops_is_computed_once():
  """What a detector runs: block3, and block4 on crops of it only."""
  model = _model(conv='native')
  whole, parts = (
    _count(
      jax.jit(functools.partial(forward, model, train=True)).lower(
        _variables(), images=_images()
      )
    )
    for forward in (_whole, _in_two_parts)
  )
  assert whole == parts == _num_kernels(*_variables()['params'])


def test_initialising_makes_every_parameter_whatever_the_taps():
  init = lambda taps: jax.eval_shape(
    lambda key: _model().init(key, jnp.zeros((1, 32, 32, 3)), False, taps),
    jax.random.key(0),
  )
  shapes = lambda tree: jax.tree.map(lambda x: x.shape, tree)
  assert shapes(init(('block1/unit1',))) == shapes(init(()))
  assert shapes(init(())) == shapes(_variables())


@pytest.mark.parametrize('name', ['block1', 'block2/unit1', 'block2'])
def test_taps_of_frozen_parts_have_no_gradient(name):
  variables = _variables()

  def loss(params):
    ends = _model(freeze='conv4').apply(
      {**variables, 'params': params}, _images(2), False, (name, 'block3/unit1')
    )
    return ends[name].mean()

  gradient = jax.jit(jax.grad(loss))(variables['params'])
  assert not any(np.any(x) for x in jax.tree.leaves(gradient))


@pytest.mark.parametrize(
  'tap', ['block5', 'block3/unit3', 'block3/unit0', 'unit1', 'features']
)
def test_an_unknown_tap_is_named_with_the_valid_ones(tap):
  words = f"'{tap}' is not an endpoint .*ResNet-26.* pooled.*block3/unit2"
  with pytest.raises(ValueError, match=words):
    _model().apply(_variables(), _images(1), False, ('block3', tap))


@pytest.mark.parametrize(
  ('name', 'placed', 'words'),
  [
    ('conv1', {}, "'conv1' is not a stage; valid: block1, block2"),
    ('block3/unit1', {}, "'block3/unit1' is not a stage"),
    ('block4', dict(stride=3), 'stride=3 of a stage is not 1 or 2'),
    ('block4', dict(rate=0), 'rate=0 of a stage is not at least 1'),
  ],
)
def test_a_wrong_stage_is_named(name, placed, words):
  with pytest.raises(ValueError, match=words):
    _model().apply(
      _variables(), jnp.zeros((1, 7, 7, 64)), name, False, **placed,
      method='stage',
    )  # fmt: skip
