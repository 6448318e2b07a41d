"""k-nearest-neighbour probe: no training at all, on frozen features."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import numpy as np

from big_vision_like.config.option_types import Above, Count, NonEmpty
from big_vision_like.ops import neighbours
from big_vision_like.protocols import Prediction
from evaluators.harness import context, frozen_features

_BLOCK = 1024  # rows asked at once


class Evaluator:
  """Figures '<k>nn': top-1 in percent by votes of the k nearest images.

  Args:
    predict: the task's prediction functions.
    ctx: see `context.EvalContext`.
    train: the set whose images vote.
    data, ops, batch_size: the set that is classified; ops (of both) must make
      'label'.
    k: numbers of neighbours, by cosine similarity.
    temperature: a neighbour's vote weighs exp(similarity / temperature).
    predict_fn: which prediction gives the features.
    exclude_ids: records of `data` that '<figure>/dedup' leaves out.
  """

  def __init__(
    self,
    predict: Mapping[str, Prediction],
    ctx: context.EvalContext,
    *,
    train: Mapping[str, Any],
    data: Mapping[str, Any],
    ops: Sequence[Mapping[str, Any]],
    batch_size: Count,
    k: Annotated[Sequence[Count], NonEmpty()] = (1, 20),
    temperature: Annotated[float, Above(0)] = 0.07,
    predict_fn: str = 'features',
    exclude_ids: str | Sequence[str | int] | None = None,
  ):
    self._k, self._temperature = tuple(k), temperature
    self._sets = frozen_features.FrozenFeatures(
      predict, ctx, train=train, data=data, ops=ops, batch_size=batch_size,
      predict_fn=predict_fn, exclude_ids=exclude_ids,
    )  # fmt: skip
    if max(k) > self._sets.num_examples('train'):
      raise ValueError(
        f'{ctx.where}.k={max(k)} is more than the '
        f'{self._sets.num_examples("train")} images of train'
      )

  def run(self, state: Any) -> dict[str, float]:
    """The figures of a state."""
    train, data = (self._sets.read(state, w) for w in ('train', 'data'))
    known = neighbours.normalise(train.features)
    hits = np.empty((len(self._k), len(data.label)), bool)
    for i in range(0, len(data.label), _BLOCK):
      part = slice(i, i + _BLOCK)
      predicted = neighbours.vote(
        known,
        train.label,
        neighbours.normalise(data.features[part]),
        self._sets.num_classes,
        self._k,
        self._temperature,
      )
      hits[:, part] = np.asarray(predicted) == data.label[part]
    return self._sets.figures(
      data.ids,
      lambda chosen: {
        f'{k}nn': float(100 * row[chosen].mean())
        for k, row in zip(self._k, hits)
      },
    )
