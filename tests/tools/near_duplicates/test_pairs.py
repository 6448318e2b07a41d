"""Pairs of near duplicates: the nearest of each row, and groups of rows."""

import networkx
import numpy as np

from tools.near_duplicates import pairs


def test_only_the_nearest_are_kept_and_the_rest_is_counted():
  nearest = pairs.Nearest(2)
  query = np.array([4, 4, 4, 9, 4])
  found = np.array([8, 3, 5, 1, 2])
  closeness = np.array([0.5, 0.9, 0.9, 0.1, 0.9], np.float32)
  mirrored = np.zeros(5, bool)
  nearest.add(pairs.Pairs(query, found, mirrored, closeness))
  result = nearest.result()
  kept = list(zip(result.query.tolist(), result.found.tolist()))
  assert kept == [(4, 2), (4, 3), (9, 1)]
  assert nearest.num_dropped == 2


def test_a_pair_found_again_is_kept_once_as_close_as_it_was_at_best():
  nearest = pairs.Nearest(2)
  for closeness in (0.7, 0.9, 0.8):
    nearest.add(
      pairs.Pairs(
        np.array([4, 4]), np.array([8, 8]), np.array([False, True]),
        np.array([closeness, 0.5], np.float32),
      )
    )  # fmt: skip
  result = nearest.result()
  assert result.found.tolist() == [8, 8]
  assert result.mirrored.tolist() == [False, True]
  np.testing.assert_allclose(result.closeness, [0.9, 0.5], rtol=1e-6)
  assert nearest.num_dropped == 0


def test_groups_of_connected_rows_are_those_of_networkx():
  rng = np.random.default_rng(0)
  a, b = rng.integers(0, 300, (2, 200))
  graph = networkx.Graph(list(zip(a.tolist(), b.tolist())))
  expected = {
    row: min(group)
    for group in networkx.connected_components(graph)
    for row in group
  }
  assert pairs.first_of_groups(a, b) == expected
