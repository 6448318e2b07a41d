"""Rows in two flat arrays, against lists of lists."""

from itertools import chain

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from input_pipeline.labels import ragged
from input_pipeline.labels.ragged import Ragged

NUM_VALUES = 6
LISTS = st.lists(st.lists(st.integers(0, NUM_VALUES - 1), max_size=5))


def of(lists: list[list[int]]) -> Ragged:
  lengths = np.array([len(row) for row in lists], np.int64)
  return Ragged.of_lengths(lengths, np.array([*chain(*lists)], np.int32))


def pairs(lists: list[list[int]], seed: int) -> tuple[np.ndarray, np.ndarray]:
  """(row, value) of all values, shuffled."""
  found = [(i, value) for i, row in enumerate(lists) for value in row]
  np.random.default_rng(seed).shuffle(found)
  rows, values = np.array(found, np.int64).reshape(-1, 2).T
  return rows, values.astype(np.int32)


def to_lists(rows: Ragged) -> list[list[int]]:
  assert rows.ends.dtype == np.int64 and rows.values.dtype == np.int32
  assert rows.ends[0] == 0 and rows.ends[-1] == len(rows.values)
  return [row.tolist() for row in rows]


@hypothesis.given(LISTS)
def test_rows(lists):
  rows = of(lists)
  assert to_lists(rows) == lists and len(rows) == len(lists)
  assert [rows[i].tolist() for i in range(len(rows))] == lists
  assert rows.lengths.tolist() == [len(row) for row in lists]
  assert rows.owners.tolist() == [i for i, row in enumerate(lists) for _ in row]


@hypothesis.given(LISTS, st.integers(0, 99))
def test_of_pairs(lists, seed):
  rows, values = pairs(lists, seed)
  found = Ragged.of_pairs(rows, values, len(lists))
  assert to_lists(found) == [sorted(row) for row in lists]


@hypothesis.given(LISTS, st.integers(0, 99))
def test_of_unique_pairs(lists, seed):
  rows, values = pairs(lists, seed)
  found = Ragged.of_unique_pairs(rows, values, len(lists), NUM_VALUES)
  assert to_lists(found) == [sorted(set(row)) for row in lists]


@hypothesis.given(LISTS, st.data())
def test_some_rows(lists, data):
  place = st.integers(0, len(lists) - 1) if lists else st.nothing()
  chosen = data.draw(st.lists(place))
  wanted = [lists[i] for i in chosen]
  for kind in (np.int64, np.int32, np.uint32):
    rows = np.array(chosen, kind)
    assert to_lists(of(lists).take(rows)) == wanted
    lengths, values = of(lists).gather(rows)
    assert lengths.tolist() == [len(row) for row in wanted]
    assert values.tolist() == [*chain(*wanted)]


@hypothesis.given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 4))))
def test_positions(spans):
  starts, lengths = np.array(spans, np.int64).reshape(-1, 2).T
  wanted = [start + i for start, length in spans for i in range(length)]
  assert ragged.positions(starts, lengths).tolist() == wanted


@hypothesis.given(st.lists(st.integers(-9, 9)))
def test_sorted_unique(values):
  found = ragged.sorted_unique(np.array(values, np.int64))
  assert found.tolist() == sorted(set(values))


@pytest.mark.parametrize('row', [-1, 2])
def test_there_is_no_such_row(row):
  with pytest.raises(IndexError):
    of([[1], [2, 3]])[row]


def test_a_row_is_no_copy():
  rows = of([[1], [2, 3]])
  assert rows[1].base is rows.values
