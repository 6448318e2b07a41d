"""Weights of timm's ResNets, in and out."""

import functools
import json
import os
import pathlib
import re
import struct

import jax
import numpy as np
import pytest

from big_vision_like import experiment
from big_vision_like.checkpoints import (
  folders,
  reading,
  safetensors_files,
  torch_weights,
)
from big_vision_like.config import settings
from big_vision_like.training.state import TrainState
from tests.peers import timm_peer
from tools import convert_torch

torch = pytest.importorskip('torch')
CLASSES = 7
LUCK = 4.0  # of rounding, see test_timm_parity.py
EPSILON = np.finfo(np.float32).eps


def peer(depth: int):
  model = timm_peer.build(depth, num_classes=CLASSES)
  timm_peer.randomise(model, seed=0)
  return model.eval()


@functools.cache
def arrays(depth: int) -> dict[str, np.ndarray]:
  return {k: v.numpy().copy() for k, v in peer(depth).state_dict().items()}


def save(path: pathlib.Path, depth: int, **changes) -> str:
  tensors = {**arrays(depth), **changes}
  tensors = {k: v for k, v in tensors.items() if v is not None}
  safetensors_files.write(str(path), tensors, {})
  return str(path)


@pytest.mark.parametrize('depth', [50, 101, 152])
def test_names_map_there_and_back_to_the_bit(depth):
  tensors = arrays(depth)
  tree = torch_weights.from_tensors(tensors)
  assert torch_weights.depth_of(tree) == depth
  back = torch_weights.to_tensors(tree['params'], tree['batch_stats'], CLASSES)
  wanted = {k for k in tensors if not k.endswith('num_batches_tracked')}
  assert back.keys() == wanted
  for name in wanted:
    assert back[name].shape == tensors[name].shape
    assert back[name].tobytes() == tensors[name].tobytes(), name


def predict(folder: pathlib.Path, images: np.ndarray) -> np.ndarray:
  """Logits of a stored checkpoint, by its own config."""
  path = folders.find(folder)
  meta = reading.read_meta(path)
  spaces = reading.label_spaces(meta, path)
  task = experiment.build_task(settings.complete(meta['config']), spaces)
  where = jax.sharding.SingleDeviceSharding(jax.devices()[0])
  params, extra = reading.read_weights(path, where)
  unused = dict(
    step=None, opt_state=None, rng=None, ema=None, nonfinite_step=None
  )
  state = TrainState(params=params, extra=extra, **unused)
  run = jax.jit(task.predictions['logits'])
  return np.asarray(run(state, {'image': images})['logits'])


@pytest.mark.parametrize(
  'depth',
  # Depth 101 has the names and layers of these two.
  [50, pytest.param(152, marks=pytest.mark.nightly)],
)
def test_converted_weights_give_the_logits_of_timm(depth, tmp_path):
  """uint8 images through each side's own preprocessing and net."""
  model = peer(depth)
  source = save(tmp_path / 'w.safetensors', depth)
  convert_torch.convert(source, str(tmp_path / 'out'), 'imagenet')
  rng = np.random.default_rng(3)
  images = rng.integers(0, 256, (2, 96, 65, 3), np.uint8)
  config = model.default_cfg
  mean, std = (torch.tensor(config[k]).view(3, 1, 1) for k in ('mean', 'std'))

  def theirs(dtype):
    x = torch.from_numpy(images.transpose(0, 3, 1, 2).copy()).to(dtype) / 255
    with torch.no_grad():
      return model.to(dtype)((x - mean.to(dtype)) / std.to(dtype)).numpy()

  single, exact = theirs(torch.float32), theirs(torch.float64)
  ours = predict(tmp_path / 'out', images)
  assert np.abs(exact).max() > 1
  error = lambda a: np.linalg.norm(a - exact) / np.linalg.norm(exact)
  assert error(ours) <= LUCK * max(error(single), EPSILON)


def test_pickled_weights_are_read_by_another_process(tmp_path, capsys):
  torch.save({'state_dict': peer(50).state_dict()}, tmp_path / 'w.pth')
  arguments = ['--input', str(tmp_path / 'w.pth'), '--output']
  assert convert_torch.main([*arguments, str(tmp_path / 'out')]) == 0
  assert 'ResNet-50, 7 classes' in capsys.readouterr().out
  path = folders.find(tmp_path / 'out')
  where = jax.sharding.SingleDeviceSharding(jax.devices()[0])
  params, extra = reading.read_weights(path, where)
  tree = torch_weights.from_tensors(arrays(50))
  jax.tree.map(np.testing.assert_array_equal, params, tree['params'])
  stats = {'batch_stats': tree['batch_stats']}
  jax.tree.map(np.testing.assert_array_equal, extra, stats)
  assert convert_torch.main([*arguments, str(tmp_path / 'out')]) == 2
  assert 'is not empty' in capsys.readouterr().err


class Payload:
  """Pickles to a command that makes a file."""

  def __init__(self, path):
    self.path = path

  def __reduce__(self):
    return os.mkdir, (str(self.path),)


def raw_safetensors(header: str) -> bytes:
  """A file of this header and four bytes of data."""
  return struct.pack('<Q', len(header)) + header.encode() + b'\0' * 4


