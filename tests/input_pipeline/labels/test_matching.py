"""Labels of two sets matched by name."""

import numpy as np
import pytest

from input_pipeline.labels import matching
from input_pipeline.labels.space import LabelSpace
from input_pipeline.labels.vocabulary import Vocabulary


def space(*names, ids=None):
  return LabelSpace(Vocabulary(names), external_ids=ids)


def positions(own, other, **options):
  found = matching.positions(
    own, other, 'evals.val.data', 'training', **options
  )
  assert found.dtype == np.int32
  return found.tolist()


def test_another_order_and_other_ids_are_mapped_by_name():
  own = space('dog', 'cat', 'bird', ids=(1, 2, 3))
  trained = space('bird', 'cat', 'dog', ids=(90, 2, 1))
  assert positions(own, trained) == [2, 1, 0]
  assert positions(trained, trained) == [0, 1, 2]


def test_a_misspelt_class_stops_with_both_lists():
  own, trained = space('motorbike', 'dog'), space('dog', 'motorbke', 'tree')
  with pytest.raises(ValueError) as error:
    positions(own, trained)
  assert str(error.value) == (
    'evals.val.data and training have different classes; only in '
    "evals.val.data: 'motorbike' (near: 'motorbke'); only in training: "
    "'motorbke', 'tree'"
  )


def test_a_missing_class_stops_unless_a_part_will_do():
  own, trained = space('dog'), space('cat', 'dog')
  with pytest.raises(ValueError, match=r"evals\.val\.data: none; .*: 'cat'$"):
    positions(own, trained)
  assert positions(own, trained, partial=True) == [1]
  with pytest.raises(ValueError, match="data: 'cat'; only in training: none"):
    positions(trained, own, partial=True)


def test_a_shifted_list_is_not_taken_by_position():
  """A background at the front of one of the lists (mmdetection #9611)."""
  own, trained = space('background', 'a', 'b'), space('a', 'b', 'c')
  with pytest.raises(ValueError, match="'background'; only in training: 'c'"):
    positions(own, trained)


def test_unknown_names_compare_by_number():
  own, trained = space('a', 'b'), LabelSpace.of_count(2)
  assert positions(own, trained) == [0, 1]
  with pytest.raises(ValueError, match='data has 2 classes, training 3'):
    positions(own, LabelSpace.of_count(3))


def test_long_lists_are_cut():
  own = space(*(f'x{i}' for i in range(103)))
  with pytest.raises(
    ValueError, match="'x99' and 3 more; only in training: 'a'"
  ):
    positions(own, space('a'))
