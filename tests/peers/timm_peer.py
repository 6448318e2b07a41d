"""timm's ResNet on torch, and its weights as a tree of ours.

timm imports torchvision, whose compiled operators are absent when the two come
from different wheels (torch for CPU, torchvision for CUDA). A ResNet calls
none of them, so declaring their names is enough to import both.
"""

import importlib
import sys
from collections.abc import Mapping
from types import ModuleType
from typing import Any

import numpy as np

from tests.peers import torchvision_peer

_NMS = '(Tensor dets, Tensor scores, float iou_threshold) -> Tensor'
_OPERATORS = {'nms': _NMS, 'qnms': _NMS}
_kept = []  # a torch.library.Library forgets its operators when it is freed


def import_timm() -> ModuleType:
  """Imports timm, with or without torchvision's compiled operators."""
  torchvision_peer.compiled_operators()  # declared below they would not load
  try:
    importlib.import_module('torchvision')
  except RuntimeError:  # operator torchvision::nms does not exist
    import torch

    library = torch.library.Library('torchvision', 'FRAGMENT')
    _kept.append(library)
    for name, signature in _OPERATORS.items():
      if not hasattr(torch.ops.torchvision, name):
        library.define(name + signature)
    for name in [m for m in sys.modules if m.split('.')[0] == 'torchvision']:
      del sys.modules[name]
    importlib.import_module('torchvision')
  return importlib.import_module('timm')


def build(depth: int, num_classes: int = 0, **options: Any) -> Any:
  """timm's resnet<depth> (a torch Module), initialised but not pretrained."""
  return import_timm().create_model(
    f'resnet{depth}', pretrained=False, num_classes=num_classes, **options
  )


def randomise(model: Any, seed: int) -> None:
  """Gives every parameter and statistic a value that matters.

  Initialised nets hide errors: scales are one, biases and means zero, and
  timm's last scale of a unit is zero. Convolutions keep He's deviation; the
  scale of each unit's last norm is small so that depth does not blow up.
  """
  import torch

  rng = np.random.default_rng(seed)
  for name, value in sorted(model.state_dict().items()):
    shape = tuple(value.shape)
    kind = name.rsplit('.', 1)[1]
    if value.ndim > 1:
      new = rng.normal(0, np.sqrt(2 / np.prod(shape[1:])), shape)
    elif kind == 'num_batches_tracked':
      continue
    elif kind in ('bias', 'running_mean'):
      new = rng.uniform(-0.3, 0.3, shape)
    elif '.bn3.' in name and kind == 'weight':
      new = rng.uniform(0.1, 0.4, shape)
    else:
      new = rng.uniform(0.5, 1.5, shape)
    value.copy_(torch.from_numpy(np.asarray(new, np.float32)))


_STATISTICS = {'running_mean': 'mean', 'running_var': 'var'}
_NORM = {'weight': 'scale', 'bias': 'bias'}
_DOWNSAMPLE = {'0': 'shortcut', '1': 'shortcut_bn'}


def to_tree(state: Mapping[str, Any]) -> dict[str, Any]:
  """A state dict's arrays as {'params', 'batch_stats'} of models.resnet.

  'layer1.0.conv1.weight' [out, in, h, w] is params/block1/unit1/conv1/kernel
  [h, w, in, out]; 'layer1.0.downsample.1' is block1/unit1/shortcut_bn;
  'fc' is params/head: kernel [D, C] and bias [C]. Gradients keyed by
  parameter name map the same way.
  """
  tree: dict[str, Any] = {}
  for name, value in state.items():
    *path, kind = name.split('.')
    if kind == 'num_batches_tracked':
      continue
    array = np.asarray(value.detach().cpu().numpy())
    if path[0].startswith('layer'):
      path[0] = path[0].replace('layer', 'block')
      path[1] = f'unit{int(path[1]) + 1}'
    if 'downsample' in path:
      path[-2:] = [_DOWNSAMPLE[path[-1]]]
    if array.ndim == 4:
      leaf, array = 'kernel', array.transpose(2, 3, 1, 0)
    elif path == ['fc']:
      path = ['head']
      leaf = 'kernel' if kind == 'weight' else 'bias'
      array = array.T
    else:
      leaf = _STATISTICS.get(kind) or _NORM[kind]
    node = tree.setdefault(
      'batch_stats' if kind in _STATISTICS else 'params', {}
    )
    for key in path:
      node = node.setdefault(key, {})
    node[leaf] = array.copy()
  return tree
