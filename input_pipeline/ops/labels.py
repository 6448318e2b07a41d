"""Raw labels -> the fixed-width fields of a batch.

`labels` completes the raw ids through the hierarchy (Sun et al. 2017, section
3.1: an image labelled 'apple' also counts as a positive of 'fruit') and pads
them, with the confidences and the verified negatives where asked to;
`single_label` is for data with exactly one label an image.
"""

import copy
from collections.abc import Collection, Sequence
from typing import Any, ClassVar

import numpy as np

from big_vision_like.config.option_types import Count, Fraction
from input_pipeline.examples.errors import BadExample
from input_pipeline.labels import states
from input_pipeline.labels.hierarchy import Hierarchy
from input_pipeline.ops.context import OpContext
from input_pipeline.ops.declared import Declared


def _checked_ids(
  context: OpContext, example: dict, field: str = 'labels'
) -> np.ndarray:
  """int64 [n] ids of a field of the example, in their order.

  Raises:
    ValueError: an id outside the vocabulary. That is a mistake of the whole
      data set, not of one record, so it is no BadExample.
  """
  ids = np.asarray(example[field], np.int64).reshape(-1)
  if context.vocabulary is not None and ids.size:
    num_classes = len(context.vocabulary.names)
    if ids.min() < 0 or ids.max() >= num_classes:
      outside = ids[(ids < 0) | (ids >= num_classes)]
      key = f' of {example["key"]!r}' if 'key' in example else ''
      name = 'label' if field == 'labels' else f'label in {field}:'
      raise ValueError(
        f'{context.where}: {name} {outside.min()}{key} is outside the '
        f'vocabulary of {num_classes} names (valid ids: 0 to '
        f'{num_classes - 1})'
      )
  return ids


def _label_ids(context: OpContext, example: dict) -> np.ndarray:
  """Sorted unique int32 [n] label ids of the example; see `_checked_ids`."""
  return np.unique(_checked_ids(context, example)).astype(np.int32)


def _without_raw_confidences(example: dict) -> dict:
  """They are one a raw label: no field of fixed width."""
  return {k: v for k, v in example.items() if k != 'label_conf'}


