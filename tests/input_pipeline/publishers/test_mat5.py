"""MATLAB files written by scipy; damaged ones end in a ValueError."""

import io

import numpy as np
import pytest
import scipy.io

from input_pipeline.publishers.imagenet import mat5
from tests.input_pipeline.publishers import imagenet_made


def written(compressed=True, **variables) -> bytes:
  out = io.BytesIO()
  scipy.io.savemat(out, variables, do_compression=compressed)
  return out.getvalue()


@pytest.mark.parametrize('compressed', [True, False])
def test_scalars_and_strings_of_every_type(compressed):
  numbers = {
    name: np.dtype(name).type(7)
    for name in (
      'int8', 'uint8', 'int16', 'uint16', 'int32', 'uint32', 'int64', 'uint64',
      'float32', 'float64',
    )
  }  # fmt: skip
  others = {'text': 'Grüße, 猫', 'empty': '', 'many': np.arange(3.0)}
  others |= {'cell': np.array([1, 'a'], object), 'inner': {'a': 1.0}}
  data = written(compressed, first=np.eye(3), s={**numbers, **others}, z='a')
  (row,) = mat5.struct_array(data, 's')
  assert row == {
    **dict.fromkeys(numbers, 7.0),
    'text': 'Grüße, 猫', 'empty': '', 'many': None, 'cell': None,
    'inner': None,
  }  # fmt: skip


@pytest.mark.parametrize('compressed', [True, False])
def test_the_development_kit_as_scipy_reads_it(compressed):
  data = imagenet_made.meta(compressed=compressed)
  expected = scipy.io.loadmat(io.BytesIO(data), squeeze_me=True)['synsets']
  found = mat5.struct_array(data, 'synsets')
  assert len(found) == len(expected) == 7
  for mine, theirs in zip(found, expected):
    for name in ('ILSVRC2012_ID', 'WNID', 'words', 'num_children'):
      assert mine[name] == theirs[name]


def test_what_is_no_struct_array(monkeypatch):
  for data, message in (
    (b'', 'not a MATLAB file of level 5'),
    (b'\x89HDF' + bytes(200), 'not a MATLAB file of level 5'),
    (written(other={'a': 1}), "no struct array 'synsets'"),
    (written(synsets=np.eye(2)), "no struct array 'synsets'"),
  ):
    with pytest.raises(ValueError, match=message):
      mat5.struct_array(data, 'synsets')
  monkeypatch.setattr(mat5, 'MAX_BYTES', 1000)
  with pytest.raises(ValueError, match='more than 1,000 bytes when decompr'):
    mat5.struct_array(written(x=np.zeros(10_000)), 'x')


def test_damage_never_crashes():
  """scipy's own reader ends in a segmentation fault on some of these."""
  rng = np.random.default_rng(0)
  for compressed in (True, False):
    whole = imagenet_made.meta(compressed=compressed)
    refused = 0
    for _ in range(600):
      data = bytearray(whole[: rng.integers(128, 2 * len(whole))])
      for at in rng.integers(128, len(data), 3) if len(data) > 128 else ():
        data[at] = rng.integers(256)
      try:
        mat5.struct_array(bytes(data), 'synsets')
      except ValueError:
        refused += 1
    assert refused > 300
