"""ResNet: sizes, strides and dilation, modes, options, sharding."""

import functools
from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from big_vision_like.config import plugins
from big_vision_like.models import resnet

BLOCKS = ('block1', 'block2', 'block3', 'block4')


def _small(**options):
  return resnet.Model(**{'depth': 14, 'width': 8, **options})


@functools.cache
def _variables(depth=14, width=8):
  """Random parameters and statistics, none of them trivial."""
  model = resnet.Model(depth=depth, width=width)
  shapes = jax.eval_shape(
    functools.partial(model.init, train=False),
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


def _images(batch=2, height=64, width=64):
  rng = np.random.default_rng(1)
  return rng.uniform(-1, 1, (batch, height, width, 3)).astype(np.float32)


def _shapes(size, **options):
  model = resnet.Model(**options)
  ends, _ = jax.eval_shape(
    functools.partial(model.init_with_output, train=False),
    jax.random.key(0),
    jax.ShapeDtypeStruct((1, *size, 3), jnp.float32),
  )
  return {name: end.shape[1:] for name, end in ends.items()}


@pytest.mark.parametrize(
  ('depth', 'count'), [(50, 23_508_032), (101, 42_500_160), (152, 58_143_808)]
)
def test_parameter_count(depth, count):
  """torchvision's counts less the classifier, whatever the strides."""
  model = resnet.Model(depth=depth)
  variables = jax.eval_shape(
    functools.partial(model.init, train=False),
    jax.random.key(0),
    jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32),
  )
  assert sum(x.size for x in jax.tree.leaves(variables['params'])) == count


def test_parameter_names():
  paths = {
    jax.tree_util.keystr(path, simple=True, separator='/')
    for path, _ in jax.tree_util.tree_leaves_with_path(_variables(26))
  }
  for path in (
    'params/conv1/kernel',
    'params/bn1/scale',
    'params/block1/unit1/shortcut/kernel',
    'params/block1/unit1/shortcut_bn/bias',
    'params/block4/unit2/conv3/kernel',
    'batch_stats/block4/unit2/bn3/mean',
    'batch_stats/bn1/var',
  ):
    assert path in paths
  assert not any('unit2/shortcut' in path for path in paths)
  assert not any(path.endswith('conv1/bias') for path in paths)


def test_endpoint_sizes_of_the_slim_layout():
  sizes = _shapes((299, 299))
  assert sizes == {
    'conv1': (150, 150, 64),
    'block1': (38, 38, 256),
    'block2': (19, 19, 512),
    'block3': (10, 10, 1024),
    'block4': (10, 10, 2048),
    'pooled': (2048,),
  }


@pytest.mark.parametrize('stride_in', ['first_unit_1x1', 'first_unit_3x3'])
def test_endpoint_sizes_with_the_stride_in_the_first_unit(stride_in):
  sizes = _shapes((299, 299), stride_in=stride_in)
  assert [sizes[b][0] for b in BLOCKS] == [75, 38, 19, 10]


@pytest.mark.parametrize('stride_in', get_args(resnet.StrideIn))
@pytest.mark.parametrize(
  ('size', 'output_stride', 'expected'),
  [
    ((513, 513), 8, (65, 65)),
    ((353, 257), 8, (45, 33)),
    ((600, 1024), 16, (38, 64)),
    ((600, 1024), 32, (19, 32)),
  ],
)
def test_dense_sizes(size, output_stride, expected, stride_in):
  sizes = _shapes(size, output_stride=output_stride, stride_in=stride_in)
  assert sizes['block4'][:2] == expected


def test_dilation_of_the_slim_layout():
  """Rate 2 in block4 at stride 16; 2 in block3 and 4 in block4 at 8."""
  rates = lambda stride: [
    [unit.rate for unit in block]
    for block in resnet.unit_specs((3, 4, 6, 3), stride, 'last_unit_3x3')
  ]
  assert rates(32) == [[1] * 3, [1] * 4, [1] * 6, [1] * 3]
  assert rates(16) == [[1] * 3, [1] * 4, [1] * 6, [2] * 3]
  assert rates(8) == [[1] * 3, [1] * 4, [2] * 6, [4] * 3]


@pytest.mark.parametrize('stride_in', get_args(resnet.StrideIn))
@pytest.mark.parametrize('output_stride', [8, 16])
def test_dense_features_subsample_to_strided_ones(output_stride, stride_in):
  """Everywhere, borders included: all padding is symmetric zeros."""
  images = _images(1, 75, 102)
  apply = lambda **options: resnet.Model(
    depth=26, width=8, stride_in=stride_in, **options
  ).apply(_variables(26), images, train=False)['block4']
  strided, dense = apply(), apply(output_stride=output_stride)
  step = 32 // output_stride
  assert dense.shape[1] > strided.shape[1]
  np.testing.assert_allclose(
    dense[:, ::step, ::step], strided, rtol=1e-4, atol=1e-4
  )


def test_slim_and_original_layouts_agree_where_units_do_not_mix():
  """With stride only in the 3x3, block1 sees the same net up to its stride."""
  images = _images(1)
  slim = _small(depth=26).apply(_variables(26), images, train=False)
  first = _small(depth=26, stride_in='first_unit_3x3').apply(
    _variables(26), images, train=False
  )
  np.testing.assert_allclose(
    slim['block1'], first['block1'][:, ::2, ::2], rtol=1e-4, atol=1e-5
  )


def _loss_and_gradient(model, variables, images):
  weight = jax.random.normal(jax.random.key(2), (32 * model.width,))

  def loss(params):
    ends, new = model.apply(
      {**variables, 'params': params}, images, True, mutable='batch_stats'
    )
    return (ends['pooled'] @ weight).sum(), new['batch_stats']

  return jax.jit(jax.value_and_grad(loss, has_aux=True))(variables['params'])


