"""ResNet weights under the names that torchvision and timm give them.

    conv1.weight [out, in, h, w]   backbone/conv1/kernel [h, w, in, out]
    bn1.{weight, bias}             backbone/bn1/{scale, bias}
    bn1.running_{mean, var}        batch_stats/bn1/{mean, var}
    layer2.0.conv3.weight          backbone/block2/unit1/conv3/kernel
    layer2.0.downsample.{0, 1}.*   backbone/block2/unit1/{shortcut, shortcut_bn}
    fc.{weight [C, D], bias}       head/{kernel [D, C], bias}

Names and shapes are all that is mapped. The nets also differ in what no array
shows: torch's have the stride in the 3x3 of a block's first unit, pad the
max-pool at both ends and standardise pixels by channel (`LAYOUT`).
"""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from big_vision_like.models import resnet

# What a config of torch's net says, by key.
LAYOUT = {
  'model.stride_in': 'first_unit_3x3',
  'model.pool_padding': 'symmetric',
  'task.pixels': 'imagenet',
}
_TENSOR = re.compile(
  r'(?:layer(?P<block>[1-4])\.(?P<unit>\d{1,3})\.)?'
  r'(?P<layer>conv[1-3]|bn[1-3]|downsample\.[01]|fc)\.'
  r'(?P<kind>weight|bias|running_mean|running_var)'
)
_STATISTICS = {'running_mean': 'mean', 'running_var': 'var'}
_NORM = {'weight': 'scale', 'bias': 'bias'}
_SHORTCUT = {'downsample.0': 'shortcut', 'downsample.1': 'shortcut_bn'}
_LONGEST_LIST = 10


def from_tensors(tensors: Mapping[str, np.ndarray]) -> dict[str, Any]:
  """{'params': {'backbone', 'head'}, 'batch_stats'} of a state dict.

  Args:
    tensors: arrays by name; `num_batches_tracked` is left out.

  Raises:
    ValueError: a variant of ResNet that this is not, a name that none has, or
      an array of another rank; lists the names.
  """
  _refuse_variants(tensors)
  tree: dict[str, Any] = {}
  unknown = []
  for name, tensor in sorted(tensors.items()):
    if name.endswith('.num_batches_tracked'):
      continue
    match = _TENSOR.fullmatch(name)
    if match is None:
      unknown.append(name)
      continue
    path, array = _ours(match, np.asarray(tensor), name)
    node = tree
    for key in path[:-1]:
      node = node.setdefault(key, {})
    node[path[-1]] = np.ascontiguousarray(array, np.float32)
  if unknown:
    more = len(unknown) - _LONGEST_LIST
    raise ValueError(
      f'{len(unknown)} tensors are not those of a ResNet: '
      f'{", ".join(unknown[:_LONGEST_LIST])}'
      + (f' and {more} more' if more > 0 else '')
    )
  return tree


def _ours(
  match: re.Match[str], tensor: np.ndarray, name: str
) -> tuple[tuple[str, ...], np.ndarray]:
  """(path, array) of a tensor whose name matched."""
  layer, kind = match['layer'], match['kind']
  unit = ()
  if match['block']:
    unit = (f'block{match["block"]}', f'unit{int(match["unit"]) + 1}')
  layer_name = _SHORTCUT.get(layer, layer)
  is_norm = layer_name.endswith('bn') or layer_name.startswith('bn')
  if layer == 'fc':
    _check_rank(name, tensor, 2 if kind == 'weight' else 1)
    leaf = 'kernel' if kind == 'weight' else 'bias'
    return ('params', 'head', leaf), tensor.T
  if is_norm:
    _check_rank(name, tensor, 1)
    if kind in _STATISTICS:
      return ('batch_stats', *unit, layer_name, _STATISTICS[kind]), tensor
    return ('params', 'backbone', *unit, layer_name, _NORM[kind]), tensor
  if kind != 'weight':
    raise ValueError(f'{name}: the convolutions of a ResNet have no {kind}')
  _check_rank(name, tensor, 4)
  path = ('params', 'backbone', *unit, layer_name, 'kernel')
  return path, tensor.transpose(2, 3, 1, 0)


