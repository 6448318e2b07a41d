"""F13: headers of images that claim more than the limit."""

import os
import random
import subprocess
import sys

from tests.faults.field import Field
from tests.faults.rows import Row
from tests.faults.trainers import ROOT

FORMATS = ('PNG', 'JPEG', 'GIF', 'BMP', 'TIFF', 'WEBP')
_TRIES = 5
_MOST_KIB, _MOST_S = 50 * 1024, 0.010
_MEASURE = """
import resource, sys, time
from input_pipeline.examples.errors import BadExample
from input_pipeline.ops.context import OpContext
from input_pipeline.ops.decode import Decode
from tests.input_pipeline.ops import image_fixtures as images
op = Decode(OpContext())
for name in ('half a png', 'half a jpeg'):  # libraries are loaded
  try:
    op.decode(images.FIXTURES[name][0])
  except BadExample:
    pass
kind, height, width = sys.argv[1], *map(int, sys.argv[2:4])
data = images.bomb(kind, height, width)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
times = []
for _ in range(int(sys.argv[4])):
  start = time.perf_counter()
  try:
    op.decode(data)
  except BadExample as error:
    reason = error.reason
  else:
    sys.exit('decoded')
  times.append(time.perf_counter() - start)
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(after - before, sorted(times)[len(times) // 2], len(data), reason)
"""


def trial(field: Field, number: int, rng: random.Random) -> str:
  del field
  kind = FORMATS[number % len(FORMATS)]
  height, width = rng.randrange(9000, 16000), rng.randrange(9000, 16000)
  told = [kind, str(height), str(width), str(_TRIES)]
  done = subprocess.run(
    [sys.executable, '-c', _MEASURE, *told],
    cwd=ROOT,
    env={**os.environ, 'PYTHONPATH': str(ROOT)},
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stderr[-2000:]
  kib, seconds, num_bytes, *reason = done.stdout.split()
  said = f'{kind} of {height}x{width} in {num_bytes} bytes: {" ".join(reason)}'
  assert 'above the limit' in said, said
  assert int(kib) <= _MOST_KIB, f'{said}: {kib} KiB'
  assert float(seconds) <= _MOST_S, f'{said}: {seconds} s'
  return f'{said} (+{kib} KiB, {float(seconds) * 1000:.1f} ms)'


ROW = Row(
  'F13',
  'headers of six formats that claim 80 to 256 million pixels in a few kB',
  'refused from the header, within 10 ms and 50 MB',
  trial,
  trials=12,
  per_commit=0,
)
