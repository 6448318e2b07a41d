"""A detector trains the same on one device, on eight and in two processes.

Whatever images choose of anchors and boxes, they choose alike wherever they
lie: from one state, losses agree to rounding and selections exactly.
"""

import json
import os
import socket
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.big_vision_like.parallel import detection_steps as steps
from tests.conftest import xla_flags

pytestmark = pytest.mark.slow

MESH = 4, 2
STEPS = 3


@pytest.fixture(scope='module')
def single():
  """States before the steps on one device, and their figures."""
  exp, batches = steps.opened(1, 1, STEPS)
  state, states, found = exp.init(0), [], []
  for batch in batches:
    states.append(jax.tree.map(jnp.copy, state))
    state, metrics = exp.train_step(state, batch)
    found.append(steps.figures(metrics))
  return states, found


def agrees(found, expected):
  for name in steps.LOSSES:
    np.testing.assert_allclose(
      found[name], expected[name], rtol=1e-5, err_msg=name
    )
  for name in steps.SELECTED:
    assert found[name] == expected[name], name


def test_steps_of_eight_devices(single):
  states, expected = single
  assert all(f['num_positive_boxes'] > 0 for f in expected)
  exp, batches = steps.opened(*MESH, STEPS)
  placed = jax.tree.map(lambda x: x.sharding, exp.abstract_state)
  fresh = exp.init(0)
  for number, batch in enumerate(batches):
    state = jax.device_put(states[number], placed) if number else fresh
    agrees(steps.figures(exp.train_step(state, batch)[1]), expected[number])


def test_the_first_step_of_two_processes(single, project_root):
  with socket.socket() as free:
    free.bind(('localhost', 0))
    port = free.getsockname()[1]
  workers = [
    subprocess.Popen(
      [sys.executable, '-m', steps.__name__, str(port), str(i)],
      cwd=project_root,
      env={**os.environ, 'XLA_FLAGS': xla_flags(4)},
      stdout=subprocess.PIPE,
      text=True,
    )
    for i in range(2)
  ]
  try:
    outputs = [worker.communicate(timeout=240)[0] for worker in workers]
  finally:
    for worker in workers:
      worker.kill()
  for output in outputs:
    agrees(json.loads(output.strip().splitlines()[-1]), single[1][0])
