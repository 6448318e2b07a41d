"""What stale gradients cost: asynchronous workers against large batches.

The quickstart's network and synthetic world, every run over the same number
of images. `workers` gradients of 32 images, each up to workers - 1 updates
old, against synchronous batches with the rate times the square root of the
batch, ghost batch norm over 32 (the recipe of jft_resnet_large_batch.py).

  python -m main --config configs/downpour_study.py:workers=9 --workdir ...
  arguments: workers=9, policy=round_robin|random|event, mode=downpour|sync,
  batch=32 (of one step), steps=700 (of 32 images), lr=0.01 (for 32)

Results: docs/log.md. Hardware: 2 CPU cores, about a minute a run.
"""

import math

from configs import common, quickstart


def get_config(arg=None):
  """Arguments: workers, policy, mode, batch, steps, lr, tiny."""
  arg = common.parse(
    arg,
    workers=9,
    policy=('round_robin', 'random', 'event'),
    mode=('downpour', 'sync'),
    batch=32,
    steps=700,
    lr=0.01,
    tiny=False,
  )
  common.at_least_one(workers=arg.workers, batch=arg.batch, steps=arg.steps)
  c = quickstart.get_config()
  c.unlock()
  scale = arg.batch / 32
  c.total_steps = max(round(arg.steps / scale), 1)
  c.log_every_steps = max(round(10 / scale), 1)
  c.input.batch_size = arg.batch

  c.train.mode = arg.mode
  c.train.downpour.workers = arg.workers
  c.train.downpour.policy = arg.policy
  c.task.class_multiple = 50

  c.schedule.lr = arg.lr * math.sqrt(scale)
  c.model.bn_decay = c.model.bn_decay**scale  # as far back in images
  if arg.batch > 32:
    c.model.bn = 'ghost'
    c.model.bn_group = 32
  c.expected = {}  # of the quickstart as it is

  if arg.tiny:
    label = common.multilabel(max_labels=48)
    common.shrink(c, num_classes=23, label=label)
    c.task.class_multiple = 8
    c.train.downpour.update(dict(servers=3, head_shards=8))
  c.lock()
  return c