def _assert_trees_close(a, b, tolerance):
  def check(path, x, y):
    x, y = np.asarray(x), np.asarray(y)
    scale = np.abs(x).max()
    error = np.abs(x - y).max()
    assert error <= tolerance * scale, (jax.tree_util.keystr(path), error)

  jax.tree_util.tree_map_with_path(check, a, b)


def test_conv_methods_agree():
  images = _images(4)
  results = [
    _loss_and_gradient(_small(conv=conv), _variables(), images)
    for conv in ('native', 'matmul')
  ]
  _assert_trees_close(*results, tolerance=2e-4)


def test_remat_changes_nothing():
  images = _images(4)
  results = [
    _loss_and_gradient(_small(remat=remat), _variables(), images)
    for remat in (False, True)
  ]
  _assert_trees_close(*results, tolerance=1e-5)


def test_remat_keeps_less():
  """The backward pass is handed block inputs, not every activation."""
  images = _images(2, 192, 192)
  residuals = []
  for remat in (False, True):
    model = _small(depth=26, remat=remat)
    forward = lambda params, model=model: model.apply(
      {**_variables(26), 'params': params}, images, True, mutable='batch_stats'
    )[0]['pooled']
    _, backward = jax.eval_shape(
      lambda p, forward=forward: jax.vjp(forward, p), _variables(26)['params']
    )
    residuals.append(sum(x.size for x in jax.tree.leaves(backward)))
  assert residuals[1] < 0.5 * residuals[0]


def test_frozen_batch_norm_leaves_the_statistics():
  variables = _variables()
  images = _images()
  ends, new = _small(bn='frozen').apply(
    variables, images, train=True, mutable='batch_stats'
  )
  jax.tree.map(
    np.testing.assert_array_equal, new['batch_stats'], variables['batch_stats']
  )
  evaluated = _small().apply(variables, images, train=False)
  np.testing.assert_array_equal(ends['pooled'], evaluated['pooled'])


def test_evaluation_needs_no_mutable_statistics_and_ignores_the_batch():
  images = _images(4)
  apply = jax.jit(functools.partial(_small().apply, train=False))
  whole = apply(_variables(), images)['pooled']
  each = [apply(_variables(), images[i : i + 1])['pooled'] for i in range(4)]
  np.testing.assert_allclose(whole, np.concatenate(each), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('bn', ['batch', 'ghost'])
def test_eight_devices_train_as_one(bn):
  mesh = jax.make_mesh((4, 2), ('data', 'model'), (AxisType.Auto,) * 2)
  model, images = _small(bn=bn, bn_group=2), _images(16, 32, 32)
  single = _loss_and_gradient(model, _variables(), images)
  replicated, batch = (
    NamedSharding(mesh, spec) for spec in (P(), P(('data', 'model')))
  )
  with jax.set_mesh(mesh):
    sharded = _loss_and_gradient(
      model,
      jax.device_put(_variables(), replicated),
      jax.device_put(images, batch),
    )
  _assert_trees_close(single, jax.device_get(sharded), tolerance=1e-3)


def test_bfloat16_stays_close_and_keeps_float32_where_it_must():
  images = _images(4)
  full = _small().apply(_variables(), images, train=False)
  half, new = jax.eval_shape(
    functools.partial(
      _small(compute_dtype='bfloat16').apply, train=True, mutable='batch_stats'
    ),
    _variables(),
    images,
  )
  assert {half[block].dtype for block in BLOCKS} == {jnp.dtype('bfloat16')}
  assert half['pooled'].dtype == jnp.float32
  assert {x.dtype for x in jax.tree.leaves(new)} == {jnp.dtype('float32')}
  half = _small(compute_dtype='bfloat16').apply(
    _variables(), images, train=False
  )
  error = np.abs(half['pooled'] - full['pooled']).mean()
  assert error < 0.03 * np.abs(full['pooled']).mean()


@pytest.mark.parametrize(
  ('option', 'value', 'choice'),
  [
    ('depth', 34, '101'),
    ('output_stride', 4, '16'),
    ('stride_in', 'first', 'last_unit_3x3'),
    ('pool_padding', 'valid', 'symmetric'),
    ('bn', 'group', 'ghost'),
    ('compute_dtype', 'float16', 'bfloat16'),
    ('conv', 'im2col', 'matmul'),
    ('remat', 'yes', 'bool'),
    ('width', 0, 'int of at least 1'),
    ('bn_group', 2.5, 'int of at least 1'),
    ('bn_decay', 1.0, r'\[0, 1\)'),
    ('bn_epsilon', 0.0, 'above 0'),
  ],
)
def test_bad_options_are_named(option, value, choice):
  with pytest.raises(ValueError, match=rf'model\.{option}={value!r}.*{choice}'):
    resnet.Model(**{option: value})


def test_ghost_group_must_divide_the_batch():
  with pytest.raises(ValueError, match=r'model\.bn_group.*batch of 6'):
    _small(bn='ghost', bn_group=4).apply(
      _variables(), _images(6), train=True, mutable='batch_stats'
    )


def test_is_a_plugin_with_options_by_name():
  assert plugins.get('model', 'resnet') is resnet.Model
  plugins.check_kwargs('model', resnet.Model, {'depth': 101, 'bn': 'ghost'})
  with pytest.raises(ValueError, match=r"'detph'.*did you mean 'depth'"):
    plugins.check_kwargs('model', resnet.Model, {'detph': 101})
