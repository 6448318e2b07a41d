"""A model that breaks the contract of tasks is named in one line."""

import re

import jax
import jax.numpy as jnp
import pytest
from flax import linen as nn

from big_vision_like.tasks import multilabel, segmentation
from input_pipeline.labels.space import LabelSpace

BATCH = {'image': jax.ShapeDtypeStruct((2, 8, 8, 3), 'uint8')}


class Model(nn.Module):
  """Endpoints 'pooled' and 'block4', changed by `fault`."""

  fault: str = ''
  compute_dtype: str = 'float32'

  @nn.compact
  def __call__(self, image, train):
    x = nn.Dense(4)(image)
    ends = {'pooled': x.mean((1, 2)), 'block4': x[:, ::4, ::4]}
    return {
      '': lambda: ends,
      'fails': lambda: x @ image,
      'option': lambda: self.bad_option(),
      'array': lambda: x,
      'none': lambda: {},
      'not pooled': lambda: {'block4': x},
      'map': lambda: {**ends, 'pooled': x},
      'flat': lambda: {**ends, 'block4': x.mean((1, 2))},
      'integers': lambda: {**ends, 'pooled': jnp.zeros((2, 4), jnp.int32)},
      'other batch': lambda: {**ends, 'pooled': jnp.zeros((1, 4))},
      'text': lambda: {**ends, 'pooled': 'x'},
    }[self.fault]()

  def bad_option(self):
    raise ValueError('model.fault must be another')


class Bare(nn.Module):
  def __call__(self, image, train):
    return {'pooled': image.mean((1, 2))}


class WithoutTrain(nn.Module):
  @nn.compact
  def __call__(self, image):
    return {'pooled': nn.Dense(4)(image).mean((1, 2))}


class NoModule:
  pass


def init(model, task=multilabel):
  made = task.Task(model, LabelSpace.of_count(5))
  return jax.eval_shape(made.init, jax.random.key(0), BATCH)


@pytest.mark.parametrize('task', [multilabel, segmentation])
def test_one_that_keeps_it(task):
  params, extra = init(Model(), task)
  assert extra == {} and params.keys() == {'backbone', 'head'}


@pytest.mark.parametrize(
  ('model', 'message'),
  [
    (
      Model('fails'),
      r'Model: init on images \[2, 8, 8, 3\] fails: TypeError: .*'
      r'test_backbone_contract.py, line \d+\)$',
    ),
    (Model('option'), '^model.fault must be another$'),
    (WithoutTrain(), r"WithoutTrain: init .*TypeError: .* argument 'train'"),
    (Model('array'), 'must return a dict of endpoints by name, got .*Tracer'),
    (Model('none'), "has no endpoint 'pooled', .*; it returns none$"),
    (Model('not pooled'), "no endpoint 'pooled', .*; it returns 'block4'$"),
    (Model('map'), r"'pooled' must be \[B, D\] with B=2, got \[2, 8, 8, 4\]$"),
    (Model('other batch'), r"'pooled' must be \[B, D\] with B=2, got \[1, 4\]"),
    (Model('integers'), "'pooled' must be floating, got int32$"),
    (Model('text'), r"'pooled' must be \[B, D\] with B=2, got str$"),
    (Bare(), 'Bare: has no parameters$'),
    (NoModule(), "NoModule: has no method 'init'; it must be a flax.linen"),
  ],
)
def test_one_that_does_not(model, message):
  with pytest.raises(ValueError) as error:
    init(model)
  said = str(error.value)  # without the notes that JAX adds
  assert re.search(message, said), said
  assert '\n' not in said


def test_the_endpoint_of_another_head():
  with pytest.raises(ValueError, match=r"'block4' must be \[B, h, w, C\].*got"):
    init(Model('flat'), segmentation)