class Labels(Declared):
  """'labels' -> 'label_ids', int32 [max_labels]: ascending ids, then -1.

  With `confidence` also 'label_conf', float32 [max_labels]: how sure each
  label is, 1 where the example does not say, 0 where padded. With
  `max_negatives` also 'negative_ids', int32 [max_negatives]: the labels known
  to be absent, ascending, then -1. docs/label-states.md explains them.

  Args (options):
    max_labels: width of the field. An example with more labels is a bad one,
      it is never cut short silently.
    fill_in: add all ancestors of each label; needs a hierarchy. An ancestor is
      as sure as the surest label below it.
    confidence: make 'label_conf'.
    min_confidence: drop labels that are less sure, before fill-in.
    max_negatives: width of 'negative_ids'; None: no such field. Too many are a
      bad example too; an example that records no negatives at all (not even an
      empty list) is an error, because then nothing of it is known.
    fill_in_negatives: add all descendants of each negative; needs a hierarchy.
      Positives win: a negative above a positive is dropped.
  """

  reads = frozenset({'labels', 'label_conf', 'negatives'})
  does_without = frozenset({'label_conf'})
  makes = frozenset({'label_ids', 'label_conf', 'negative_ids'})
  options_for: ClassVar[dict[str, str]] = {
    'label_conf': 'confidence=True', 'negative_ids': 'max_negatives',
  }  # fmt: skip

  def __init__(
    self,
    context: OpContext,
    *,
    max_labels: Count,
    fill_in: bool = False,
    confidence: bool = False,
    min_confidence: Fraction | None = None,
    max_negatives: Count | None = None,
    fill_in_negatives: bool = False,
  ):
    where = context.where
    for name, flag in (
      ('fill_in', fill_in), ('fill_in_negatives', fill_in_negatives),
    ):  # fmt: skip
      if flag and context.hierarchy is None:
        raise ValueError(
          f'{where}: {name}=True needs a hierarchy, but the data source has '
          f'none; give the source one or set {name}=False'
        )
    if fill_in_negatives and max_negatives is None:
      raise ValueError(f'{where}: fill_in_negatives=True needs max_negatives')
    self.context = context
    self.max_labels = int(max_labels)
    self.max_negatives = max_negatives
    self.hierarchy: Hierarchy | None = context.hierarchy if fill_in else None
    self._confidence = confidence
    self._min_confidence = min_confidence
    self._negatives = states.Negatives(
      context.hierarchy if fill_in_negatives else None,
      fill_in=fill_in_negatives,
    )
    self._declare()

  def _declare(self) -> None:
    """Narrows what the class reads and makes to what the options ask for."""
    reads, makes = {'labels'}, {'label_ids'}
    if self._confidence:
      makes.add('label_conf')
    if self._confidence or self._min_confidence is not None:
      reads.add('label_conf')
    if self.max_negatives is not None:
      reads.add('negatives')
      makes.add('negative_ids')
    self.reads, self.makes = frozenset(reads), frozenset(makes)

  def only(self, names: Collection[str]) -> 'Labels':
    """The op that makes none but those fields, and reads what that takes."""
    narrowed = copy.copy(self)
    narrowed._confidence = self._confidence and 'label_conf' in names
    if 'negative_ids' not in names:
      narrowed.max_negatives = None
    narrowed._declare()
    return narrowed

  def __call__(self, example: dict, rng: np.random.Generator) -> dict:
    made: dict[str, Any] = {}
    if self._confidence or self._min_confidence is not None:
      ids, confidences = self._sure_labels(example)
      if self._confidence:
        made['label_conf'] = np.zeros(self.max_labels, np.float32)
        made['label_conf'][: len(ids)] = confidences[: self.max_labels]
    else:
      ids = _label_ids(self.context, example)
      if self.hierarchy is not None:
        ids = self.hierarchy.close(ids)
    made['label_ids'] = self._padded(
      ids, 'max_labels', self.hierarchy is not None
    )
    if self.max_negatives is not None:
      made['negative_ids'] = self._negative_ids(example, ids)
    if 'label_conf' in example:
      example = _without_raw_confidences(example)
    return example | made

  def _sure_labels(self, example: dict) -> tuple[np.ndarray, np.ndarray]:
    """Ascending unique ids [n] and the confidence float32 [n] of each."""
    raw = _checked_ids(self.context, example)
    given = example.get('label_conf')
    if given is None:
      given = np.ones(len(raw), np.float32)
    given = np.asarray(given, np.float32)
    if given.shape != raw.shape or (
      given.size and not 0 <= given.min() <= given.max() <= 1
    ):
      raise ValueError(
        f'{self.context.where}: label_conf must be one number in [0, 1] a '
        f'label, got {given.tolist()!s:.80} for {len(raw)} labels'
      )
    if self._min_confidence is not None:
      kept = given >= np.float32(self._min_confidence)
      raw, given = raw[kept], given[kept]
    return states.close_confidences(self.hierarchy, raw, given)

  def _negative_ids(self, example: dict, positives: np.ndarray) -> np.ndarray:
    if 'negatives' not in example:
      key = f' of {example["key"]!r}' if 'key' in example else ''
      raise ValueError(
        f'{self.context.where}: max_negatives is set, but the example{key} '
        'records no negatives, not even an empty list. Where labels that are '
        "absent were never verified, leave max_negatives out and keep unknown='"
        "negative'"
      )
    raw = _checked_ids(self.context, example, 'negatives')
    ids, _ = self._negatives.resolve(raw, positives)
    return self._padded(ids, 'max_negatives', self._negatives.fills_in)

  def _padded(self, ids: np.ndarray, option: str, filled: bool) -> np.ndarray:
    """int32 [width]: ids, then -1.

    Raises:
      BadExample: more ids than the option `option` allows.
    """
    width = getattr(self, option)
    if len(ids) > width:
      what = 'labels' if option == 'max_labels' else 'negatives'
      after = ' after fill-in' if filled else ''
      raise BadExample(
        f'{len(ids)} {what}{after} do not fit into {option}={width} of '
        f'{self.context.where}'
      )
    padded = np.full(width, -1, np.int32)
    padded[: len(ids)] = ids
    return padded


class SingleLabel(Declared):
  """'labels' -> 'label', int32 scalar; any other number of labels is bad."""

  reads = frozenset({'labels'})
  makes = frozenset({'label'})

  def __init__(self, context: OpContext):
    self.context = context

  def __call__(self, example: dict, rng: np.random.Generator) -> dict:
    ids = _label_ids(self.context, example)
    if len(ids) != 1:
      raise BadExample(
        f'{len(ids)} labels where {self.context.where} needs exactly one'
      )
    if 'label_conf' in example:
      example = _without_raw_confidences(example)
    return example | {'label': ids[0]}


class Keep(Declared):
  """Drops every field but those named, and the record's key, for messages."""

  reads = makes = frozenset[str]()
  needs_pixels = False

  def __init__(self, context: OpContext, *, fields: Sequence[str]):
    self.where = context.where
    self.fields = tuple(fields)
    self.reads = self.keeps_only = frozenset(fields)

  def __call__(self, example: dict, rng: np.random.Generator) -> dict:
    missing = [f for f in self.fields if f not in example]
    if missing:
      raise ValueError(
        f'{self.where}: no field {", ".join(map(repr, missing))}; the example '
        f'has {", ".join(sorted(example))}'
      )
    key = {'key': example['key']} if 'key' in example else {}
    return key | {f: example[f] for f in self.fields}
