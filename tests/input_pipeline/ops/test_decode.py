"""Image files, good and bad, against the outcome stated for each."""

import io
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image, ImageOps

from input_pipeline import ops
from input_pipeline.examples.errors import BadExample
from input_pipeline.ops.context import OpContext
from input_pipeline.ops.decode import Decode
from tests.input_pipeline.ops import image_fixtures
from tests.input_pipeline.ops.image_fixtures import (
  FIXTURES,
  HEIGHT,
  WIDTH,
  decode,
  encode,
  exif,
  flat,
  photo,
)


def test_there_are_forty_fixtures():
  assert len(FIXTURES) == 40


@pytest.mark.parametrize('name', FIXTURES)
def test_outcome_is_the_stated_one(name):
  image_fixtures.check(name)


@pytest.mark.parametrize('value', [np.nan, np.inf, -np.inf])
def test_floating_point_that_is_not_finite_is_bad(value):
  """Clipped it would be black or white, without a word."""
  pixels = np.full((6, 9), 300.0, np.float32)
  pixels[0] = [-5.0, 0.0, 1.0, 7.0, 99.0, 128.0, 254.0, 255.0, 256.0]

  def tiff():
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, 'TIFF')
    return out.getvalue()

  found = Decode(OpContext()).decode(tiff())
  wanted = np.repeat(np.clip(pixels, 0, 255)[:, :, None], 3, axis=2)
  np.testing.assert_array_equal(found, wanted)
  pixels[3, 4] = value
  with pytest.raises(BadExample, match='TIFF has values that are not finite'):
    Decode(OpContext()).decode(tiff())


def test_arrays_pass_through_and_wrong_ones_are_refused():
  image = photo()
  assert decode(image) is image
  with pytest.raises(ValueError, match=r'uint8 \[H,W,3\].*float32'):
    decode(image.astype(np.float32))


@pytest.mark.parametrize('orientation', range(1, 9))
@pytest.mark.parametrize('fmt', ['JPEG', 'PNG'])
def test_exif_orientation_on_request(orientation, fmt):
  data = encode(Image.fromarray(photo()), fmt, exif=exif(orientation))
  upright = flat(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
  np.testing.assert_array_equal(decode(data, apply_exif=True), upright)


def test_limits_are_options():
  data = encode(Image.fromarray(photo()))
  assert decode(data, max_megapixels=0.0192).shape == (HEIGHT, WIDTH, 3)
  with pytest.raises(BadExample, match='120x160 pixels is above the limit'):
    decode(data, max_megapixels=0.0191)
  with pytest.raises(BadExample, match=f'image of {len(data)} bytes'):
    decode(data, max_megabytes=len(data) / 2**20 * 0.99)
  for options in (
    dict(max_megapixels=0), dict(max_megapixels=1000), dict(max_megabytes=0),
    dict(min_size=0.5), dict(min_size=0), dict(max_megabytes=float('inf')),
  ):  # fmt: skip
    ((name, value),) = options.items()
    with pytest.raises(ValueError, match=f'{name}={value} must be'):
      ops.build([dict(op='decode', **options)], OpContext())


def test_min_size_reduces_jpegs_but_not_below():
  data = encode(Image.fromarray(photo()).resize((800, 600)))
  reduced = decode(data, min_size=150)
  assert reduced.shape == (150, 200, 3)  # 2/8 of 600x800
  mean = decode(data).reshape(150, 4, 200, 4, 3).mean((1, 3))
  assert np.abs(reduced - mean).mean() < 2
  assert decode(data, min_size=601).shape == (600, 800, 3)


_MEASURE = """
import resource, sys, time
from tests.input_pipeline.ops import image_fixtures as t
from input_pipeline.examples.errors import BadExample
op = t.Decode(t.OpContext())
warm = [t.FIXTURES['half a png'][0], t.FIXTURES['half a jpeg'][0]]
def refused(data):
  try:
    op.decode(data)
  except BadExample:
    return
  sys.exit('decoded')
for data in warm:
  refused(data)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
worst = 0
for name in ('image bomb, png', 'image bomb, jpeg'):
  times = []
  for _ in range(5):
    start = time.perf_counter()
    refused(t.FIXTURES[name][0])
    times.append(time.perf_counter() - start)
  worst = max(worst, sorted(times)[2])
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(after - before, worst)
"""


def test_image_bombs_cost_neither_memory_nor_time(project_root):
  env = dict(os.environ, PYTHONPATH=str(project_root))
  out = subprocess.run(
    [sys.executable, '-c', _MEASURE],
    env=env,
    capture_output=True,
    text=True,
    check=True,
  ).stdout.split()
  assert int(out[0]) <= 50 * 1024  # KiB
  assert float(out[1]) <= 0.010  # seconds
