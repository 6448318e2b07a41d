"""A model as a StableHLO program with its weights, by jax.export."""

import copy
import pathlib
from typing import Any

from . import export_check

PLATFORMS = ('cpu', 'cuda', 'tpu')
_ARGUMENTS = {'image': 'images'}  # in the JSON
# Options that follow the machine ('auto'), and what every machine is fast with.
_PORTABLE = {
  'model': {'conv': 'native'},
  'task': {'crops': 'matmul', 'accumulate': 'matmul'},
}


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

  task = _portable_task(model)
  names = export_check.fields(task)
  batch = export.symbolic_shape('b')
  shapes = {
    'image': ((*batch, *image_shape), 'uint8'),
    **{
      name: ((*batch, *shape), dtype)
      for name, (shape, dtype) in export_check.BESIDE.items()
    },
  }
  program = export.export(
    jax.jit(export_check.outputs(task, state, model.space.num_classes)),
    platforms=PLATFORMS,
  )(*(jax.ShapeDtypeStruct(*shapes[name]) for name in names))
  path.write_bytes(program.serialize())
  read_back: Any = export.deserialize(bytearray(path.read_bytes()))
  # Of boxes and places the best are chosen, so that sums in another order may
  # change which: the file is compared with the same task in this process.
  kinds = {p.kind for p in task.predictions.values()}
  chosen = not kinds.isdisjoint(('boxes', 'pose'))
  found = export_check.check(
    model, state, read_back.call, image_shape, task if chosen else None
  )
  return {
    'input': {
      _ARGUMENTS.get(name, name): {
        'dtype': shapes[name][1], 'shape': ['b', *shapes[name][0][1:]],
      }
      for name in names
    },
    'outputs': {
      name: {'dtype': str(value.dtype), 'shape': ['b', *value.shape[1:]]}
      for name, value in _outputs(read_back).items()
    },
    'platforms': list(PLATFORMS),
    'jax': jax.__version__,
    'largest_difference': found,
  }  # fmt: skip


def _outputs(program: Any) -> dict[str, Any]:
  """name -> shape and type, as the program itself says."""
  import jax

  return jax.tree.unflatten(program.out_tree, program.out_avals)


def _portable_task(model: Any) -> Any:
  """The task, its operations the same whatever machine exports it."""
  from big_vision_like import experiment
  from big_vision_like.config import plugins

  config = copy.deepcopy(model.config)
  config.unlock()
  changed = False
  for kind, options in _PORTABLE.items():
    known, _ = plugins.option_names(plugins.get(kind, config[kind].type))
    for name in options.keys() & {*known}:
      config[kind][name] = options[name]
      changed = True
  return experiment.build_task(config, model.spaces) if changed else model.task
