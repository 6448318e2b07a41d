"""Features of a checkpoint's backbone for any images: what other tools look at.

Noise audits, near-duplicates and nearest neighbours compare images by pooled
features (Sun et al. 2017: figure 2 and appendix A). Model and preprocessing are
those of the run, from the config inside the checkpoint: nothing of it is code,
and neither its data nor its optimizer state is read.
"""

import collections
import functools
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from big_vision_like import mesh as mesh_lib
from big_vision_like import plugins, stored_model
from big_vision_like.state import TrainState
from big_vision_like.vocabulary import Vocabulary
from input_pipeline import device, pipeline
from input_pipeline import ops as example_ops
from input_pipeline.ops.context import OpContext

_AHEAD = 2  # batches on the devices
_CENTRAL = 0.875  # of a side: what evaluation takes after random areas
_PIXEL_OPS = (
  'decode', 'resize', 'resize_small', 'resize_long', 'center_crop',
  'central_crop', 'pad',
)  # fmt: skip
# Ops of training that leave the pixels alone, or move them by chance only.
_DROPPED = (
  'random_flip', 'labels', 'single_label', 'label_noise', 'boxes',
  'decode_segmentation', 'full_segmentation', 'image_size', 'keep',
)  # fmt: skip


class Embedder:
  """Images -> feature vectors, by the model of a checkpoint.

  All devices of this process share each batch; the weights are whole on each.

  Args:
    checkpoint_path: workdir of a run, or the folder of one checkpoint.
    batch_size: images at a time, rounded up to a multiple of the devices.
    predict_fn: prediction of the run's task; it must give one array [B, D].
    ops: op configs from an encoded image to 'image'; None: those that the run
      trained with, without chance (`deterministic_ops`).
    threads: reading threads, of this process or of every worker.
    workers: decode processes; 0 reads in threads of this process.
    where: flag or key of the path, for messages.

  Attributes:
    model: what the checkpoint is of.
    path: folder of the checkpoint.
    config: of the run, complete.
    dim: length D of a feature vector.
    ops: op configs in use.
    bad: key -> reason of the records met so far that cannot be used.

  Raises:
    FileNotFoundError: no checkpoint there.
    ValueError: unknown prediction, or ops that do not make the images.
  """

  def __init__(
    self,
    checkpoint_path: str | pathlib.Path,
    *,
    batch_size: int = 64,
    predict_fn: str = 'features',
    ops: Sequence[Mapping[str, Any]] | None = None,
    threads: int = 2,
    workers: int = 0,
    where: str = '--checkpoint',
  ):
    if jax.process_count() > 1:
      raise ValueError('features are computed by one process at a time')
    if batch_size < 1:
      raise ValueError(f'batch_size={batch_size} must be at least 1')
    self.model = stored_model.load(checkpoint_path, where)
    self.path, self.config = self.model.path, self.model.config
    task = self.model.task
    self.ops = (
      deterministic_ops(self.config.input.ops)
      if ops is None
      else [dict(op) for op in ops]
    )
    if predict_fn not in task.predict_fns:
      raise ValueError(
        f'the task {self.config.task.type!r} has no prediction {predict_fn!r}'
        f'{plugins.suggest(predict_fn, task.predict_fns)}; valid: '
        f'{", ".join(task.predict_fns)}'
      )
    self._mesh = mesh_lib.create(dict(data=-1, model=1))
    self.batch_size = -(-batch_size // self._mesh.size) * self._mesh.size
    self._reading = dict(threads=threads, workers=workers)
    self.bad: dict[str, str] = {}

    spec = pipeline.example_spec(example_ops.build(self.ops, OpContext()))
    if 'image' not in spec:
      raise ValueError(f'no op makes the field "image": {self.ops}')
    whole = NamedSharding(self._mesh, PartitionSpec())
    self._state = self.model.state(whole)
    fn = functools.partial(_vectors, task.predict_fns[predict_fn], predict_fn)
    batched = mesh_lib.batch_sharding(self._mesh)
    self._run = jax.jit(fn, out_shardings=batched)
    images = jax.ShapeDtypeStruct(
      (self.batch_size, *spec['image'].shape), spec['image'].dtype
    )
    with jax.set_mesh(self._mesh):
      self.dim = int(jax.eval_shape(fn, self._state, images).shape[1])

  @property
  def vocabulary(self) -> Vocabulary | None:
    """The model's classes; None where its training data are not here."""
    return self.model.vocabulary

  def embed(
    self, source: Any, indices: Sequence[int] | np.ndarray | None = None
  ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Features of the records of a source, in the order given, by batches.

    Records that cannot be used are left out; `bad` has them.

    Args:
      source: any source (docs/add-a-source.md).
      indices: which of its records; None for all.

    Yields:
      (indices int64 [n], features float32 [n, D]).

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
      started.append((batch, self.start(batch['image'])))
      if len(started) > _AHEAD:
        yield chosen.counted(*started.popleft())
    while started:
      yield chosen.counted(*started.popleft())

  def embed_all(
    self, source: Any, indices: Sequence[int] | np.ndarray | None = None
  ) -> tuple[np.ndarray, np.ndarray]:
    """The same in one piece: indices int64 [n], features float32 [n, D]."""
    parts = list(self.embed(source, indices))
    return (
      np.concatenate([np.empty(0, np.int64), *(i for i, _ in parts)]),
      np.concatenate(
        [np.empty((0, self.dim), np.float32), *(f for _, f in parts)]
      ),
    )

  def start(self, images: np.ndarray) -> jax.Array:
    """Starts the forward pass of uint8 [batch_size, H, W, 3] -> [B, D]."""
    placed = device.to_global(
      {'image': images}, mesh_lib.batch_sharding(self._mesh)
    )
    with jax.set_mesh(self._mesh):
      return self._run(self._state, placed['image'])


def deterministic_ops(
  specs: Sequence[Mapping[str, Any]],
) -> list[dict[str, Any]]:
  """The op configs of training as they are for an evaluation.

  A random crop becomes the central one of its size, a random area of the image
  the central 87.5 % of either side (Szegedy et al. 2015); reflections and the
  ops of labels go.

  Raises:
    ValueError: an op of which this is not known.
  """
  kept = []
  for spec in specs:
    name, options = spec['op'], dict(spec)
    if name == 'random_crop':
      kept.append(options | {'op': 'center_crop'})
    elif name == 'random_resized_crop':
      kept += _central(options)
    elif name in _PIXEL_OPS:
      kept.append(options)
    elif name not in _DROPPED:
      raise ValueError(
        f'input.ops of the checkpoint: what {name!r} is without chance is not '
        'known; give the ops to use instead'
      )
  return kept


def _central(options: Mapping[str, Any]) -> list[dict[str, Any]]:
  """The op random_resized_crop without chance."""
  size = options['size']
  whole = (
    round(size / _CENTRAL)
    if isinstance(size, int)
    else [round(side / _CENTRAL) for side in size]
  )
  kept = {k: v for k, v in options.items() if k == 'antialias'}
  return [
    dict(op='resize', size=whole, **kept),
    dict(op='center_crop', size=size),
  ]


class _Chosen:
  """Some records of a source, as a source without labels of its own."""

  def __init__(self, source: Any, indices: Any):
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
    self, batch: dict[str, np.ndarray], features: jax.Array
  ) -> tuple[np.ndarray, np.ndarray]:
    """(indices, features) of the rows that count."""
    mask = batch['_mask']
    return self._indices[batch['_id'][mask]], np.asarray(features)[mask]


def _checked(indices: Any) -> np.ndarray:
  array = np.asarray(indices)
  if array.ndim != 1 or (array.size and array.dtype.kind not in 'iu'):
    raise ValueError(f'indices must be a list of integers, got {indices!r:.80}')
  return array.astype(np.int64)


def _vectors(
  predict: Any, name: str, state: TrainState, images: jax.Array
) -> jax.Array:
  """float32 [B, D], the only output of a prediction."""
  outputs = predict(state, {'image': images})
  out = outputs.get(name)
  if out is None or out.ndim != 2:
    found = {k: v.shape for k, v in outputs.items()}
    raise ValueError(
      f'prediction {name!r} gives {found}, not one vector {name!r} an image'
    )
  return out.astype('float32')
