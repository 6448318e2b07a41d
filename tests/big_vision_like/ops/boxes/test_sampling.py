"""Numbers, kinds and chances of what is sampled."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from big_vision_like.ops.boxes import sampling


def _draw(positive, negative, size, fraction, seed=0):
  draw = jax.jit(sampling.sample, static_argnums=(3, 4))
  found = draw(
    jax.random.key(seed), jnp.asarray(positive), jnp.asarray(negative),
    size, fraction,
  )  # fmt: skip
  return jax.tree.map(np.asarray, found)


@pytest.mark.parametrize(
  ('positives', 'negatives', 'size', 'fraction', 'expected'),
  [
    (50, 50, 16, 0.5, (8, 8)),
    (50, 50, 15, 0.5, (7, 8)),  # the floor
    (3, 50, 16, 0.5, (3, 13)),  # negatives fill up
    (50, 3, 16, 0.5, (8, 3)),  # positives do not
    (0, 50, 16, 0.5, (0, 16)),
    (50, 0, 16, 0.25, (4, 0)),
    (0, 0, 16, 0.5, (0, 0)),
    (2, 3, 16, 0.5, (2, 3)),
    (50, 50, 16, 0.0, (0, 16)),
    (50, 50, 16, 1.0, (16, 0)),
  ],
)
def test_numbers(positives, negatives, size, fraction, expected):
  rng = np.random.default_rng(0)
  kind = np.zeros(120, int)
  kind[:positives], kind[positives : positives + negatives] = 1, 2
  kind = rng.permutation(kind)
  found = _draw(kind == 1, kind == 2, size, fraction)
  taken = found.index[found.mask]
  assert len(set(taken.tolist())) == len(taken)
  np.testing.assert_array_equal(kind[taken] == 1, found.positive[found.mask])
  assert (kind[taken] > 0).all()
  num = found.positive.sum(), (found.mask & ~found.positive).sum()
  assert num == expected
  # Positives first, then negatives, then nothing.
  state = np.where(found.positive, 0, np.where(found.mask, 1, 2))
  assert (np.diff(state) >= 0).all()
  assert not found.index[~found.mask].any()


def test_fewer_candidates_than_places():
  found = _draw([True, False, False], [False, True, False], 8, 0.5)
  assert found.index.tolist() == [0, 1] + [0] * 6
  assert found.mask.sum() == 2
  nobody = _draw(np.zeros(0, bool), np.zeros(0, bool), 4, 0.5)
  assert not nobody.mask.any()


def test_chance_is_even_and_follows_the_key():
  positive = np.arange(40) < 10
  keys = jax.random.split(jax.random.key(1), 2000)
  draw = functools.partial(
    sampling.sample,
    positive=jnp.asarray(positive), negative=jnp.asarray(~positive),
    size=8, fraction=0.5,
  )  # fmt: skip
  found = jax.jit(jax.vmap(draw))(keys)
  counts = np.bincount(np.ravel(found.index), minlength=40)
  # 800 each of 10, 267 each of 30: five standard deviations.
  assert np.abs(counts[:10] - 800).max() < 5 * np.sqrt(800 * 0.6)
  assert np.abs(counts[10:] - 8000 / 30).max() < 5 * np.sqrt(8000 / 30)
  again = draw(keys[0])
  np.testing.assert_array_equal(again.index, found.index[0])


def test_mistakes_are_named():
  for size, fraction in ((0, 0.5), (4, 1.5)):
    with pytest.raises(
      ValueError, match=f'size={size} and fraction={fraction}'
    ):
      sampling.num_positives(size, fraction)
