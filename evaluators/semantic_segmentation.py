"""Semantic segmentation: mean intersection over union at the original size.

The logits of an image are interpolated to the size of its mask, the best class
of every pixel is counted against the true one, and the confusion matrix is
summed over all images (Sun et al. 2017, section 5.3; Everingham et al. 2015).
Interpolation and counting stay on the device; C x C numbers an image leave it.
"""

import csv
import functools
import os
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec

from big_vision_like.config.option_types import Count
from big_vision_like.metrics import segmentation
from big_vision_like.ops import confusion, interpolation
from big_vision_like.parallel import constraints
from big_vision_like.protocols import Prediction
from evaluators.harness import context, exclusions
from evaluators.harness.evaluation_set import EvalData, run_over
from input_pipeline.examples import annotations
from input_pipeline.files import atomic
from input_pipeline.labels.space import LabelSpace

BACKGROUND = 'background'


class Evaluator:
  """Scores predict[predict_fn]['logits'] [B, h, w, C] against masks.

  Figures: 'miou', 'pixel_accuracy' and 'mean_accuracy' in percent (a class
  without a true or predicted pixel has no IoU and is left out of the mean),
  'iou/<class>' of every class that has one, 'num_images', 'num_pixels' (void
  ones, 255, count nowhere). Runs with a workdir leave the matrix in
  <workdir>/<name>_confusion.csv: true classes down, predicted ones across.

  Args:
    predict: the task's prediction functions.
    ctx: see `context.EvalContext`.
    data, ops, batch_size: the evaluation set.
    predict_fn: which prediction gives the logits.
    size: 'original' scores at the size of each mask: ops must make
      'full_segmentation', 'full_size' and 'image_size'; 'input' at that of the
      net's input: ops must make 'segmentation'.
    per_class: give 'iou/<class>'.
    exclude_ids: near-duplicates of training images, see
      `exclusions.read_excluded`. Figures without them are '<name>/dedup'.
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
    size: Literal['original', 'input'] = 'original',
    per_class: bool = True,
    exclude_ids: str | Sequence[str | int] | None = None,
  ):
    self._ctx = ctx
    self._predict = context.choose(predict, predict_fn, ctx, 'mask')
    self._at_original = size == 'original'
    self._per_class = per_class
    fields = ('full_segmentation', 'full_size', 'image_size')
    if not self._at_original:
      fields = ('segmentation',)
    self._data = EvalData(
      ctx, data, ops, batch_size,
      fields=('image', *fields), exclude_ids=exclude_ids,
    )  # fmt: skip

  def run(self, state: Any) -> dict[str, float]:
    """The figures of a state; every pixel of every image counts once."""
    total: Any = np.int64(0)
    kept: Any = np.int64(0)
    num_images = 0
    for outputs, batch in run_over(self._outputs, state, self._data):
      self._check(outputs, batch['_id'])
      counts = outputs['confusion'].astype(np.int64)  # [n, C, C]
      keep = self._data.kept(batch['_id'])
      total = total + counts.sum(axis=0)
      kept = kept + counts[keep].sum(axis=0)
      num_images += len(counts)
    names = self._class_names(len(total))
    self._write(names, total)
    figures = self._figures(names, total) | {'num_images': num_images}
    if self._data.excluded is not None:
      rest = self._figures(names, kept)
      rest['num_images'] = num_images - len(self._data.excluded)
      figures |= exclusions.without_excluded(rest)
    return figures

  def _outputs(self, state: Any, batch: Any) -> dict[str, jax.Array]:
    """'confusion' int32 [B, C, C] and what is wrong, bool [B], on the device.

    'broken': logits that are not finite; 'outside': a label that is no class.
    """
    logits = self._predict(state, batch)['logits']
    seen = batch['image'].shape[1:3]
    stride = interpolation.stride_between(seen, logits.shape[1:3])
    if self._at_original:
      labels = batch['full_segmentation']
      sizes = batch['image_size'], batch['full_size']
    else:
      labels = batch['segmentation']
      whole = jnp.array(seen, jnp.int32)
      sizes = (jnp.broadcast_to(whole, (len(labels), 2)),) * 2
    count = functools.partial(_confusion, stride=stride)
    axes = PartitionSpec(constraints.BATCH)
    if (
      constraints.mesh_axes()
    ):  # each device its own images, one after the other
      count = jax.shard_map(count, in_specs=axes, out_specs=axes)
    return {
      'confusion': count((logits, labels, *sizes)),
      'broken': ~jnp.isfinite(logits).all((1, 2, 3)),
      'outside': (
        (labels >= logits.shape[-1]) & (labels != annotations.IGNORE)
      ).any((1, 2)),
    }

  def _class_names(self, num_outputs: int) -> list[str]:
    """Names of the logits' classes, the background first where there is one."""
    names = list(self._data.source.vocabulary.names)
    extra = num_outputs - len(names)
    if extra not in (0, 1):
      raise ValueError(
        f'{self._ctx.where}: the prediction has {num_outputs} classes, the '
        f'vocabulary {len(names)}, with a background {len(names) + 1}'
      )
    background = LabelSpace.of_source(self._data.source).background
    if background is not None and background != bool(extra):
      raise ValueError(
        f'{self._ctx.where}.data: background={background}, but the prediction '
        f'has {num_outputs} classes for {len(names)} names'
      )
    return [BACKGROUND, *names] if extra else names

  def _figures(
    self, names: Sequence[str], counts: np.ndarray
  ) -> dict[str, float]:
    if not counts.sum():
      raise ValueError(f'{self._ctx.where}: no pixel counts: all are void')
    figures = segmentation.figures(counts)
    figures['num_pixels'] = float(counts.sum())
    if self._per_class:
      for i, value in enumerate(segmentation.iou(counts)):
        key = f'iou/{"_".join(names[i].split())}'
        if not np.isnan(value):  # a name that is taken gets its id
          key = f'{key}_{i}' if key in figures else key
          figures[key] = float(100 * value)
    return figures

  def _write(self, names: Sequence[str], counts: np.ndarray) -> None:
    if self._ctx.workdir is None or self._ctx.process_index:
      return
    path = os.path.join(self._ctx.workdir, f'{self._ctx.name}_confusion.csv')
    with atomic.writing_text(path) as file:
      writer = csv.writer(file, lineterminator='\n')
      writer.writerow(['true', *names])
      writer.writerows(
        [name, *row] for name, row in zip(names, counts.tolist())
      )

  def _check(self, outputs: Mapping[str, np.ndarray], ids: np.ndarray) -> None:
    num_outputs = outputs['confusion'].shape[-1]
    for name, what in (
      ('broken', 'the logits are not finite'),
      ('outside', f'a mask has an id that is none of {num_outputs} classes'),
    ):
      self._data.refuse(outputs[name], ids, f'{what}, in {{}}')


def _confusion(examples: Any, stride: int) -> jax.Array:
  """int32 [B, C, C] of (logits, labels, image sizes, full sizes)."""

  def count(example: Any) -> jax.Array:
    logits, labels, image_size, full_size = example
    predicted = interpolation.class_ids(
      logits, labels.shape, stride, image_size, full_size
    )
    return confusion.matrix(labels, predicted, logits.shape[-1])

  return jax.lax.map(count, examples)