def _refuse_variants(tensors: Mapping[str, np.ndarray]) -> None:
  """Says what a net is where its names or shapes show a known other one."""
  shape = lambda name: getattr(tensors.get(name), 'shape', ())
  stem, conv = shape('conv1.weight'), shape('layer1.0.conv2.weight')
  signs = {
    'a stem of several convolutions (conv1.0; resnet50c, resnet50d)':
      'conv1.0.weight' in tensors,
    'average pooling in its shortcuts (downsample.1 is a convolution; '
    'resnet50d)': len(shape('layer1.0.downsample.1.weight')) == 4,
    'grouped convolutions (ResNeXt)': conv[:1] != conv[1:2],
    'bottlenecks of another width than its stem (Wide ResNet, ResNeXt)':
      len(stem) == len(conv) == 4 and stem[:1] != conv[:1],
    'squeeze and excitation (se; SE-ResNet)': any('.se.' in n for n in tensors),
  }  # fmt: skip
  found = [text for text, is_so in signs.items() if is_so]
  if found:
    raise ValueError(
      f'a variant of ResNet that is not supported: it has {" and ".join(found)}'
    )


def check_finite(tensors: Mapping[str, np.ndarray], what: str) -> None:
  """Refuses arrays with NaN or infinities, as float32 has them.

  Args:
    tensors: by name.
    what: file or checkpoint that they come from, for the message.

  Raises:
    ValueError: names the arrays and counts the numbers.
  """
  found = []
  for name, tensor in tensors.items():
    with np.errstate(over='ignore'):
      bad = tensor.size - np.isfinite(np.asarray(tensor, np.float32)).sum()
    if bad:
      found.append(f'{name}: {bad:,} of {tensor.size:,} numbers')
  if found:
    more = len(found) - _LONGEST_LIST
    raise ValueError(
      f'{what}: {len(found)} arrays are not finite: '
      f'{", ".join(found[:_LONGEST_LIST])}'
      + (f' and {more} more' if more > 0 else '')
    )


def _check_rank(name: str, tensor: np.ndarray, rank: int) -> None:
  if tensor.ndim != rank or tensor.dtype.kind != 'f':
    raise ValueError(
      f'{name} must be floating point with {rank} dimensions, got '
      f'{tensor.dtype} {tensor.shape}'
    )


def to_tensors(
  params: Mapping[str, Any], batch_stats: Mapping[str, Any], num_classes: int
) -> dict[str, np.ndarray]:
  """The state dict of our arrays: the inverse of `from_tensors`.

  Args:
    params: {'backbone', 'head'} of the ResNet with a linear head.
    batch_stats: moving statistics.
    num_classes: true number of classes; padding of the head is cut.

  Returns:
    float32 arrays by torch's names.
  """
  tensors: dict[str, np.ndarray] = {}

  def walk(tree: Mapping[str, Any], name: str) -> None:
    for key, value in tree.items():
      if isinstance(value, Mapping):
        walk(value, f'{name}{_THEIRS.get(key) or _their_part(key)}.')
      else:
        array = np.asarray(value, np.float32)
        if array.ndim == 4:
          array = array.transpose(3, 2, 0, 1)
        tensors[f'{name}{_KINDS[key]}'] = np.ascontiguousarray(array)

  walk(params['backbone'], '')
  walk(batch_stats, '')
  head = params['head']
  for key, value in (('weight', head['kernel']), ('bias', head['bias'])):
    cut = np.asarray(value, np.float32)[..., :num_classes]
    tensors[f'fc.{key}'] = np.ascontiguousarray(cut.T)
  return tensors


_THEIRS = {ours: theirs for theirs, ours in _SHORTCUT.items()}
_KINDS = {
  'kernel': 'weight', 'scale': 'weight', 'bias': 'bias',
  'mean': 'running_mean', 'var': 'running_var',
}  # fmt: skip


def _their_part(key: str) -> str:
  if key.startswith('block'):
    return f'layer{key.removeprefix("block")}'
  if key.startswith('unit'):
    return str(int(key.removeprefix('unit')) - 1)
  return key


def depth_of(tree: Mapping[str, Any]) -> int:
  """Layers of the ResNet that the result of `from_tensors` is.

  Raises:
    ValueError: no known number of units, such as that of basic blocks.
  """
  backbone = tree.get('params', {}).get('backbone', {})
  units = tuple(len(backbone.get(f'block{n}', ())) for n in range(1, 5))
  for depth, known in resnet.UNITS.items():
    bottleneck = 'conv3' in backbone.get('block1', {}).get('unit1', {})
    if units == known and bottleneck:
      return depth
  known = ', '.join(f'{d}: {u}' for d, u in resnet.UNITS.items())
  raise ValueError(
    f'blocks of {units} units are no bottleneck ResNet of a known depth '
    f'({known})'
  )
