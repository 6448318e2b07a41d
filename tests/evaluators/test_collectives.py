"""Evaluation on many devices and hosts: what travels, and the same figures."""

import json
import os
import socket
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from big_vision_like.parallel import constraints
from big_vision_like.parallel import mesh as mesh_lib
from tests import hlo
from tests.conftest import xla_flags
from tests.evaluators import harness, two_processes

_NUM_CLASSES, _PADDED, _FEATURES = 1997, 2000, 48


def _class_sharded(state, batch):
  """A linear head whose logits lie split over both axes of the mesh."""
  num_images = batch['image'].shape[0]
  features = batch['image'].reshape(num_images, -1).astype(jnp.float32)
  logits = constraints.constrain(features, 'data', None) @ state
  return {'logits': constraints.constrain(logits, 'data', 'model')}


@pytest.mark.parametrize('kind', ['multilabel_map', 'classification'])
@pytest.mark.parametrize('shape', [(2, 4), (1, 8)])
def test_nothing_as_wide_as_the_classes_travels(kind, shape, monkeypatch):
  monkeypatch.setattr(harness, 'predict', _class_sharded)
  entry = dict(
    type=kind,
    data=dict(
      type=harness.SOURCE,
      labels=[[i] for i in range(16)],
      names=[str(i) for i in range(_NUM_CLASSES)],
    ),
    ops=[*harness.IMAGE_OPS, dict(op='single_label')],
    batch_size=16,
  )
  if kind == 'multilabel_map':
    entry['ops'][-1] = dict(op='labels', max_labels=4)
    entry['annotated'] = [str(i) for i in range(_NUM_CLASSES)]
  mesh = harness.mesh(*shape)
  evaluator = harness.build(entry, harness.context(_NUM_CLASSES, mesh=mesh))
  kernel = np.random.default_rng(0).standard_normal((_FEATURES, _PADDED))
  kernel = jax.device_put(
    kernel.astype(np.float32), NamedSharding(mesh, P(None, 'model'))
  )
  evaluator.run(kernel)  # finds the vocabulary
  batch = jax.device_put(
    {'image': np.zeros((16, 4, 4, 3), np.uint8), 'label': np.zeros(16, int)},
    mesh_lib.batch_sharding(mesh),
  )
  with jax.set_mesh(mesh):
    lowered = jax.jit(
      lambda state, batch: evaluator._outputs(state, batch),
      out_shardings=NamedSharding(mesh, P()),
    ).lower(kernel, batch)
  found = hlo.collectives(lowered.compile().as_text())
  assert found  # the text is still understood
  widest = max(c.shape[-1] for c in found if c.shape)
  assert widest <= 100 * shape[1]  # top-100 candidates of each class shard


@pytest.mark.slow
def test_two_processes_give_the_figures_of_one(project_root):
  with socket.socket() as free:
    free.bind(('localhost', 0))
    port = free.getsockname()[1]
  environment = dict(os.environ)
  environment['XLA_FLAGS'] = xla_flags(2)
  workers = [
    subprocess.Popen(
      [sys.executable, '-m', two_processes.__name__, str(port), str(i)],
      cwd=project_root,
      env=environment,
      stdout=subprocess.PIPE,
      text=True,
    )
    for i in range(2)
  ]
  try:
    outputs = [worker.communicate(timeout=120)[0] for worker in workers]
  finally:
    for worker in workers:
      worker.kill()
  expected = two_processes.figures(None, 0)
  assert expected['num_images'] == 21
  assert expected['boxes/num_images'] == 13
  assert 10 < expected['boxes/ap'] < 90
  for output in outputs:
    assert json.loads(output.strip().splitlines()[-1]) == expected
