"""Images/s of decode -> 340x340 -> random 299x299 crop -> flip -> batches.

  python -m benchmarks.input_pipeline [--images DIR] [--workers 0,2]

Contestants, all on the same JPEGs in the page cache:
  pipeline   ours: records source -> grain -> host batches (pipeline.train)
  bare loop  the same functions on the same bytes, with nothing around them
  op by op   the ops one after the other, as the config lists them; the pipeline
             and the bare loop compute only the pixels that survive the crop
  decode     the decoder alone, on the same bytes
  torch+PIL  torch DataLoader over the files: PIL decode, resize, crop, flip

`--workers 0` is one thread of the benchmark's own process, there images per
second of CPU time are given too; `--workers N` is N processes for each
contestant. Rounds are interleaved and every contestant starts each round anew,
untimed, with its buffers drained; figures are medians with their range. torch
is left out where it is not installed.
"""

import argparse
import functools
import importlib.metadata
import importlib.util
import multiprocessing
import multiprocessing.connection
import os
import pathlib
import platform
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator

import numpy as np
import simplejpeg
from PIL import Image

from big_vision_like.runtime import cpu_tuning
from input_pipeline import ops as example_ops
from input_pipeline import pipeline
from input_pipeline.ops.context import OpContext
from input_pipeline.sources.records import Source
from tools import prepare_images

RESIZE, CROP, BATCH = 340, 299, 32
OPS = (
  dict(op='decode'),
  dict(op='resize', size=RESIZE),
  dict(op='random_crop', size=CROP),
  dict(op='random_flip'),
)
_MIN_SAMPLE = 50
_REPEATS = 200


