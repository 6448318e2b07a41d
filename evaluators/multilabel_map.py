"""mAP@100 on a densely labelled set (Sun et al. 2017, section 4).

The k best classes of each image are found on the device, from logits split by
class; the host keeps k numbers an image. docs/map-at-100.md gives the
definition and every option; big_vision_like/metrics/ranking.py computes it.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np

from big_vision_like.config.option_types import AtLeast, Count, EndsWith, OneOf
from big_vision_like.metrics import average_precision, ranking
from big_vision_like.ops import pick, topk
from big_vision_like.protocols import Prediction
from evaluators.harness import class_files, context, exclusions
from evaluators.harness.evaluation_set import EvalData, run_over

NotNegative = Annotated[int, AtLeast(0)]

Weights = (
  Annotated[str, OneOf((*ranking.WEIGHTS, 'source'))]
  | Annotated[str, EndsWith(('.csv', '.jsonl'))]
)


class Evaluator:
  """Scores predict[predict_fn]['logits'] against batch['label_ids'].

  Args:
    predict: the task's prediction functions.
    ctx: see `context.EvalContext`.
    data, ops, batch_size: the evaluation set; ops must make 'label_ids'.
    predict_fn: which prediction gives the logits.
    k, vocab, axis, cut, denominator, normalise_weights, unknown: the
      definition, see `RankingOptions`; with unknown='ignore' ops must make
      'negative_ids' too.
    weights: 'gt_frequency', 'uniform', 'log1p_frequency', 'source' (the
      vocabulary's popularity weights) or a CSV/JSONL file of name and weight.
    close_ground_truth: complete the labels through the source's hierarchy;
      not needed where the op 'labels' does it (fill_in=True).
    annotated: the annotated vocabulary, a text file of class names or a list;
      None: the classes that occur in the evaluation set's labels.
    exclude_ids: near-duplicates of training images: a text file of record keys
      or a list of keys or indices. Figures without them are '<name>/dedup'.
    tail_below, head_from: classes with fewer training images are the tail,
      with at least so many the head, between them the torso.
    train_counts: CSV/JSONL file of name and count; None: the counts of the
      training source's vocabulary. Without counts there are no buckets.
  """

  def __init__(
    self,
    predict: Mapping[str, Prediction],
    ctx: context.EvalContext,
    *,
    data: Mapping[str, Any],
    ops: Sequence[Mapping[str, Any]],
    batch_size: Count,
    predict_fn: str = 'logits',
    k: Count = 100,
    vocab: average_precision.Vocab = 'annotated',
    axis: average_precision.Axis = 'class',
    cut: average_precision.Cut = 'per_image',
    denominator: average_precision.Denominator = 'all_positives',
    weights: Weights = 'gt_frequency',
    normalise_weights: bool = True,
    unknown: average_precision.Unknown = 'negative',
    close_ground_truth: bool = False,
    annotated: str | Sequence[str] | None = None,
    exclude_ids: str | Sequence[str | int] | None = None,
    tail_below: NotNegative = 100,
    head_from: NotNegative = 10_000,
    train_counts: str | None = None,
  ):
    self._ctx = ctx
    self._predict = context.choose(predict, predict_fn, ctx, 'classes')
    try:
      self._options = average_precision.RankingOptions(
        k, vocab, axis, cut, denominator, normalise_weights, unknown
      )
    except ValueError as error:
      raise ValueError(f'{ctx.where}: {error}') from None
    fields = ('image', 'label_ids')
    if unknown == 'ignore':
      fields = (*fields, 'negative_ids')
    self._data = EvalData(ctx, data, ops, batch_size, fields=fields)
    self._weights = self._read_weights(weights)
    self._close = self._read_closure(close_ground_truth)
    self._given = self._read_annotated(annotated)
    self._excluded = self._read_excluded(exclude_ids)
    self._groups = self._read_buckets(tail_below, head_from, train_counts)
    self._groups |= self._levels()
    self._allowed: np.ndarray | None = None  # found at the first run
    self._name = 'map' if cut == 'none' else f'map@{k}'

  def run(self, state: Any) -> dict[str, float]:
    """The figures of a state; percentages but for the counts."""
    if self._allowed is None:
      self._allowed = self._vocabulary()
    accumulator = ranking.RankingAccumulator(
      self._ctx.num_classes,
      self._options,
      weights=self._weights,
      annotated=self._allowed,
      close=self._close,
    )
    fields = ('label_ids',)
    for outputs, batch in run_over(self._outputs, state, self._data, fields):
      labels, ids = batch['label_ids'], batch['_id']
      self._data.refuse(outputs['nan'], ids, 'the scores of {} are NaN')
      if 'known' in outputs:
        accumulator.add_known(outputs['scores'], outputs['known'], labels, ids)
      elif 'logits' in outputs:
        accumulator.add_full(outputs['logits'], labels, ids)
      else:
        accumulator.add(outputs['scores'], outputs['classes'], labels, ids)
    result = accumulator.result()
    figures = {self._name: result.value}
    for group, mask in self._groups.items():
      value = result.over(mask)
      if value is not None:
        figures[f'{self._name}{group}'] = value
    figures['num_images'] = result.num_images
    if self._options.unknown == 'ignore':
      figures['num_negatives'] = result.num_negatives
    figures['num_classes_evaluated'] = result.num_classes
    if self._excluded is not None:
      rest = accumulator.result(exclude=self._excluded)
      figures[f'{self._name}/dedup'] = rest.value
      figures['num_images/dedup'] = rest.num_images
    return figures

  def _outputs(self, state: Any, batch: Any) -> dict[str, jax.Array]:
    """On the device: scores of each image's best classes, or of those known.

    Or all its logits, where the cut needs them.
    """
    assert self._allowed is not None
    logits = self._predict(state, batch)['logits']
    width, num_classes = logits.shape[1], self._ctx.num_classes
    real = jnp.arange(width) < num_classes
    nan = jnp.any(jnp.isnan(logits) & real, axis=1)
    if self._options.unknown == 'ignore':
      known = jnp.concatenate([batch['label_ids'], batch['negative_ids']], 1)
      return {'scores': pick.pick(logits, known), 'known': known, 'nan': nan}
    if self._options.cut != 'per_image':
      return {'logits': logits, 'nan': nan}
    allowed = np.zeros(width, bool)
    allowed[:num_classes] = self._allowed
    scores, classes = topk.top_k(
      logits, min(self._options.k, width), jnp.asarray(allowed)
    )
    classes = jnp.where(classes < num_classes, classes, -1)
    return {'scores': scores, 'classes': classes, 'nan': nan}

  def _vocabulary(self) -> np.ndarray:
    """bool [C]: the classes that compete; reads the labels, not the images."""
    num_classes, num_images = self._ctx.num_classes, len(self._data.source)
    if self._options.vocab == 'all':
      allowed = np.ones(num_classes, bool)
    elif self._given is not None:
      allowed = self._given
    else:
      allowed = np.zeros(num_classes, bool)
      for ids in self._data.label_ids():
        allowed[self._close(ids) if self._close else ids] = True
    if self._options.cut == 'none' and self._options.unknown == 'negative':
      try:
        ranking.check_full_scores(num_images, int(allowed.sum()))
      except ValueError as error:
        raise ValueError(f'{self._ctx.where}: {error}') from None
    if isinstance(self._weights, str) and self._weights == 'gt_frequency':
      self._ctx.say(
        'weights=gt_frequency: classes are weighted by their frequency in '
        'this set, a stand-in for the private popularity weights'
      )
    return allowed

  def _read_weights(self, weights: str) -> str | np.ndarray:
    vocabulary, where = self._data.source.vocabulary, self._ctx.where
    if weights == 'source':
      if vocabulary.weights is None:
        raise ValueError(
          f"{where}.weights='source': the vocabulary of {where}.data has no "
          'popularity weights'
        )
      return vocabulary.weights
    if weights in ranking.WEIGHTS:
      return weights
    return class_files.read_values(
      weights, vocabulary, ('weight', 'popularity_weight')
    )

  def _read_closure(self, close: bool) -> Any:
    if not close:
      return None
    if self._options.unknown == 'ignore':
      raise ValueError(
        f"{self._ctx.where}.close_ground_truth: with unknown='ignore' the op "
        "'labels' completes labels and negatives (fill_in, fill_in_negatives)"
      )
    if self._data.source.hierarchy is None:
      raise ValueError(
        f'{self._ctx.where}.close_ground_truth: the data have no hierarchy'
      )
    return self._data.source.hierarchy.close

  def _read_annotated(self, annotated: Any) -> np.ndarray | None:
    if annotated is None:
      return None
    where = f'{self._ctx.where}.annotated'
    if isinstance(annotated, str):
      where, annotated = annotated, class_files.read_list(annotated)
    mask = class_files.class_mask(
      annotated, self._data.source.vocabulary, where
    )
    if not mask.any():
      raise ValueError(f'{where}: names no class')
    return mask

  def _read_excluded(self, exclude: Any) -> np.ndarray | None:
    """int64 indices of the excluded records, sorted."""
    return exclusions.read_excluded(
      exclude,
      self._data.source,
      f'{self._ctx.where}.exclude_ids',
      self._ctx.say,
    )

  def _read_buckets(
    self, tail_below: int, head_from: int, path: str | None
  ) -> dict[str, np.ndarray]:
    """End of name -> bool [C], by training images after fill-in."""
    where = self._ctx.where
    if tail_below > head_from:
      raise ValueError(
        f'{where}: tail_below={tail_below} must be at most head_from='
        f'{head_from}'
      )
    if self._options.axis != 'class':
      return {}
    if path is not None:
      vocabulary = self._data.source.vocabulary
      counts = class_files.read_values(path, vocabulary, ('count', 'n_images'))
      if np.isnan(counts).any():
        name = vocabulary.names[int(np.isnan(counts).argmax())]
        raise ValueError(f'{path}: no count for class {name!r}')
    else:
      counts = self._data.train_counts
    if counts is None:
      self._ctx.say('no training counts: no head, torso and tail figures')
      return {}
    return {
      '_head': counts >= head_from,
      '_torso': (counts >= tail_below) & (counts < head_from),
      '_tail': counts < tail_below,
    }

  def _levels(self) -> dict[str, np.ndarray]:
    """Name -> bool [C], by place in the hierarchy; none without edges.

    Most of the default weight lies on few ancestors, so that the figure of all
    classes says little of the leaves.
    """
    hierarchy = self._data.source.hierarchy
    if self._options.axis != 'class' or hierarchy is None:
      return {}
    inner = np.zeros(hierarchy.num_labels, bool)
    inner[hierarchy.parents.values] = True
    if not inner.any():
      return {}
    depths = range(int(hierarchy.depth.max()) + 1)
    return {
      '/leaves': ~inner,
      '/inner': inner,
      **{f'/depth{d}': hierarchy.depth == d for d in depths},
    }
