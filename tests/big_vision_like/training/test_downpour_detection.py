"""The paper's 9 workers and 11 parameter servers train a detector."""

import jax
import numpy as np
import pytest

from configs import coco_detection
from tests.big_vision_like.parallel import detection_steps as steps

WORKERS = 9


@pytest.mark.slow
def test_workers_push_what_the_weights_that_they_hold_give():
  """The first nine hold the first weights, the tenth push is of the second."""
  config = coco_detection.get_config('tiny,init=random,asynchronous=true')
  exp, batches = steps.opened(1, 1, WORKERS + 1, config)
  assert 'parameter servers: 11' in exp.servers
  state = exp.init(0)
  assert {x.shape[0] for x in jax.tree.leaves(state.workers.params)} == {9}
  loss = jax.jit(exp.task.loss, static_argnums=4)
  held = [jax.device_get(state.params)]
  # In training batch norm takes the statistics of the batch.
  extra, key = jax.device_get(state.extra), jax.random.clone(state.rng)
  for number, batch in enumerate(batches):
    state, metrics = exp.train_step(state, batch)
    assert int(metrics['staleness']) == min(number, WORKERS - 1)
    if not number:
      held.append(jax.device_get(state.params))
    if number in (0, 1, WORKERS - 1, WORKERS):
      params = held[number // WORKERS]
      rng = jax.random.fold_in(key, number)
      per_image, _, aux = loss(params, extra, batch, rng, True)
      for name, value in {**aux, 'loss': per_image}.items():
        np.testing.assert_allclose(
          metrics[name], value.mean(), rtol=1e-5, atol=1e-6, err_msg=name
        )
  assert int(state.nonfinite_step) == -1
