"""Features of a checkpoint (Embedder) against the bare forward pass.

  python -m benchmarks.embedding [--depth 50] [--size 128] [--images 256]

Contestants, in turn, on the same images: `bare`, the jitted forward pass over
one batch again and again; `embed`, the Embedder on a source that has the pixels
in memory (its overhead: pipeline, batching, collecting); `embed_jpeg`, the same
on JPEG files in memory, whose decoding shares the cores with the model; and
`array_record` and `safetensors`, what tools/extract_features.py makes of the
JPEG files: shards on disk with keys, labels and checksums.

The CPU seconds of the process, all threads, are compared too: on a machine that
other programs keep busy they are steadier than the clock. A back end that waits
by spinning adds to them.
"""

import argparse
import io
import json
import statistics
import tempfile
import time

import jax
import numpy as np
from absl import logging
from PIL import Image

from big_vision_like import experiment
from big_vision_like.checkpoints import manager
from big_vision_like.config import settings
from big_vision_like.inference import embedder as features
from big_vision_like.runtime import cpu_tuning
from configs import common
from input_pipeline.labels.space import LabelSpace
from tools.embedding import feature_folder, feature_shards


class Pictures:
  """Smooth random pictures, as pixels or as JPEG files."""

  vocabulary = hierarchy = None

  def __init__(self, num: int, size: int, jpeg: bool):
    rng = np.random.default_rng(0)
    self._images = []
    for _ in range(num):
      small = rng.integers(0, 256, (8, 8, 3), np.uint8)
      picture = Image.fromarray(small).resize((size, size))
      file = io.BytesIO()
      picture.save(file, 'JPEG', quality=90)
      self._images.append(file.getvalue() if jpeg else np.asarray(picture))

  def __len__(self) -> int:
    return len(self._images)

  def __getitem__(self, index: int) -> dict:
    return {'image': self._images[index], 'labels': self.labels(index)}

  def labels(self, index: int) -> np.ndarray:
    return np.array([index % 13], np.int32)

  def key(self, index: int) -> str:
    return str(index)


def make_checkpoint(folder: str, depth: int, size: int) -> None:
  """A checkpoint of a fresh ResNet."""
  c = common.base()
  c.total_steps = 1
  label = common.multilabel(max_labels=4, fill_in=False)
  c.input.source = common.synthetic(num_classes=13)
  c.input.ops = [dict(op='decode'), dict(op='resize', size=size), label]
  c.input.batch_size = 32 * jax.device_count()
  c.model = common.resnet(depth=depth)
  c.optim = dict(type='momentum')
  c.schedule = dict(type='constant', lr=0.1)
  exp = experiment.build(c, space=LabelSpace.of_count(13))
  config = json.loads(settings.to_json(exp.config))
  ckpt = manager.Checkpointer(folder)
  ckpt.save(0, exp.init(0), {'config': config, 'num_classes': 13})
  ckpt.wait()
  ckpt.close()


def extract(embedder: features.Embedder, source: Pictures, kind: str) -> None:
  """Four shards of features in a folder that is then removed."""
  num = len(source)
  with tempfile.TemporaryDirectory() as path:
    settings = dict(records=num, records_per_shard=-(-num // 4), format=kind)
    folder = feature_folder.Folder(path, settings)
    shards = feature_folder.fill(folder, folder.waiting(), source, embedder)
    assert sum(shard.records for shard in shards) == num


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--depth', type=int, default=50)
  parser.add_argument('--size', type=int, default=128)
  parser.add_argument('--images', type=int, default=256)
  parser.add_argument('--batch', type=int, default=32)
  parser.add_argument('--rounds', type=int, default=5)
  args = parser.parse_args()
  cpu_tuning.reexec()
  logging.set_verbosity(logging.ERROR)  # Orbax tells of every file it reads
  with tempfile.TemporaryDirectory() as folder:
    make_checkpoint(folder, args.depth, args.size)
    embedder = features.Embedder(folder, batch_size=args.batch)
  sources = {
    'embed': Pictures(args.images, args.size, jpeg=False),
    'embed_jpeg': Pictures(args.images, args.size, jpeg=True),
  }
  batch = np.stack(
    [sources['embed'][i]['image'] for i in range(embedder.batch_size)]
  )
  steps = -(-args.images // embedder.batch_size)

  def bare() -> None:
    for _ in range(steps):
      features_ = embedder.start({'image': batch})['features']
    features_.block_until_ready()

  contestants = {'bare': bare} | {
    name: (lambda source=source: embedder.embed_all(source))
    for name, source in sources.items()
  }
  contestants |= {
    kind: (lambda kind=kind: extract(embedder, sources['embed_jpeg'], kind))
    for kind in feature_shards.FORMATS
  }
  seconds: dict[str, list[float]] = {name: [] for name in contestants}
  cpu: dict[str, list[float]] = {name: [] for name in contestants}
  for run in contestants.values():
    run()
  for _ in range(args.rounds):
    for name, run in contestants.items():
      start, start_cpu = time.perf_counter(), time.process_time()
      run()
      seconds[name].append(time.perf_counter() - start)
      cpu[name].append(time.process_time() - start_cpu)
  print(
    f'ResNet-{args.depth}, {args.images} images of {args.size} pixels, batch '
    f'{embedder.batch_size}, {args.rounds} rounds\n'
    '| contestant | images/s | rate / bare (median, least to most) | '
    'the same by CPU seconds |\n'
    '|---|--:|--:|--:|'
  )
  for name, times in seconds.items():
    rate = args.images / statistics.median(times)
    by_clock, by_cpu = (
      ratios(table['bare'], table[name]) for table in (seconds, cpu)
    )
    print(f'| {name} | {rate:,.1f} | {by_clock} | {by_cpu} |')


def ratios(bare: list[float], other: list[float]) -> str:
  """Rates over that of `bare`, of the same round: median and range."""
  found = [a / b for a, b in zip(bare, other)]
  middle = statistics.median(found)
  return f'{middle:.2f} ({min(found):.2f} to {max(found):.2f})'


if __name__ == '__main__':
  main()
