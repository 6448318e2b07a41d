"""Padded, class-partitioned head."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from big_vision_like.models.parts import heads


@pytest.mark.parametrize(
  'classes, multiple, expected',
  [
    (18_291, 50, 18_300),  # the paper's shards: 50 x 366, 9 columns padded
    (18_291, 1, 18_291),
    (18_291, 8, 18_296),
    (18_291, 67, 18_291),
    (18_291, 128, 18_304),
    (1, 8, 8),
  ],
)
def test_padded_classes(classes, multiple, expected):
  assert heads.padded_classes(classes, multiple) == expected


@pytest.mark.parametrize('classes, multiple', [(0, 1), (3, 0), (-1, 2)])
def test_padded_classes_refuses(classes, multiple):
  with pytest.raises(ValueError, match='at least 1'):
    heads.padded_classes(classes, multiple)


def test_paper_size():
  shapes = jax.eval_shape(
    heads.ClassifierHead(18_291, class_multiple=50).init,
    jax.random.key(0),
    jax.ShapeDtypeStruct((2, 2048), jnp.float32),
  )['params']
  assert shapes['kernel'].shape == (2048, 18_300)
  assert shapes['bias'].shape == (18_300,)
  assert 2048 * 18_291 == 37_459_968  # weights without padding


def test_init_does_not_depend_on_padding_and_pads_with_zeros():
  x = jnp.zeros((2, 16))
  narrow, wide = (
    heads.ClassifierHead(11, multiple, prior=0.01).init(jax.random.key(3), x)
    for multiple in (1, 8)
  )
  for name in ('kernel', 'bias'):
    a, b = narrow['params'][name], wide['params'][name]
    assert a.shape[-1] == 11 and b.shape[-1] == 16
    np.testing.assert_array_equal(a, b[..., :11])
    assert not np.any(b[..., 11:])
  bias = np.asarray(narrow['params']['bias'])
  np.testing.assert_allclose(1 / (1 + np.exp(-bias)), 0.01, rtol=1e-5)


def test_default_init_is_he_fan_in():
  params = heads.ClassifierHead(3000).init(
    jax.random.key(0), jnp.zeros((1, 512))
  )['params']
  assert np.std(params['kernel']) == pytest.approx((2 / 512) ** 0.5, rel=0.01)
  assert not np.any(params['bias'])


def test_logits_are_dense_layer_and_float32():
  rng = np.random.default_rng(0)
  x = rng.normal(size=(4, 16)).astype(np.float32)
  kernel = rng.normal(size=(16, 12)).astype(np.float32)
  bias = rng.normal(size=12).astype(np.float32)
  params = {'params': dict(kernel=kernel, bias=bias)}
  exact = x.astype(np.float64) @ kernel + bias
  logits = heads.ClassifierHead(11, 4).apply(params, x)
  np.testing.assert_allclose(logits, exact, rtol=1e-5, atol=1e-5)
  half = heads.ClassifierHead(11, 4, dtype='bfloat16').apply(params, x)
  assert half.dtype == logits.dtype == jnp.float32
  # Operands rounded to 8 bits, products summed in float32.
  cast = lambda a: np.asarray(jnp.asarray(a, jnp.bfloat16), np.float64)
  np.testing.assert_allclose(
    half, cast(x) @ cast(kernel) + bias, rtol=1e-5, atol=1e-5
  )


@pytest.mark.parametrize('prior', [0.0, 1.0, -0.5])
def test_prior_must_be_a_probability(prior):
  with pytest.raises(ValueError, match='prior'):
    heads.ClassifierHead(3, prior=prior).init(
      jax.random.key(0), jnp.zeros((1, 2))
    )


def test_logits_stay_split_by_class():
  mesh = jax.make_mesh(
    (2, 4), ('data', 'model'), axis_types=(AxisType.Auto,) * 2
  )
  head = heads.ClassifierHead(101, class_multiple=8)
  with jax.set_mesh(mesh):
    x = jnp.ones((16, 32))
    params = jax.jit(head.init)(jax.random.key(0), x)
    logits = jax.jit(head.apply)(params, x)
  assert logits.shape == (16, 104)
  assert logits.sharding.is_equivalent_to(
    jax.NamedSharding(mesh, P('data', 'model')), ndim=2
  )


def test_indivisible_batch_is_named():
  mesh = jax.make_mesh(
    (2, 4), ('data', 'model'), axis_types=(AxisType.Auto,) * 2
  )
  head = heads.ClassifierHead(101, class_multiple=8)
  params = head.init(jax.random.key(0), jnp.ones((1, 32)))
  with jax.set_mesh(mesh), pytest.raises(ValueError, match=r'is 12, .*batch'):
    jax.jit(head.apply)(params, jnp.ones((12, 32)))


@pytest.mark.parametrize('shape', [(4, 2), (1, 8)])
def test_inside_shard_map_the_plain_product_runs(shape):
  mesh = jax.make_mesh(
    shape, ('data', 'model'), axis_types=(AxisType.Auto,) * 2
  )
  head = heads.ClassifierHead(11, class_multiple=8)
  x = np.random.default_rng(0).normal(size=(16, 32)).astype(np.float32)
  params = head.init(jax.random.key(0), x)
  rows = P(('data', 'model'))
  with jax.set_mesh(mesh):
    manual = jax.shard_map(head.apply, in_specs=(P(), rows), out_specs=rows)
    actual = jax.jit(manual)(params, x)
    split = jax.jit(head.apply)(params, x)
  np.testing.assert_allclose(
    actual, head.apply(params, x), rtol=1e-5, atol=1e-6
  )
  np.testing.assert_allclose(split, actual, rtol=1e-5, atol=1e-6)
