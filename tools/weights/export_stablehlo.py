"""A model as a StableHLO program with its weights, by jax.export."""

import copy
import pathlib
from typing import Any

from . import export_check

PLATFORMS = ('cpu', 'cuda', 'tpu')


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
    ValueError: the file does not compute what the model does.
  """
  import jax
  from jax import export

  outputs = export_check.outputs(
    _portable_task(model), state, model.space.num_classes
  )
  program = export.export(
    jax.jit(outputs),
    platforms=PLATFORMS,
  )(
    jax.ShapeDtypeStruct(
      export.symbolic_shape(f'b, {", ".join(map(str, image_shape))}'), 'uint8'
    )
  )
  path.write_bytes(program.serialize())
  read_back: Any = export.deserialize(bytearray(path.read_bytes()))
  found = export_check.check(model, state, read_back.call, image_shape)
  return {
    'input': {'images': {'dtype': 'uint8', 'shape': ['b', *image_shape]}},
    'outputs': {
      name: {'dtype': str(value.dtype), 'shape': ['b', *value.shape[1:]]}
      for name, value in _outputs(read_back).items()
    },
    'platforms': list(PLATFORMS),
    'jax': jax.__version__,
    'largest_difference': found,
  }


def _outputs(program: Any) -> dict[str, Any]:
  """name -> shape and type, as the program itself says."""
  import jax

  return jax.tree.unflatten(program.out_tree, program.out_avals)


def _portable_task(model: Any) -> Any:
  """The task, with plain convolutions whatever machine exports it."""
  from big_vision_like import experiment
  from big_vision_like.config import plugins

  model_class = plugins.get('model', model.config.model.type)
  if 'conv' not in plugins.option_names(model_class)[0]:
    return model.task
  config = copy.deepcopy(model.config)
  config.unlock()
  config.model.conv = 'native'
  return experiment.build_task(config, model.spaces)