def entry(dtype: str = 'F32', shape: int = 1, end: int = 4) -> str:
  return f'{{"dtype":"{dtype}","shape":[{shape}],"data_offsets":[0,{end}]}}'


HOSTILE = {
  'a header of 1 TB': (
    'w.safetensors',
    struct.pack('<Q', 10**12) + b'{}',
    'header of 1,000,000,000,000 bytes',
  ),
  'nothing': ('w.safetensors', b'', 'a header of 0 bytes'),
  'a name twice': (
    'w.safetensors',
    raw_safetensors(f'{{"a":{entry()},"a":{entry()}}}'),
    "name 'a' occurs twice",
  ),
  'a tensor of 4 TB': (
    'w.safetensors',
    raw_safetensors(f'{{"a":{entry("F32", 10**12, 4 * 10**12)}}}'),
    'not a safetensors file',
  ),
  'an unknown type': (
    'w.safetensors',
    raw_safetensors(f'{{"a":{entry("PICKLE")}}}'),
    "of type 'PICKLE'",
  ),
  'nested without end': (
    'w.safetensors',
    raw_safetensors('[' * 100_000),
    'not a safetensors file',
  ),
  'another model': (
    'w.safetensors',
    raw_safetensors(f'{{"a":{entry()}}}'),
    'not those of a ResNet: a',
  ),
  'no pickle': (
    'w.pth',
    b'not a zip, not a pickle',
    r'error: .*w.pth: damaged, or not written by torch.save \(\w+\)$',
  ),
}


@pytest.mark.parametrize('case', HOSTILE)
def test_hostile_files_are_refused(tmp_path, capsys, case):
  name, content, message = HOSTILE[case]
  path = tmp_path / name
  path.write_bytes(content)
  out = tmp_path / 'out'
  assert convert_torch.main(['--input', str(path), '--output', str(out)]) == 2
  error = capsys.readouterr().err
  assert error.startswith('error: ')
  assert re.search(message, error), error
  assert not out.exists()


def test_a_pickle_that_runs_code_does_not(tmp_path, capsys):
  torch.save({'conv1.weight': Payload(tmp_path / 'ran')}, tmp_path / 'w.pth')
  arguments = ['--input', str(tmp_path / 'w.pth')]
  assert convert_torch.main([*arguments, '--output', str(tmp_path / 'o')]) == 2
  said = capsys.readouterr().err
  assert 'w.pth: holds posix.mkdir, which is no tensor and not loaded' in said
  assert 'weights_only' not in said and '\x1b' not in said
  assert not (tmp_path / 'ran').exists()


def zeros(*shape: int) -> np.ndarray:
  return np.zeros(shape, np.float32)


@pytest.mark.parametrize(
  'changes,message',
  [
    ({'fc.weight': None, 'fc.bias': None}, 'no classifier'),
    ({'layer1.0.conv1.bias': zeros(64)}, 'have no bias'),
    (
      {'layer5.0.conv1.weight': zeros(1, 1, 1, 1)},
      'not those of a ResNet: layer5.0.conv1.weight',
    ),
    (
      {'conv1.weight': zeros(64, 3, 7)},
      'conv1.weight must be floating point with 4 dimensions',
    ),
    (
      {'conv1.weight': zeros(64, 3, 3, 3)},
      r'conv1/kernel: \(3, 3, 3, 64\) in the file',
    ),
    ({'bn1.running_var': None}, 'bn1/var: absent in the file'),
  ],
)
def test_what_does_not_fit_is_named(tmp_path, capsys, changes, message):
  source = save(tmp_path / 'w.safetensors', 50, **changes)
  arguments = ['--input', source, '--output', str(tmp_path / 'out')]
  assert convert_torch.main(arguments) == 2
  assert re.search(message, capsys.readouterr().err)


def test_nets_of_basic_blocks_are_refused():
  model = timm_peer.import_timm().create_model('resnet18', num_classes=3)
  with pytest.raises(ValueError, match='no bottleneck ResNet'):
    tensors = {k: v.numpy() for k, v in model.state_dict().items()}
    torch_weights.depth_of(torch_weights.from_tensors(tensors))


@pytest.mark.slow
def test_a_warm_start_refuses_another_layout(tmp_path, command_line):
  """The arrays fit either net, so only the configs can tell."""
  tiny = 'configs/imagenet_transfer.py:tiny'
  first = tmp_path / 'slim'
  assert command_line('--config', tiny, '--workdir', first)['code'] == 0
  stored = json.loads((first / 'config.json').read_text())
  assert stored['model']['stride_in'] == 'last_unit_3x3'
  arguments = ['--workdir', tmp_path / 'next', '--config']
  refused = command_line(
    *arguments, f'configs/imagenet_transfer.py:layout=torch,init={first},tiny'
  )
  assert refused['code'] == 2
  for key in torch_weights.LAYOUT:
    assert key in refused['err']
  accepted = command_line(
    *arguments, f'configs/imagenet_transfer.py:init={first},tiny'
  )
  assert accepted['code'] == 0, accepted['err']
  assert 'warm start from' in accepted['out']
