"""Features of a frozen backbone with labels: what probes are made of.

Not an evaluator: the linear probe, the few-shot probe and the k-nearest-
neighbour probe read their two sets, to learn from and to score, through this.
The labels may be of any single-label data set, not the model's own.
"""

import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from big_vision_like.protocols import Prediction
from evaluators.harness import context
from evaluators.harness.evaluation_set import EvalData, run_over
from input_pipeline.image_sets import holdout


class Labelled(NamedTuple):
  """Features float32 [n, D], classes int32 [n], indices int32 [n]."""

  features: np.ndarray
  label: np.ndarray
  ids: np.ndarray


class FrozenFeatures:
  """Pooled features and labels of a training and a scoring set.

  Args:
    predict: the task's prediction functions.
    ctx: see `context.EvalContext`.
    train: the set that probes learn from, dict(type=..., ...).
    data: the set that they are scored on, of the same classes.
    ops, batch_size: of both; ops must make 'label'.
    predict_fn: which prediction gives the features.
    exclude_ids: records of `data` that '<figure>/dedup' leaves out.

  Attributes:
    num_classes: C of the two sets.
    figures: `EvalData.figures` of `data`.
  """

  def __init__(
    self,
    predict: Mapping[str, Prediction],
    ctx: context.EvalContext,
    *,
    train: Mapping[str, Any],
    data: Mapping[str, Any],
    ops: Sequence[Mapping[str, Any]],
    batch_size: int,
    predict_fn: str,
    exclude_ids: str | Sequence[str | int] | None,
  ):
    self._predict = context.choose(predict, predict_fn, ctx, 'vectors')
    options: dict[str, Any] = dict(fields=('image', 'label'), classes=False)
    self._sets = {
      'train': EvalData(ctx, train, ops, batch_size, key='train', **options),
      'data': EvalData(
        ctx, data, ops, batch_size, exclude_ids=exclude_ids, **options
      ),
    }
    self.figures = self._sets['data'].figures
    names = [s.source.vocabulary.names for s in self._sets.values()]
    if names[0] != names[1]:
      raise ValueError(
        f'{ctx.where}: train and data have different classes '
        f'({len(names[0])} and {len(names[1])})'
      )
    self.num_classes = len(names[0])

  def read(self, state: Any, which: str) -> Labelled:
    """All of 'train' or 'data', in the order of the source."""
    parts = []
    data = self._sets[which]
    for outputs, batch in run_over(self._features, state, data, ('label',)):
      found, ids = outputs['features'], batch['_id']
      broken = ~np.all(np.isfinite(found), axis=1)
      data.refuse(broken, ids, 'the features of {} are not finite')
      parts.append((found, batch['label'], ids))
    return Labelled(*map(np.concatenate, zip(*parts)))

  def num_examples(self, which: str) -> int:
    """Size of 'train' or 'data'."""
    return len(self._sets[which].source)

  def held_out(self, which: str, percent: float) -> np.ndarray:
    """bool [n]: the examples in a part chosen by a hash of their keys."""
    source = self._sets[which].source
    keys = (os.fsencode(source.key(i)) for i in range(len(source)))
    return np.array([holdout.held_out(k, percent) for k in keys], bool)

  def _features(self, state: Any, batch: Any) -> dict[str, jax.Array]:
    return {'features': self._predict(state, batch)['features']}
