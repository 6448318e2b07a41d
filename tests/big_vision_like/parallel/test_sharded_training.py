"""The same training on every mesh."""

import functools

import jax
import numpy as np
import pytest

from big_vision_like import experiment
from big_vision_like.tasks import multilabel
from input_pipeline import device, pipeline
from input_pipeline.labels.space import LabelSpace
from tests import tiny

MESHES = [
  (4, 2),
  (1, 8),
]  # tests/big_vision_like/parallel/test_elastic.py has (8, 1) and (1, 1) too


def train(steps, **changes):
  """(experiment, losses, final params as numpy) on the first devices.

  The rate is small: at 0.01 so tiny a net is chaotic, and two roundings part
  by 1e-2 within three steps; at 0.001 they stay at rounding.
  """
  config = tiny.config(**{'schedule.lr': 1e-3, **changes})
  source = pipeline.open_source(config.input.source)
  num = config.mesh.data * config.mesh.model
  exp = experiment.build(
    config, space=LabelSpace.of_count(13), devices=jax.devices()[:num]
  )
  state = exp.init(0)
  data = pipeline.train(
    source,
    pipeline.build_ops(config.input.ops, source),
    batch_size=config.input.batch_size,
    seed=0,
  )
  losses = []
  for _ in range(steps):
    batch = device.to_global(next(data), exp.batch_sharding)
    state, metrics = exp.train_step(state, batch)
    losses.append(float(metrics['loss']))
  data.close()
  return exp, losses, jax.device_get(state.params)


@functools.cache
def trained(data, model):
  """Three steps on a mesh."""
  return train(3, **{'mesh.data': data, 'mesh.model': model})


@pytest.mark.slow
@pytest.mark.parametrize('data, model', MESHES)
def test_losses_and_parameters_after_three_steps(data, model):
  _, expected, same = trained(1, 1)
  _, losses, params = trained(data, model)
  np.testing.assert_allclose(losses, expected, rtol=1e-5)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-6),
    params,
    same,
  )


@pytest.mark.slow
def test_padded_columns_never_move():
  exp, _, params = trained(*MESHES[-1])
  first = jax.device_get(exp.init(0).params)
  head, fresh = params['head'], first['head']
  assert head['kernel'].shape[1] == 16
  # Weight decay shrinks padded columns too, unless they start at zero.
  np.testing.assert_array_equal(head['bias'][13:], fresh['bias'][13:])
  assert not head['kernel'][:, 13:].any()
  assert head['kernel'][:, :13].any()


@pytest.mark.slow
def test_the_step_is_traced_once(monkeypatch):
  """Else the second step would compile again."""
  traced = []
  real = multilabel.Task.loss

  def counting(self, *args):
    traced.append(1)
    return real(self, *args)

  monkeypatch.setattr(multilabel.Task, 'loss', counting)
  train(3, **tiny.SIMPLE, **{'mesh.data': 2, 'mesh.model': 1})
  assert len(traced) == 1
