"""Features of a checkpoint's backbone for any images: what other tools look at.

Noise audits, near-duplicates and nearest neighbours compare images by pooled
features (Sun et al. 2017: figure 2 and appendix A). Model and preprocessing are
those of the run (stored_predictor.py).
"""

import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from big_vision_like.inference import stored_model
from big_vision_like.inference.stored_predictor import StoredPredictor
from big_vision_like.protocols import Source
from input_pipeline.labels.vocabulary import Vocabulary
from input_pipeline.ops.without_chance import deterministic_ops


class Embedder(StoredPredictor):
  """Images -> feature vectors, by the model of a checkpoint.

  Args:
    checkpoint_path: workdir of a run, or the folder of one checkpoint; or what
      was loaded from there.
    batch_size: images at a time, rounded up to a multiple of the devices.
    predict_fn: prediction of the run's task; it must give one array [B, D].
    ops: op configs from an encoded image to 'image'; None: those that the run
      trained with, without chance (`deterministic_ops`).
    threads: reading threads, of this process or of every worker.
    workers: decode processes; 0 reads in threads of this process.
    where: flag or key of the path, for messages.
    trusted: whether it may name modules of others (config/trust.py).
    part: which part of a joint task; None of other tasks.

  Attributes:
    path: folder of the checkpoint.
    config: of the run, complete.
    dim: length D of a feature vector.
    model, ops, batch_size, bad: see `StoredPredictor`.

  Raises:
    FileNotFoundError: no checkpoint there.
    ValueError: unknown prediction, or ops that do not make the images.
  """

  def __init__(
    self,
    checkpoint_path: str | pathlib.Path | stored_model.StoredModel,
    *,
    batch_size: int = 64,
    predict_fn: str = 'features',
    ops: Sequence[Mapping[str, Any]] | None = None,
    threads: int = 2,
    workers: int = 0,
    where: str = '--checkpoint',
    trusted: bool = False,
    part: str | None = None,
  ):
    if isinstance(checkpoint_path, stored_model.StoredModel):
      model = checkpoint_path
    else:
      model = stored_model.load(
        checkpoint_path, where, trusted=trusted, part=part
      )
    self.path, self.config = model.path, model.config
    if ops is None:
      ops = deterministic_ops(model.config.input.ops)
    super().__init__(
      model,
      predict_fn,
      ops,
      batch_size=batch_size,
      threads=threads,
      workers=workers,
    )
    self._name = predict_fn
    shape = self.outputs[predict_fn].shape
    if len(shape) != 2:
      raise ValueError(
        f'prediction {predict_fn!r} gives an array {list(shape)}, not one '
        'vector an image'
      )
    self.dim = int(shape[1])

  @property
  def vocabulary(self) -> Vocabulary | None:
    """The model's classes; None where they are not known."""
    return self.model.vocabulary

  def embed(
    self, source: Source, indices: Sequence[int] | np.ndarray | None = None
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
    for chosen, outputs, _ in self.batches(source, indices):
      yield chosen, outputs[self._name]

  def embed_all(
    self, source: Source, indices: Sequence[int] | np.ndarray | None = None
  ) -> tuple[np.ndarray, np.ndarray]:
    """The same in one piece: indices int64 [n], features float32 [n, D]."""
    parts = list(self.embed(source, indices))
    return (
      np.concatenate([np.empty(0, np.int64), *(i for i, _ in parts)]),
      np.concatenate(
        [np.empty((0, self.dim), np.float32), *(f for _, f in parts)]
      ),
    )
