"""Linear probe: multinomial logistic regression on frozen features.

Features are read once; the l2 of a path is chosen on a part of `train` held
back by a hash of the record's key, and the classifier is fitted again to all of
`train` with it. Solved on the device (big_vision_like/ops/
logistic_regression.py), to the solution that scikit-learn finds.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import jax
import numpy as np

from big_vision_like.config.option_types import Above, Count, NonEmpty
from big_vision_like.metrics import classification
from big_vision_like.ops import logistic_regression, ranks
from big_vision_like.protocols import Prediction
from evaluators.harness import context, frozen_features
from input_pipeline.image_sets import holdout

Positive = Annotated[float, Above(0)]

_BLOCK = 8192  # rows scored at once
_SMALLEST_STD = 1e-5


class Evaluator:
  """Figures 'top1', 'top5' (percent), 'loss' (nats), 'l2' and 'num_images'.

  Args:
    predict: the task's prediction functions.
    ctx: see `context.EvalContext`.
    train: the set that the classifier is fitted to.
    data, ops, batch_size: the set that is scored; ops (of both) must make
      'label'.
    l2: one value, or a path of them: l2 / 2 * ||W||^2 is added to the mean
      cross-entropy (scikit-learn's C is 1 / (n * l2)).
    holdout_percent: of `train`, to choose from a path by its loss.
    standardise: features to mean 0 and standard deviation 1 in `train`.
    max_steps, tolerance: the solver stops when the objective is within
      `tolerance`, relative, of its least value, or says so after `max_steps`.
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
    l2: Positive | Annotated[Sequence[Positive], NonEmpty()] = (
      1e-1,
      1e-2,
      1e-3,
      1e-4,
      1e-5,
    ),
    holdout_percent: holdout.Percent = 10.0,
    standardise: bool = True,
    max_steps: Count = 500,
    tolerance: Positive = 1e-7,
    predict_fn: str = 'features',
    exclude_ids: str | Sequence[str | int] | None = None,
  ):
    path = (l2,) if isinstance(l2, int | float) else tuple(l2)
    self._ctx = ctx
    self._path = sorted(path, reverse=True)  # each start is near the next
    self._holdout = holdout_percent
    self._standardise = standardise
    self._solver: dict[str, Any] = dict(
      max_steps=max_steps, tolerance=tolerance
    )
    self._sets = frozen_features.FrozenFeatures(
      predict, ctx, train=train, data=data, ops=ops, batch_size=batch_size,
      predict_fn=predict_fn, exclude_ids=exclude_ids,
    )  # fmt: skip

  def run(self, state: Any) -> dict[str, float]:
    """The figures of a state."""
    train, data = (self._sets.read(state, w) for w in ('train', 'data'))
    features, asked = train.features, data.features
    if self._standardise:
      mean, std = features.mean(axis=0), features.std(axis=0) + _SMALLEST_STD
      features, asked = (features - mean) / std, (asked - mean) / std
    l2 = self._choose(features, train.label)
    fit = self._fit(logistic_regression.basis(features), train.label, l2)
    rank, loss = _score(fit, asked, data.label)
    figures = self._sets.figures(
      data.ids,
      lambda chosen: classification.figures(rank[chosen], loss[chosen]),
    )
    return {**figures, 'l2': float(l2)}

  def _fit(self, basis: Any, label: Any, l2: float, start: Any = None) -> Any:
    fit = logistic_regression.fit(
      basis, label, self._sets.num_classes, l2, start=start, **self._solver
    )
    if not float(fit.gap) <= self._solver['tolerance']:
      self._ctx.say(
        f'l2={l2:g}: the solver stopped at max_steps='
        f'{self._solver["max_steps"]}, at most {100 * float(fit.gap):.2g}% '
        'above the least objective'
      )
    return fit

  def _choose(self, features: np.ndarray, label: np.ndarray) -> float:
    """The l2 with the least loss on the part of train held back."""
    if len(self._path) == 1:
      return self._path[0]
    out = self._sets.held_out('train', self._holdout)
    if not out.any() or out.all():
      raise ValueError(
        f'{self._ctx.where}.holdout_percent={self._holdout} holds back '
        f'{int(out.sum())} of {len(out)} images: too few to choose l2'
      )
    basis = logistic_regression.basis(features[~out])
    losses, fit = [], None
    for l2 in self._path:
      fit = self._fit(basis, label[~out], l2, fit)
      _, loss = _score(fit, features[out], label[out])
      losses.append(loss.mean(dtype=np.float64))
    return self._path[int(np.argmin(losses))]


@functools.partial(jax.jit, static_argnames='num_classes')
def _rank_and_loss(
  fit: Any, features: jax.Array, label: jax.Array, num_classes: int
) -> dict[str, jax.Array]:
  scores = logistic_regression.logits(fit, features)
  return ranks.rank_and_loss(scores, label, num_classes)


def _score(
  fit: Any, features: np.ndarray, label: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """Of each example, classes ranked before the true one, and loss in nats."""
  num_classes, parts = fit.bias.shape[0], []
  for i in range(0, len(label), _BLOCK):
    part = slice(i, i + _BLOCK)
    found = _rank_and_loss(fit, features[part], label[part], num_classes)
    parts.append(jax.device_get(found))
  rank, loss = (
    np.concatenate([p[name] for p in parts]) for name in ('rank', 'loss')
  )
  return rank, loss
