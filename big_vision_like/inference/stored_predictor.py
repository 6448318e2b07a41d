"""A prediction of a checkpoint's model over any images, batch by batch.

What tools compute of images starts here: feature vectors (embedder.py), maps
of classes (segmenter.py). Model and preprocessing are those of the run, from
the config inside the checkpoint: nothing of it is code, and neither its data
nor its optimizer state is read.
"""

import collections
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from big_vision_like.config import plugins
from big_vision_like.inference.stored_model import StoredModel
from big_vision_like.parallel import mesh as mesh_lib
from big_vision_like.protocols import Source
from big_vision_like.training.state import TrainState
from input_pipeline import device, pipeline
from input_pipeline import ops as example_ops
from input_pipeline.ops.context import OpContext

_AHEAD = 2  # batches on the devices


class StoredPredictor:
  """Images -> one prediction, by the model of a checkpoint.

  All devices of this process share each batch; the weights are whole on each.

  Args:
    model: of the checkpoint.
    predict_fn: prediction of the run's task.
    ops: op configs from an encoded image to what the prediction reads.
    batch_size: images at a time, rounded up to a multiple of the devices.
    threads: reading threads, of this process or of every worker.
    workers: decode processes; 0 reads in threads of this process.

  Attributes:
    model: what the checkpoint is of.
    prediction: of the task, by that name.
    ops: op configs in use.
    batch_size: as rounded.
    image_shape: (H, W, 3) of the images as the net takes them.
    outputs: name -> shape and type of what the prediction gives for a batch.
    bad: key -> reason of the records met so far that cannot be used.

  Raises:
    ValueError: unknown prediction, or ops that do not make the images.
  """

  def __init__(
    self,
    model: StoredModel,
    predict_fn: str,
    ops: Sequence[Mapping[str, Any]],
    *,
    batch_size: int,
    threads: int = 2,
    workers: int = 0,
  ):
    if jax.process_count() > 1:
      raise ValueError('predictions are computed by one process at a time')
    if batch_size < 1:
      raise ValueError(f'batch_size={batch_size} must be at least 1')
    self.model = model
    self.ops = [dict(op) for op in ops]
    predictions = model.task.predictions
    if predict_fn not in predictions:
      raise ValueError(
        f'the task {model.config.task.type!r} has no prediction {predict_fn!r}'
        f'{plugins.suggest(predict_fn, predictions)}; valid: '
        f'{", ".join(predictions)}'
      )
    self._mesh = mesh_lib.create(dict(data=-1, model=1))
    self.batch_size = -(-batch_size // self._mesh.size) * self._mesh.size
    self._reading = dict(threads=threads, workers=workers)
    self.bad: dict[str, str] = {}

    self.prediction = predictions[predict_fn]
    context = OpContext.of_space(model.space, 'ops')
    spec = pipeline.example_spec(example_ops.build(self.ops, context))
    for field in self.prediction.reads:
      if field not in spec:
        raise ValueError(f'no op makes the field {field!r}: {self.ops}')
    self.image_shape = spec['image'].shape
    self._state = model.state(NamedSharding(self._mesh, PartitionSpec()))
    inputs = {
      field: jax.ShapeDtypeStruct(
        (self.batch_size, *spec[field].shape), spec[field].dtype
      )
      for field in self.prediction.reads
    }
    with jax.set_mesh(self._mesh):
      self.outputs = jax.eval_shape(self.prediction, self._state, inputs)
    if len(self.outputs) == 1 and predict_fn not in self.outputs:
      raise ValueError(
        f'prediction {predict_fn!r} gives {", ".join(self.outputs)}, no '
        f'{predict_fn!r}'
      )
    self._run = jax.jit(
      self._in_float32, out_shardings=mesh_lib.batch_sharding(self._mesh)
    )

  def _in_float32(self, state: TrainState, batch: Any) -> dict[str, jax.Array]:
    """The prediction; what a file or a page takes of its numbers."""
    floating = lambda x: jnp.issubdtype(x.dtype, jnp.floating)
    return {
      name: x.astype('float32') if floating(x) else x
      for name, x in self.prediction(state, batch).items()
    }

  def start(self, batch: Mapping[str, np.ndarray]) -> dict[str, jax.Array]:
    """Starts the prediction for host arrays [batch_size, ...] by field."""
    read = {field: batch[field] for field in self.prediction.reads}
    placed = device.to_global(read, mesh_lib.batch_sharding(self._mesh))
    with jax.set_mesh(self._mesh):
      return self._run(self._state, placed)

  def batches(
    self, source: Source, indices: Sequence[int] | np.ndarray | None = None
  ) -> Iterator[
    tuple[np.ndarray, dict[str, np.ndarray], dict[str, np.ndarray]]
  ]:
    """Predictions for the records of a source, in the order given.

    Records that cannot be used are left out; `bad` has them.

    Args:
      source: any source (docs/add-a-source.md).
      indices: which of its records; None for all.

    Yields:
      (indices int64 [n], arrays of the prediction [n, ...] by name, the
      batch's fields [n, ...] but 'image'); n may be 0.

    Raises:
      ValueError: an index outside the source.
    """
    chosen = _Chosen(source, indices)
    ops = pipeline.build_ops(self.ops, source, 'ops')
    batches = pipeline.evaluation(
      chosen, ops, batch_size=self.batch_size, strict=False, **self._reading
    )
    started: collections.deque[Any] = collections.deque()
    for batch in batches if len(chosen) else ():
      self.bad |= batches.bad
      outputs = self.start(batch)
      del batch['image']
      started.append((outputs, batch))
      if len(started) > _AHEAD:
        yield chosen.counted(*started.popleft())
    while started:
      yield chosen.counted(*started.popleft())


class _Chosen:
  """Some records of a source, as a source without labels of its own."""

  def __init__(self, source: Source, indices: Any):
    num = len(source)
    self._source = source
    self._indices = np.arange(num) if indices is None else _checked(indices)
    outside = self._indices[(self._indices < 0) | (self._indices >= num)]
    if outside.size:
      raise ValueError(f'index {outside[0]} is outside the {num} records')

  def __len__(self) -> int:
    return len(self._indices)

  def __getitem__(self, position: int) -> dict[str, Any]:
    return self._source[int(self._indices[position])]

  def key(self, position: int) -> str:
    """Name of the record in the source."""
    return self._source.key(int(self._indices[position]))

  def counted(
    self, outputs: dict[str, jax.Array], batch: dict[str, np.ndarray]
  ) -> tuple[np.ndarray, dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Indices, predictions and fields of the rows that count."""
    mask = batch['_mask']
    rows = {name: value[mask] for name, value in batch.items()}
    found = {name: np.asarray(x)[mask] for name, x in outputs.items()}
    return self._indices[rows['_id']], found, rows


def _checked(indices: Any) -> np.ndarray:
  array = np.asarray(indices)
  if array.ndim != 1 or (array.size and array.dtype.kind not in 'iu'):
    raise ValueError(f'indices must be a list of integers, got {indices!r:.80}')
  return array.astype(np.int64)
