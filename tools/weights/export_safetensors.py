"""A ResNet's weights as safetensors, under the names of timm."""

import pathlib
from typing import Any

from . import export_check, weights_header

# What timm's resnet50, 101 and 152 are, besides torch_weights.LAYOUT.
_TIMM = {'model.width': 64, 'model.output_stride': 32, 'model.bn_epsilon': 1e-5}
_TIMM_DEPTHS = (50, 101, 152)


def write(
  path: pathlib.Path, model: Any, state: Any, image_shape: tuple[int, ...]
) -> dict[str, Any]:
  """Writes the file and checks it; returns its part of the JSON.

  Args:
    path: of the file.
    model: stored_model.StoredModel.
    state: its state, on one device.
    image_shape: (H, W, 3).

  Raises:
    ValueError: no ResNet with a linear head, or the file is not the model.
  """
  import jax
  import numpy as np

  from big_vision_like.checkpoints import safetensors_files, torch_weights
  from big_vision_like.inference import embedder

  config = model.config
  if (
    config.model.type != 'resnet'
    or state.params.keys() != {'backbone', 'head'}
    or state.params['head'].keys() != {'kernel', 'bias'}
  ):
    raise ValueError(
      '--format safetensors knows the names of ResNets with a linear head; '
      f'this is model.type={config.model.type!r} of '
      f'task.type={config.task.type!r}; take --format stablehlo'
    )
  params, stats = jax.tree.map(
    np.asarray, (state.params, state.extra['batch_stats'])
  )
  num = model.space.num_classes
  tensors = torch_weights.to_tensors(params, stats, num)
  ops = embedder.deterministic_ops(config.input.ops)
  said = weights_header.notes(config, ops, model.scores)
  differs = unlike_timm(config)
  name = '' if differs else f'resnet{config.model.depth}'
  notes = {
    'timm_model': name,
    'unlike_timm': '; '.join(differs),
    'depth': str(config.model.depth),
    'num_classes': str(num),
    **said,
  }
  safetensors_files.write(str(path), tensors, notes)

  tree = torch_weights.from_tensors(safetensors_files.read(str(path)))
  padding = params['head']['bias'].shape[-1] - num
  head = {
    key: np.pad(value, [(0, 0)] * (value.ndim - 1) + [(0, padding)])
    for key, value in tree['params']['head'].items()
  }
  read_back = state.replace(
    params={'backbone': tree['params']['backbone'], 'head': head},
    extra={'batch_stats': tree['batch_stats']},
  )
  exported = export_check.live_outputs(model.task, read_back, num)
  found = export_check.check(model, state, exported, image_shape)
  line = f'load into timm.create_model({name!r}, num_classes={num})'
  if differs:
    line = f'timm cannot express this net: {"; ".join(differs)}'
  return {
    'timm_model': name or None,
    'layout': {key: said[key] for key in torch_weights.LAYOUT},
    'largest_difference': found,
    'note': line,
  }


def unlike_timm(config: Any) -> list[str]:
  """What keeps timm's ResNets from computing what this model does."""
  from big_vision_like.checkpoints import torch_weights

  wanted = {**torch_weights.LAYOUT, **_TIMM}
  differs = [
    f'{key} is {weights_header.option(config, key)!r} here, {value!r} there'
    for key, value in wanted.items()
    # Pixels are not a part of timm's net: its caller standardises them.
    if key != 'task.pixels' and weights_header.option(config, key) != value
  ]
  if config.model.depth not in _TIMM_DEPTHS:
    differs.append(f'model.depth is {config.model.depth} here')
  return differs
