"""ImageNet from scratch, the paper's baseline (Sun et al. 2017, section 4).

Its own recipe: momentum 0.9, rate 5e-2 divided by 10 every 1.2M steps (30
epochs), batches of 32, 5M steps, softmax cross-entropy; input pipeline and
weight decay of the JFT runs. It is the `ImageNet` initialisation of all
transfer tables.

  python -m main --config configs/imagenet_resnet.py:path=DIR --workdir ...
  arguments: depth=101|50|152, source=records|tfds

DIR holds 'train' and 'val' as prepared records, or, with source=tfds, the
tensorflow-datasets folder in which imagenet2012 was prepared as array_record.
Hardware in the paper: 50 K80 GPUs.
"""

from configs import common


def get_config(arg=None):
  """Arguments: path, source, depth, tiny."""
  arg = common.parse(
    arg,
    path='data/imagenet',
    source=('records', 'tfds'),
    depth=(101, 50, 152),
    tiny=False,
  )
  label = dict(op='single_label')
  if arg.source == 'tfds':
    source = dict(type='tfds', name='imagenet2012', data_dir=arg.path)
    val = 'validation'
  else:
    source = dict(type='records', path=arg.path)
    val = 'val'

  c = common.base()
  c.total_steps = 5_000_000
  c.log_every_steps = 1000
  c.device = 'accelerator'

  c.input.source = dict(source, split='train')
  c.input.ops = common.train_ops(340, 299, label)
  c.input.batch_size = 32
  c.input.workers = 8

  c.model = common.resnet(depth=arg.depth)
  c.task.type = 'softmax'
  c.task.num_classes = 1000

  c.optim = dict(type='momentum', momentum=0.9, weight_decay=1e-4)
  c.schedule = dict(
    type='staircase', lr=5e-2, factor=0.1, decay_steps=1_200_000
  )

  c.ckpt.every_steps = 20_000
  c.ckpt.keep_every_steps = 1_000_000
  c.evals.val = dict(
    type='classification',
    data=dict(source, split=val),
    ops=common.eval_ops(340, 299, label),
    batch_size=256,
    every_steps=50_000,
  )

  if arg.tiny:
    common.shrink(c, num_classes=23, label=label)
    for data in (c.input.source, c.evals.val.data):
      data.single_label = True  # the synthetic stand-in for ImageNet
    c.input.workers = 0
  c.lock()
  return c