def photograph(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
  """Coloured 1/f noise with edges: compresses about as photographs do."""
  image = np.zeros((height, width, 3))
  for octave in range(1, 9):
    cells = (
      rng.normal(size=(2**octave + 1, 2**octave + 1, 3)) * 90 / octave**1.4
    )
    layer = [
      Image.fromarray(cells[..., c].astype(np.float32)).resize(
        (width, height), Image.Resampling.BILINEAR
      )
      for c in range(3)
    ]
    image += np.stack([np.asarray(x) for x in layer], -1)
  grey = image.mean(-1, keepdims=True)
  image = grey + 0.4 * (image - grey)  # channels of photographs go together
  image[image[..., 0] > 40] += 50
  image += rng.normal(size=image.shape) * 6
  return (image + 110).clip(0, 255).astype(np.uint8)


def make_photographs(folder: pathlib.Path, num: int) -> None:
  rng = np.random.default_rng(0)
  folder.mkdir(parents=True)
  for i in range(num):
    shape = (375, 500) if i % 4 else (500, 375)
    picture = Image.fromarray(photograph(rng, *shape))
    picture.save(folder / f'{i:05d}.jpg', quality=92)


def bare_steps(data: bytes, rng: np.random.Generator) -> np.ndarray:
  """What the ops compute, called directly."""
  example = {'image': data}
  for op in _ops():
    example = op(example, rng)
  return example['image']


@functools.cache
def _ops() -> list[Callable]:
  return example_ops.build(OPS, OpContext())


def bare_loop(files: list[str]) -> Iterator[int]:
  blobs = [pathlib.Path(f).read_bytes() for f in files]
  rng = np.random.default_rng(0)
  while True:
    for data in blobs:
      bare_steps(data, rng)
      yield 1


def single_loop(files: list[str]) -> Iterator[int]:
  blobs = [pathlib.Path(f).read_bytes() for f in files]
  rng = np.random.default_rng(0)
  ops = [op for spec in OPS for op in example_ops.build([spec], OpContext())]
  while True:
    for data in blobs:
      example = {'image': data}
      for op in ops:
        example = op(example, rng)
      np.ascontiguousarray(example['image'])
      yield 1


def decode_loop(files: list[str]) -> Iterator[int]:
  blobs = [pathlib.Path(f).read_bytes() for f in files]
  while True:
    for data in blobs:
      simplejpeg.decode_jpeg(data, 'RGB')
      yield 1


def _loop_worker(loop, files, connection) -> None:
  """Child of `in_processes`: loops when told how many images, and answers."""
  images = loop(files)
  while count := connection.recv():
    for _ in range(count):
      next(images)
    connection.send(count)


def in_processes(
  loop: Callable, files: list[str], workers: int
) -> Iterator[int]:
  """The loop in `workers` processes, a batch of images each at a time."""
  context = multiprocessing.get_context('spawn')
  pipes, processes = [], []
  for _ in range(workers):
    ours, theirs = context.Pipe()
    process = context.Process(target=_loop_worker, args=(loop, files, theirs))
    process.start()
    pipes.append(ours)
    processes.append(process)
  try:
    for pipe in pipes:
      pipe.send(BATCH)
    while True:
      for pipe in multiprocessing.connection.wait(pipes):
        count = pipe.recv()
        pipe.send(BATCH)
        yield count
  finally:
    for process in processes:
      process.kill()
      process.join()


class TorchFiles:
  """Map-style data set in the usual torch manner, PIL throughout."""

  def __init__(self, files: list[str]):
    self.files = files

  def __len__(self) -> int:
    return len(self.files)

  def __getitem__(self, index: int):
    import torch

    with Image.open(self.files[index]) as picture:
      image = picture.convert('RGB')
    image = image.resize((RESIZE, RESIZE), Image.Resampling.BILINEAR)
    room = RESIZE - CROP + 1
    top, left = (int(torch.randint(room, ())) for _ in range(2))
    image = image.crop((left, top, left + CROP, top + CROP))
    if torch.rand(()) < 0.5:
      image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return torch.from_numpy(np.array(image))


def torch_loader(files: list[str], workers: int) -> Iterator[int]:
  import torch

  torch.set_num_threads(1)
  loader = torch.utils.data.DataLoader(
    TorchFiles(files * _REPEATS),
    BATCH,
    shuffle=True,
    num_workers=workers,
    multiprocessing_context='spawn' if workers else None,
  )
  for batch in loader:
    yield len(batch)


class Repeated:
  """A records source as long as a real data set: the same images again.

  grain's index shuffle slows down below some 10,000 records (0.2 ms an index
  at 128), which no data set worth a benchmark has.
  """

  def __init__(self, source: Source, times: int):
    self._source, self._times = source, times
    self.vocabulary, self.hierarchy = source.vocabulary, source.hierarchy

  def __len__(self) -> int:
    return len(self._source) * self._times

  def __getitem__(self, index: int) -> dict:
    return self._source[index % len(self._source)]

  def key(self, index: int) -> str:
    return self._source.key(index % len(self._source))


def ours(folder: str, workers: int) -> Iterator[int]:
  source = Repeated(Source(path=folder, split='train'), _REPEATS)
  batches = pipeline.train(
    source,
    pipeline.build_ops(OPS, source),
    batch_size=BATCH,
    seed=0,
    workers=workers,
    threads=1,
    prefetch=2,
  )
  try:
    while True:
      yield len(next(batches)['image'])  # dropped, as after a transfer
  finally:
    batches.close()


def measure(images: Iterator[int], warm_up: int, num: int) -> tuple:
  """(images/s, images per CPU second of this process) of one round."""
  done = 0
  while done < warm_up:
    done += next(images)
  done, start, cpu = 0, time.perf_counter(), time.process_time()
  while done < num:
    done += next(images)
  wall = time.perf_counter() - start
  cpu = time.process_time() - cpu
  images.close()
  return done / wall, done / cpu


def contestants(
  folder: str, files: list[str], workers: int
) -> dict[str, Callable[[], Iterator[int]]]:
  def loop(kind: Callable) -> Callable[[], Iterator[int]]:
    if workers == 0:
      return lambda: kind(files)
    return lambda: in_processes(kind, files, workers)

  found: dict[str, Callable[[], Iterator[int]]] = {
    'pipeline': lambda: ours(folder, workers),
    'bare loop': loop(bare_loop),
    'op by op': loop(single_loop),
    'decode': loop(decode_loop),
  }
  if importlib.util.find_spec('torch') is not None:
    found['torch+PIL'] = lambda: torch_loader(files, workers)
  return found


def machine() -> str:
  """One line: processor, cores, versions."""
  cpu = platform.processor() or platform.machine()
  info = pathlib.Path('/proc/cpuinfo')
  if info.exists():
    names = [x for x in info.read_text().splitlines() if 'model name' in x]
    cpu = names[0].partition(':')[2].strip() if names else cpu
  versions = []
  for name in ('grain', 'simplejpeg', 'pillow', 'numpy', 'torch'):
    try:
      versions.append(f'{name} {importlib.metadata.version(name)}')
    except importlib.metadata.PackageNotFoundError:
      versions.append(f'{name} absent')
  python = platform.python_version()
  return (
    f'{cpu}, {os.cpu_count()} cores; python {python}, {", ".join(versions)}'
  )


def table(workers: int, results: dict[str, list[tuple]]) -> str:
  """Markdown table of the medians, ranges and ratios to ours."""
  wall = {k: statistics.median(r[0] for r in v) for k, v in results.items()}
  rows = [
    f'\nworkers={workers}\n',
    '| contestant | images/s | range | per core | per CPU s | pipeline / it |',
    '|---|--:|--:|--:|--:|--:|',
  ]
  mine = results['pipeline']
  for name, rounds in results.items():
    speeds = [r[0] for r in rounds]
    ratio = statistics.median(a[0] / b[0] for a, b in zip(mine, rounds))
    cpu = (
      f'{statistics.median(r[1] for r in rounds):.0f}' if not workers else ''
    )
    rows.append(
      f'| {name} | {wall[name]:.0f} | {min(speeds):.0f}-{max(speeds):.0f} | '
      f'{wall[name] / max(workers, 1):.0f} | {cpu} | {ratio:.2f} |'
    )
  return '\n'.join(rows)


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--images', help='folder of JPEGs; default: made up')
  parser.add_argument('--num_made', type=int, default=256)
  parser.add_argument('--workers', default='0,2')
  parser.add_argument('--rounds', type=int, default=5)
  parser.add_argument('--num', type=int, default=1000, help='images a round')
  args = parser.parse_args()
  cpu_tuning.reexec()  # for all contestants, as `python -m main` runs

  with tempfile.TemporaryDirectory() as temporary:
    root = pathlib.Path(temporary)
    photos = root / 'in' / 'train' / 'photo'
    if args.images is None:
      make_photographs(photos, args.num_made)
    else:
      photos.mkdir(parents=True)
      found = sorted(
        p
        for p in pathlib.Path(args.images).rglob('*')
        if p.suffix.lower() in ('.jpg', '.jpeg')
      )
      for i, path in enumerate(found):
        shutil.copyfile(path, photos / f'{i:06d}.jpg')
    files = sorted(map(str, photos.iterdir()))
    sizes = [os.path.getsize(f) for f in files]
    shapes = [
      simplejpeg.decode_jpeg_header(pathlib.Path(f).read_bytes())[:2]
      for f in files[:_MIN_SAMPLE]
    ]
    prepared = str(root / 'out')
    code = prepare_images.main(
      ['--input', str(root / 'in'), '--output', prepared, '--splits', 'train']
    )
    if code:
      raise SystemExit(code)
    height, width = np.median(shapes, axis=0)
    print(f'\n{machine()}')
    print(
      f'{len(files)} JPEGs from {args.images or "noise"}, median '
      f'{height:.0f}x{width:.0f}, mean {np.mean(sizes) / 1e3:.0f} kB; '
      f'{args.rounds} rounds of {args.num} images, batches of {BATCH}'
    )
    for workers in map(int, args.workers.split(',')):
      runners = contestants(prepared, files, workers)
      results: dict[str, list[tuple]] = {name: [] for name in runners}
      for i in range(args.rounds):
        order = list(runners)
        for name in order[i % len(order) :] + order[: i % len(order)]:
          warm_up = BATCH * 4 * max(workers, 1)
          results[name].append(measure(runners[name](), warm_up, args.num))
      print(table(workers, results), flush=True)


if __name__ == '__main__':
  main()
