"""Few-shot probe: least squares from k images a class, several draws.

A fast figure of how good frozen features are, run during pretraining: k images
of each class are drawn, a ridge regression is solved in closed form, and the
whole of `data` is classified (Kolesnikov et al. 2020, section 4.1; the
definition of the solve is in big_vision_like/ops/least_squares.py).
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import numpy as np

from big_vision_like.config.option_types import Above, Count, NonEmpty
from big_vision_like.ops import least_squares
from big_vision_like.protocols import Prediction
from evaluators.harness import context, frozen_features

_BLOCK = 8192  # rows scored at once


class Evaluator:
  """Figures '<k>shot' and '<k>shot_std': top-1 over the draws, in percent.

  Args:
    predict: the task's prediction functions.
    ctx: see `context.EvalContext`.
    train: the set that the shots are drawn from.
    data, ops, batch_size: the set that is classified; ops (of both) must make
      'label'.
    shots: numbers of images a class. A class with fewer gives all it has.
    num_seeds: draws; the shots of a draw are nested (1 lies in 5 lies in 10).
    l2: of the ridge regression on standardised features.
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
    shots: Annotated[Sequence[Count], NonEmpty()] = (1, 5, 10, 25),
    num_seeds: Count = 3,
    l2: Annotated[float, Above(0)] = 1024.0,
    predict_fn: str = 'features',
    exclude_ids: str | Sequence[str | int] | None = None,
  ):
    self._ctx = ctx
    self._shots, self._num_seeds, self._l2 = tuple(shots), num_seeds, l2
    self._sets = frozen_features.FrozenFeatures(
      predict, ctx, train=train, data=data, ops=ops, batch_size=batch_size,
      predict_fn=predict_fn, exclude_ids=exclude_ids,
    )  # fmt: skip

  def run(self, state: Any) -> dict[str, float]:
    """The figures of a state."""
    train, data = (self._sets.read(state, w) for w in ('train', 'data'))
    hits: dict[int, list[np.ndarray]] = {k: [] for k in self._shots}
    for seed in range(self._num_seeds):
      ranks = rank_in_class(train.label, seed)
      for k in self._shots:
        drawn = np.flatnonzero(ranks < k)
        fit = least_squares.fit(
          train.features[drawn],
          train.label[drawn],
          self._sets.num_classes,
          self._l2,
        )
        hits[k].append(_hits(fit, data))
    self._say_short(train.label)
    return self._sets.figures(data.ids, lambda chosen: _figures(hits, chosen))

  def _say_short(self, classes: np.ndarray) -> None:
    counts = np.bincount(classes, minlength=self._sets.num_classes)
    short = int((counts < max(self._shots)).sum())
    if short:
      self._ctx.say(
        f'{short} of {len(counts)} classes have fewer than '
        f'{max(self._shots)} images in train; all of theirs are used'
      )


def rank_in_class(label: np.ndarray, seed: int) -> np.ndarray:
  """Position of each example in a random order of its class, int [n].

  The examples of rank below k are k random ones a class, nested in k.
  """
  order = np.random.default_rng(seed).permutation(len(label))
  by_class = order[np.argsort(label[order], kind='stable')]
  sorted_label = label[by_class]
  starts = np.searchsorted(sorted_label, sorted_label, side='left')
  ranks = np.empty(len(label), np.int64)
  ranks[by_class] = np.arange(len(label)) - starts
  return ranks


def _figures(
  hits: Mapping[int, Sequence[np.ndarray]], chosen: np.ndarray
) -> dict[str, float]:
  figures = {}
  for k, draws in hits.items():
    top1 = [100 * hit[chosen].mean() for hit in draws]
    figures[f'{k}shot'] = float(np.mean(top1))
    figures[f'{k}shot_std'] = float(np.std(top1))
  return figures


def _hits(fit: least_squares.Fit, data: frozen_features.Labelled) -> np.ndarray:
  """bool [n]: whether each example is classified rightly."""
  hits = np.empty(len(data.label), bool)
  for i in range(0, len(hits), _BLOCK):
    part = slice(i, i + _BLOCK)
    scores = least_squares.scores(fit, data.features[part])
    hits[part] = np.asarray(scores).argmax(1) == data.label[part]
  return hits
