"""The paper's 9 workers and 11 parameter servers train a detector."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import coco_detection
from tests.big_vision_like.parallel import detection_steps as steps

WORKERS = 9


def opened(num_steps, arguments=''):
  config = coco_detection.get_config(f'tiny,init=random{arguments}')
  return steps.opened(1, 1, num_steps, config)


@pytest.mark.slow
def test_workers_push_what_the_weights_that_they_hold_give():
  """The first nine hold the first weights, the tenth push is of the second."""
  exp, batches = opened(WORKERS + 1, ',asynchronous=true')
  sync, _ = opened(1)
  assert 'parameter servers: 11' in exp.servers
  first = sync.init(0)
  copy = lambda state: jax.tree.map(jnp.copy, state)
  second, _ = sync.train_step(copy(first), batches[0])

  def expected(number):
    """Of the synchronous step, with the chance of the step in question."""
    held = second if number == WORKERS else first
    state = copy(held).replace(step=jnp.asarray(number, held.step.dtype))
    return steps.figures(sync.train_step(state, batches[number])[1])

  state = exp.init(0)
  assert {x.shape[0] for x in jax.tree.leaves(state.workers.params)} == {9}
  for number, batch in enumerate(batches):
    state, metrics = exp.train_step(state, batch)
    assert int(metrics['staleness']) == min(number, WORKERS - 1)
    if number in (0, 1, WORKERS - 1, WORKERS):
      found, wanted = steps.figures(metrics), expected(number)
      for name in steps.LOSSES + steps.SELECTED:
        np.testing.assert_allclose(
          found[name], wanted[name], rtol=1e-5, err_msg=name
        )
  assert int(state.nonfinite_step) == -1
