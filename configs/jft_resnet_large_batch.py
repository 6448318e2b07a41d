"""JFT-300M pretraining for today's accelerators: synchronous, large batches.

The examples seen are those of the paper (36M steps of 32: 1.152e9), in batches
of 4096. The rate follows the batch by the square root (RMSProp), after a
warm-up; it falls by 0.9 every 96M examples, as in the paper. Compute in
bfloat16; parameters, statistics, logits and loss stay float32. Batch norm over
groups of 32, the batch of one of the paper's workers.

  python -m main --config configs/jft_resnet_large_batch.py:path=DIR ...
  arguments: batch=4096, model_axis=1; path, depth=101|50|152, fraction,
  num_images, labels, init, init_path as in configs/jft_resnet.py

Hardware: a mesh of `data` x `model_axis` devices, such as 64 TPU or GPU chips;
`--mode=plan --config.plan.num_devices=64` tells what each of them holds.
"""

import math

from configs import common, jft_resnet


def get_config(arg=None):
  """Arguments: path, depth, fraction, num_images, labels, batch, model_axis,
  init, init_path, tiny."""
  arg = common.parse(
    arg,
    path='data/jft',
    depth=(101, 50, 152),
    fraction=1.0,
    num_images=0,
    labels='all',
    batch=4096,
    model_axis=1,
    init=('random', 'imagenet'),
    init_path='workdirs/imagenet_resnet',
    tiny=False,
  )
  common.at_least_one(batch=arg.batch)
  c = jft_resnet.get_config(
    f'path={arg.path},depth={arg.depth},fraction={arg.fraction},'
    f'num_images={arg.num_images},init={arg.init},init_path={arg.init_path}'
  )
  c.unlock()
  scale = arg.batch / 32
  c.total_steps = None
  c.total_examples = round(36_000_000 * 32 * arg.fraction)
  if arg.num_images:
    c.total_examples = jft_resnet.EPOCHS * arg.num_images
  c.log_every_steps = 50
  c.input.batch_size = arg.batch
  c.input.workers = 16
  c.mesh.model = arg.model_axis

  c.model.compute_dtype = 'bfloat16'
  c.model.bn = 'ghost'
  c.model.bn_group = 32
  # 18,304 columns: a multiple of 64, for any model axis up to 64.
  c.task.class_multiple = 64

  c.schedule = dict(
    type='staircase',
    lr=1e-3 * math.sqrt(scale),
    factor=0.9,
    decay_examples=3_000_000 * 32,
    warmup_examples=10_000_000,
  )
  c.ckpt.every_steps = 1000
  c.ckpt.keep_every_steps = 25_000
  c.evals.fasteval.every_steps = 5000

  if arg.tiny:
    common.shrink(c, num_classes=101, label=common.multilabel(128))
    c.model.bn_group = 2
    c.schedule = dict(c.schedule, decay_examples=64, warmup_examples=32)
    c.input.workers = 0
    c.mesh.model = 1
  jft_resnet.choose_subset(c, arg)
  c.lock()
  return c
