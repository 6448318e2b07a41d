"""Images per second and core of the synthetic world, and its construction.

  python -m benchmarks.synthetic_render [--out FILE.md]

One process, one thread, CPU time (so that other work on the machine counts
little), the best of several rounds. Beside it what storing the same images and
decoding them would cost: JPEG by simplejpeg, PNG by Pillow.
"""

import argparse
import datetime
import importlib.metadata
import io
import os
import pathlib
import platform
import time
import tracemalloc
from collections.abc import Callable

for _name in ('OMP_NUM_THREADS', 'OPENBLAS_NUM_THREADS'):
  os.environ.setdefault(_name, '1')

import numpy as np  # noqa: E402
import simplejpeg  # noqa: E402
from PIL import Image  # noqa: E402

from input_pipeline.sources.synthetic import Source  # noqa: E402

_SIZES = (32, 64, 128, 256, 299)
_JFT = dict(num_classes=18_291, depth=12, broadest=2_876, num_images=3 * 10**8)


def rate(fn: Callable[[int], object], count: int, rounds: int) -> float:
  """Calls per CPU second: the best of `rounds` rounds of `count` calls."""
  fn(0)
  best = 0.0
  for _ in range(rounds):
    started = time.process_time()
    for i in range(count):
      fn(i)
    best = max(best, count / (time.process_time() - started))
  return best


def _png(image: np.ndarray) -> bytes:
  buffer = io.BytesIO()
  Image.fromarray(image).save(buffer, 'PNG')
  return buffer.getvalue()


def _decode_png(data: bytes) -> np.ndarray:
  with Image.open(io.BytesIO(data)) as image:
    return np.asarray(image)


def speeds(size: int, rounds: int) -> list[float]:
  """Images/s: image, image + annotations, JPEG decoded, PNG decoded."""
  count = max(40, 400 * 64 // size)
  plain = Source(image_size=size)
  full = Source(image_size=size, annotations=True)
  images = [plain[i]['image'] for i in range(count)]
  jpegs = [simplejpeg.encode_jpeg(image, 90) for image in images]
  pngs = [_png(image) for image in images]
  return [
    rate(plain.__getitem__, count, rounds),
    rate(full.__getitem__, count, rounds),
    rate(lambda i: simplejpeg.decode_jpeg(jpegs[i]), count, rounds),
    rate(lambda i: _decode_png(pngs[i]), count, rounds),
  ]


def report(rounds: int) -> str:
  lines = [
    '# Synthetic world: speed of rendering',
    '',
    f'{datetime.date.today()}, {_cpu()}, one core, '
    f'Python {platform.python_version()}, numpy {np.__version__}, '
    f'simplejpeg {importlib.metadata.version("simplejpeg")}, '
    f'Pillow {importlib.metadata.version("pillow")}.',
    f'Command: `python -m benchmarks.synthetic_render --rounds {rounds}`. '
    'Default options (100 classes, 1 to 4 objects, clutter 1).',
    '',
    '| side | images/s | with annotations | (decode JPEG) | (decode PNG) |',
    '|---|---|---|---|---|',
  ]
  for size in _SIZES:
    row = ' | '.join(f'{x:,.0f}' for x in speeds(size, rounds))
    lines.append(f'| {size} | {row} |')
    print(lines[-1], flush=True)
  lines += ['', *_large(rounds)]
  return '\n'.join(lines) + '\n'


def _large(rounds: int) -> list[str]:
  """Lines on the paper-sized world."""
  started = time.process_time()
  source = Source(**_JFT)
  seconds = time.process_time() - started
  tracemalloc.start()
  kept = Source(**_JFT)
  megabytes = tracemalloc.get_traced_memory()[0] / 1e6
  tracemalloc.stop()
  last = len(kept) - 300
  first = rate(source.__getitem__, 300, rounds)
  end = rate(lambda i: source[last + i], 300, rounds)
  labels = rate(source.labels, 1000, rounds)
  return [
    f'18,291 classes, depth 12, {len(source):,} images at 64 px: built in '
    f'{seconds:.2f} s of CPU, {megabytes:.1f} MB of Python and numpy objects; '
    f'{first:,.0f} images/s from index 0, {end:,.0f} at the end; labels alone '
    f'{labels:,.0f} images/s.'
  ]


def _cpu() -> str:
  try:
    lines = pathlib.Path('/proc/cpuinfo').read_text().splitlines()
  except OSError:
    return platform.processor() or platform.machine()
  found = (line.split(':')[1] for line in lines if 'model name' in line)
  return next(found, platform.machine()).strip()


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--rounds', type=int, default=7)
  parser.add_argument('--out', help='markdown file to write')
  flags = parser.parse_args()
  text = report(flags.rounds)
  print(text)
  if flags.out:
    pathlib.Path(flags.out).write_text(text, encoding='utf-8')


if __name__ == '__main__':
  main()
