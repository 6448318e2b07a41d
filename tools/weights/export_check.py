"""Whether an exported file computes what the model does."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from big_vision_like.protocols import Task

# Of the largest value. The file's convolutions are those of accelerators, the
# model's those that are fast on this machine: sums in another order.
_TOLERANCE = {'float32': 1e-4, 'bfloat16': 0.05}
_BATCHES = (1, 3)  # none is the one that was traced


def live_outputs(
  task: Task, state: Any, num_classes: int
) -> Callable[[Any], dict[str, Any]]:
  """Jitted uint8 images [b, H, W, 3] -> logits [b, C] or of pixels
  [b, h, w, C], features [b, D]."""
  import jax

  return jax.jit(outputs(task, state, num_classes))


def outputs(
  task: Task, state: Any, num_classes: int
) -> Callable[[Any], dict[str, Any]]:
  """The function that is exported: predictions without padded classes.

  Raises:
    ValueError: the task has no such predictions.
  """
  of_images = {
    name: prediction
    for name, prediction in task.predictions.items()
    if prediction.reads == ('image',)
  }
  if not of_images:
    raise ValueError(
      'the task has no prediction of images alone, which is exported; it has '
      f'{", ".join(task.predictions) or "none"}'
    )

  def predict(images: Any) -> dict[str, Any]:
    found = {}
    for prediction in of_images.values():
      for name, value in prediction(state, {'image': images}).items():
        if prediction.kind == 'classes':  # others have no padding
          value = value[:, :num_classes]
        found[name] = value.astype('float32')
    return found

  return predict


def check(
  model: Any,
  state: Any,
  exported: Callable[[Any], Mapping[str, Any]],
  image_shape: tuple[int, ...],
) -> dict[str, dict[str, float]]:
  """`compare` with a stored model in its state."""
  live = live_outputs(model.task, state, model.space.num_classes)
  return compare(live, exported, image_shape, compute_dtype(model.config))


def compare(
  live: Callable[[Any], Mapping[str, Any]],
  exported: Callable[[Any], Mapping[str, Any]],
  image_shape: tuple[int, ...],
  dtype: str,
) -> dict[str, dict[str, float]]:
  """Both on random images, by output: the largest difference and value.

  Args:
    live: the model.
    exported: what was read back.
    image_shape: (H, W, 3).
    dtype: in which the model computes.

  Raises:
    ValueError: they differ by more than rounding, or are not finite.
  """
  rng = np.random.default_rng(0)
  rows: dict[str, dict[str, float]] = {}
  for size in _BATCHES:
    images = rng.integers(0, 256, (size, *image_shape), np.uint8)
    ours, theirs = live(images), exported(images)
    if ours.keys() != theirs.keys():
      raise ValueError(f'the file gives {sorted(theirs)}, not {sorted(ours)}')
    for name in ours:
      a, b = (np.asarray(x[name], np.float64) for x in (ours, theirs))
      if a.shape != b.shape:
        raise ValueError(f'{name}: the file gives {b.shape}, not {a.shape}')
      row = rows.setdefault(name, {'difference': 0.0, 'largest': 0.0})
      # np.maximum: a NaN stays one.
      worst, largest = np.abs(a - b).max(), np.abs(a).max()
      row['difference'] = float(np.maximum(row['difference'], worst))
      row['largest'] = float(np.maximum(row['largest'], largest))
      if not row['difference'] <= _TOLERANCE[dtype] * row['largest']:  # or NaN
        raise ValueError(
          f'{name} of the file differ by {row["difference"]:g} from those of '
          f'the model, whose largest is {row["largest"]:g}: not exported'
        )
  return rows


def compute_dtype(config: Any) -> str:
  """'float32' or 'bfloat16'; models that do not say compute in float32."""
  return config.model.get('compute_dtype', 'float32')
