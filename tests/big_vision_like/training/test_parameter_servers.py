"""The table of parameter servers, at the paper's size."""

import math

import jax
import pytest

from big_vision_like import experiment
from big_vision_like.parallel import mesh as mesh_lib
from big_vision_like.training import parameter_servers
from configs import jft_resnet
from input_pipeline.labels.space import LabelSpace
from tests import tiny


@pytest.fixture(scope='module')
def paper():
  """Abstract state of the paper's ResNet-101."""
  config = jft_resnet.get_config('mode=downpour')
  exp = experiment.build(config, devices=jax.devices()[:1])
  return exp, exp.abstract_state


def test_every_variable_is_on_one_server(paper):
  _, state = paper
  table = parameter_servers.place(state, 17, 50)
  placed = [name for server in table for name in server.variables]
  expected = {
    f'{item}/{mesh_lib.path_name(path)}'
    for item in ('params', 'extra')
    for path, _ in jax.tree_util.tree_leaves_with_path(getattr(state, item))
  }
  assert len(placed) == len(set(placed))
  assert set(placed) == expected - {'params/head/kernel', 'params/head/bias'}
  counts = [len(server.variables) for server in table]
  assert max(counts) - min(counts) <= 1


def test_fifty_shards_on_seventeen_servers(paper):
  _, state = paper
  table = parameter_servers.place(state, 17, 50)
  shards = [k for server in table for k in server.shards]
  assert sorted(shards) == list(range(50))
  counts = sorted(len(server.shards) for server in table)
  assert counts == [2] + [3] * 16
  for server in table:  # round-robin
    assert all(b - a == 17 for a, b in zip(server.shards, server.shards[1:]))
  # The turn goes on where the variables end.
  last = max(range(17), key=lambda i: (len(table[i].variables), i))
  assert 0 in table[(last + 1) % 17].shards


def test_bytes(paper):
  _, state = paper
  table = parameter_servers.place(state, 17, 50)
  size = lambda tree: 4 * sum(math.prod(x.shape) for x in jax.tree.leaves(tree))
  params = size(state.params)
  assert sum(s.variable_bytes for s in table) == params + size(state.extra)
  assert sum(s.slot_bytes for s in table) == 2 * params
  # A server of shards alone: 366 of 18,300 columns, kernel and bias.
  alone = parameter_servers.place(
    state.replace(params={'head': state.params['head']}, extra={}), 50, 50
  )
  assert {s.variable_bytes for s in alone} == {4 * (2048 + 1) * 366}
  assert {s.slot_bytes for s in alone} == {2 * 4 * (2048 + 1) * 366}


def test_text(paper):
  exp, _ = paper
  lines = exp.servers.splitlines()
  assert lines[0] == (
    'parameter servers: 17, simulated; the head in 50 shards of 366 columns'
  )
  assert len(lines) == 2 + 17


def test_synchronous_runs_have_none():
  exp = experiment.build(tiny.config(), space=LabelSpace.of_count(13))
  assert exp.servers == ''


def test_unequal_shards_are_refused(paper):
  _, state = paper
  with pytest.raises(ValueError, match=r'head_shards=49 does not divide'):
    parameter_servers.place(state, 17, 49)
