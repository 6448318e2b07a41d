"""Maps of features as bytes, against ml_dtypes and numpy."""

import ml_dtypes
import numpy as np
import pytest

from input_pipeline.examples import stored_map

KINDS = {
  'float32': np.dtype('<f4'),
  'float16': np.dtype('<f2'),
  'bfloat16': np.dtype(ml_dtypes.bfloat16),
}


@pytest.mark.parametrize('dtype', KINDS)
def test_numbers_are_rounded_to_nearest(dtype):
  rng = np.random.default_rng(0)
  numbers = rng.standard_normal((3, 4, 500)).astype(np.float32)
  numbers *= np.exp(rng.uniform(-9, 9, numbers.shape)).astype(np.float32)
  numbers[0, 0, :4] = 0.0, -0.0, 1 + 2**-8, 1 + 3 * 2**-8  # ties of bfloat16
  data = stored_map.to_bytes(numbers, dtype)
  assert data == numbers.astype(KINDS[dtype]).tobytes()
  assert len(data) == stored_map.bytes_of(numbers.shape, dtype)
  found = stored_map.from_bytes(data, numbers.shape, dtype)
  assert found.dtype == np.float32
  np.testing.assert_array_equal(found, numbers.astype(KINDS[dtype]))


@pytest.mark.parametrize(
  'dtype,value',
  [
    ('float16', 1e5),
    ('float32', np.nan),
    ('bfloat16', np.nan),
    ('bfloat16', 3.4e38),  # rounds up to infinity
  ],
)
def test_what_a_type_does_not_hold_is_refused(dtype, value):
  numbers = np.full((1, 1, 2), value, np.float32)
  with pytest.raises(ValueError, match=f'which {dtype} does not hold'):
    stored_map.to_bytes(numbers, dtype)


def test_reflections_that_are_not_stored_are_refused():
  one = stored_map.StoredMap(None, 0, 0, 1, (1, 1, 1), 'float32')
  with pytest.raises(ValueError, match="'random_flip' needs maps of refl"):
    one.mirrored()
