"""Whether an exported file computes what the model does."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from big_vision_like.protocols import Prediction, Task

# Of the largest value. The file's convolutions are those of accelerators, the
# model's those that are fast on this machine: sums in another order.
_TOLERANCE = {'float32': 1e-4, 'bfloat16': 0.05}
_BATCHES = (1, 3)  # none is the one that was traced
# What a prediction may read beside the images, and its shape without the batch:
# heights and widths of images, and where the points of a crop are in its image.
BESIDE: dict[str, tuple[tuple[int, ...], str]] = {
  'image_size': ((2,), 'int32'),
  'original_size': ((2,), 'int32'),
  'crop_to_image': ((2, 3), 'float32'),
}
_TOGETHER = (('crop_to_image',), (), ('image_size', 'original_size'))


def exported_predictions(task: Task) -> dict[str, Prediction]:
  """Those of crops and of images alone, or else those that read sizes too.

  Raises:
    ValueError: the task has no such predictions.
  """
  for beside in _TOGETHER:
    found = {
      name: prediction
      for name, prediction in task.predictions.items()
      if {'image'} <= {*prediction.reads} <= {'image', *beside}
    }
    read = {field for p in found.values() for field in p.reads}
    if found and (not beside or read & {*beside}):
      return found
  raise ValueError(
    'the task has no prediction of images and their sizes, which is exported; '
    f'it has {", ".join(task.predictions) or "none"}'
  )


def fields(task: Task) -> tuple[str, ...]:
  """What the exported function takes: 'image', then what is read beside."""
  predictions = exported_predictions(task).values()
  read = {field for prediction in predictions for field in prediction.reads}
  return ('image', *(name for name in BESIDE if name in read))


def live_outputs(
  task: Task, state: Any, num_classes: int
) -> Callable[..., dict[str, Any]]:
  """`outputs`, jitted."""
  import jax

  return jax.jit(outputs(task, state, num_classes))


def outputs(
  task: Task, state: Any, num_classes: int
) -> Callable[..., dict[str, Any]]:
  """The function that is exported: predictions without padded classes.

  Of uint8 images [b, H, W, 3] and, where the task reads them, their sizes or
  the places of crops: logits [b, C] or of pixels [b, h, w, C], features [b, D],
  the arrays of boxes [b, K, ...] or keypoints [b, K, 3] and scores [b].

  Raises:
    ValueError: the task has no such predictions.
  """
  import jax.numpy as jnp

  predictions, names = exported_predictions(task), fields(task)

  def predict(*inputs: Any) -> dict[str, Any]:
    batch, found = dict(zip(names, inputs, strict=True)), {}
    for prediction in predictions.values():
      for name, value in prediction(state, batch).items():
        if prediction.kind == 'classes':  # others have no padding
          value = value[:, :num_classes]
        if jnp.issubdtype(value.dtype, jnp.floating):
          value = value.astype('float32')
        found[name] = value
    return found

  return predict


def check(
  model: Any,
  state: Any,
  exported: Callable[..., Mapping[str, Any]],
  image_shape: tuple[int, ...],
  task: Task | None = None,
) -> dict[str, dict[str, float]]:
  """`compare` with a stored model in its state.

  Args:
    model: stored_model.StoredModel.
    state: its state.
    exported: what was read back.
    image_shape: (H, W, 3).
    task: that to compare with; None: the model's own.
  """
  of: Task = model.task if task is None else task
  live = live_outputs(of, state, model.space.num_classes)
  dtype = compute_dtype(model.config)
  return compare(live, exported, image_shape, dtype, fields(of))


def compare(
  live: Callable[..., Mapping[str, Any]],
  exported: Callable[..., Mapping[str, Any]],
  image_shape: tuple[int, ...],
  dtype: str,
  names: Sequence[str] = ('image',),
) -> dict[str, dict[str, float]]:
  """Both on random images, by output: the largest difference and value.

  Numbers that are not floating, such as labels, must be equal.

  Args:
    live: the model.
    exported: what was read back.
    image_shape: (H, W, 3).
    dtype: in which the model computes.
    names: of the fields that both take.

  Raises:
    ValueError: they differ by more than rounding, or are not finite.
  """
  rng = np.random.default_rng(0)
  rows: dict[str, dict[str, float]] = {}
  for size in _BATCHES:
    inputs = _random(rng, size, image_shape, names)
    ours, theirs = live(*inputs), exported(*inputs)
    if ours.keys() != theirs.keys():
      raise ValueError(f'the file gives {sorted(theirs)}, not {sorted(ours)}')
    for name in ours:
      exact = not np.issubdtype(ours[name].dtype, np.floating)
      a, b = (np.asarray(x[name], np.float64) for x in (ours, theirs))
      if a.shape != b.shape:
        raise ValueError(f'{name}: the file gives {b.shape}, not {a.shape}')
      row = rows.setdefault(name, {'difference': 0.0, 'largest': 0.0})
      # np.maximum: a NaN stays one.
      worst, largest = np.abs(a - b).max(), np.abs(a).max()
      row['difference'] = float(np.maximum(row['difference'], worst))
      row['largest'] = float(np.maximum(row['largest'], largest))
      allowed = 0.0 if exact else _TOLERANCE[dtype] * row['largest']
      if not row['difference'] <= allowed:  # or NaN
        raise ValueError(
          f'{name} of the file differ by {row["difference"]:g} from those of '
          f'the model, whose largest is {row["largest"]:g}: not exported'
        )
  return rows


def _random(
  rng: np.random.Generator,
  size: int,
  image_shape: tuple[int, ...],
  names: Sequence[str],
) -> list[np.ndarray]:
  """Images, of a part of the canvas and from larger ones where that counts."""
  canvas = np.array(image_shape[:2])
  images = rng.integers(0, 256, (size, *image_shape), np.uint8)
  seen = rng.integers((canvas + 1) // 2, canvas + 1, (size, 2), np.int32)
  place = np.tile(np.eye(2, 3, dtype=np.float32), (size, 1, 1))
  place[..., 2] = rng.uniform(0, 99, (size, 2))
  made = {
    'image': images, 'image_size': seen, 'original_size': seen * 3 // 2,
    'crop_to_image': place,
  }  # fmt: skip
  return [made[name] for name in names]


def compute_dtype(config: Any) -> str:
  """'float32' or 'bfloat16'; models that do not say compute in float32."""
  return config.model.get('compute_dtype', 'float32')
