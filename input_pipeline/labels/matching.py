"""Labels of two data sets matched by their names, never by their positions.

An evaluation set, a results file and a checkpoint each bring a list of
classes. The same names in another order are mapped; names that only one side
has, or that are misspelt, stop with both lists, since a class that is shifted
by one gives figures that look like those of a bad model.
"""

from collections.abc import Sequence

import numpy as np

from input_pipeline.labels import vocabulary as vocabularies
from input_pipeline.labels.space import LabelSpace

_NUM_SHOWN = 100  # names of a list in a message


def positions(
  own: LabelSpace,
  other: LabelSpace,
  where: str,
  other_where: str,
  *,
  partial: bool = False,
) -> np.ndarray:
  """int32 [C]: for each label of `own` the id of its name in `other`.

  Where the names of one are not known (`anonymous`), positions are all there
  is: the numbers of labels must be equal.

  Args:
    own: labels to be mapped, C of them.
    other: labels to be mapped to.
    where, other_where: what these are, for messages ('evals.val.data', 'the
      training data').
    partial: `other` may have labels that `own` has not.

  Raises:
    ValueError: a name that the other has not; has the names that differ of
      both, and what they may have meant.
  """
  if own.anonymous or other.anonymous:
    if own.num_classes != other.num_classes:
      raise ValueError(
        f'{where} has {own.num_classes} classes, {other_where} '
        f'{other.num_classes}'
      )
    return np.arange(own.num_classes, dtype=np.int32)
  unknown = [name for name in own.names if name not in other.vocabulary]
  missing = [name for name in other.names if name not in own.vocabulary]
  if unknown or (missing and not partial):
    raise ValueError(
      f'{where} and {other_where} have different classes; '
      f'only in {where}: {_listed(unknown, missing or other.names)}; '
      f'only in {other_where}: {_listed(missing)}'
    )
  return np.array([other.vocabulary.index(n) for n in own.names], np.int32)


def _listed(names: Sequence[str], near: Sequence[str] = ()) -> str:
  """The names, each with those of `near` that it may be meant for."""
  shown = [f'{name!r}{_meant(name, near)}' for name in names[:_NUM_SHOWN]] or [
    'none'
  ]
  more = len(names) - _NUM_SHOWN
  return ', '.join(shown) + (f' and {more} more' if more > 0 else '')


def _meant(name: str, near: Sequence[str]) -> str:
  found = vocabularies.suggestion(name, near).removeprefix('; near: ')
  return f' (near: {found})' if found else ''
