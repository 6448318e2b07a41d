"""Raw label ids -> the fixed-width fields of a batch.

`labels` completes the raw ids through the hierarchy (Sun et al. 2017, section
3.1: an image labelled 'apple' also counts as a positive of 'fruit') and pads
them; `single_label` is for data with exactly one label an image.
"""

from collections.abc import Sequence

import numpy as np

from big_vision_like.hierarchy import Hierarchy
from input_pipeline.errors import BadExample
from input_pipeline.ops.context import OpContext


def _label_ids(context: OpContext, example: dict) -> np.ndarray:
  """Sorted unique int32 [n] label ids of the example.

  Raises:
    ValueError: an id outside the vocabulary. That is a mistake of the whole
      data set, not of one record, so it is no BadExample.
  """
  ids = np.unique(np.asarray(example['labels'], np.int64).reshape(-1))
  if context.vocabulary is not None and ids.size:
    num_classes = len(context.vocabulary.names)
    outside = ids[(ids < 0) | (ids >= num_classes)]
    if outside.size:
      key = f' of {example["key"]!r}' if 'key' in example else ''
      raise ValueError(
        f'{context.where}: label {outside[0]}{key} is outside the vocabulary '
        f'of {num_classes} names (valid ids: 0 to {num_classes - 1})'
      )
  return ids.astype(np.int32)


class Labels:
  """'labels' -> 'label_ids', int32 [max_labels]: ascending ids, then -1.

  Args (options):
    max_labels: width of the field. An example with more labels is a bad one,
      it is never cut short silently.
    fill_in: add all ancestors of each label; needs a hierarchy.
  """

  def __init__(
    self, context: OpContext, *, max_labels: int, fill_in: bool = False
  ):
    if (
      isinstance(max_labels, bool)
      or not isinstance(max_labels, int | np.integer)
      or max_labels < 1
    ):
      raise ValueError(
        f'{context.where}: max_labels must be a positive number, got '
        f'{max_labels!r}'
      )
    if not isinstance(fill_in, bool):
      raise ValueError(
        f'{context.where}: fill_in must be True or False, got {fill_in!r}'
      )
    if fill_in and context.hierarchy is None:
      raise ValueError(
        f'{context.where}: fill_in=True needs a hierarchy, but the data source '
        'has none; give the source one or set fill_in=False'
      )
    self.context = context
    self.max_labels = int(max_labels)
    self.hierarchy: Hierarchy | None = context.hierarchy if fill_in else None

  def __call__(self, example: dict, rng: np.random.Generator) -> dict:
    ids = _label_ids(self.context, example)
    if self.hierarchy is not None:
      ids = self.hierarchy.close(ids)
    if len(ids) > self.max_labels:
      filled = ' after fill-in' if self.hierarchy is not None else ''
      raise BadExample(
        f'{len(ids)} labels{filled} do not fit into max_labels='
        f'{self.max_labels} of {self.context.where}'
      )
    padded = np.full(self.max_labels, -1, np.int32)
    padded[: len(ids)] = ids
    return example | {'label_ids': padded}


class SingleLabel:
  """'labels' -> 'label', int32 scalar; any other number of labels is bad."""

  def __init__(self, context: OpContext):
    self.context = context

  def __call__(self, example: dict, rng: np.random.Generator) -> dict:
    ids = _label_ids(self.context, example)
    if len(ids) != 1:
      raise BadExample(
        f'{len(ids)} labels where {self.context.where} needs exactly one'
      )
    return example | {'label': ids[0]}


class Keep:
  """Drops every field but those named."""

  def __init__(self, context: OpContext, *, fields: Sequence[str]):
    if isinstance(fields, str) or not all(isinstance(f, str) for f in fields):
      raise ValueError(
        f'{context.where}: fields must be a list of names, got {fields!r}'
      )
    self.where = context.where
    self.fields = tuple(fields)

  def __call__(self, example: dict, rng: np.random.Generator) -> dict:
    missing = [f for f in self.fields if f not in example]
    if missing:
      raise ValueError(
        f'{self.where}: no field {", ".join(map(repr, missing))}; the example '
        f'has {", ".join(sorted(example))}'
      )
    return {f: example[f] for f in self.fields}
