"""JFT-300M pretraining as in the paper, literally (Sun et al. 2017, section 4).

ResNet on 300M images with 18,291 labels in a hierarchy, a logistic loss per
label, RMSProp with momentum 0.9, batches of 32, rate 1e-3 times 0.9 every 3M
steps, weight decay 1e-4, 36M steps (4 epochs). 340x340 images, random 299x299
crops, reflections. The classifier is padded to 18,300 columns: 50 equal parts.

  python -m main --config configs/jft_resnet.py:path=DIR --workdir ...
  arguments: depth=101|50|152, num_images=N or fraction=0.1 (nested random
  subsets, 4 epochs each), labels=imagenet (or a file of names: only these
  labels and the images that carry one), init=random|imagenet, init_path=WORKDIR
  (the ImageNet run), mode=sync|downpour (asynchronous as in the paper,
  simulated: 50 workers, 17 servers, each push one step;
  big_vision_like/training/downpour.py)

Arms of the paper's studies (section 5.2; docs/subsets.md), after path=DIR:
  more data      num_images=10000000 | 30000000 | 100000000 | none of it
  fewer classes  num_images=30000000,labels=imagenet | num_images=30000000

DIR holds the splits 'train' and 'fasteval' as prepared records (docs/data.md).
Hardware in the paper: 50 K80 GPUs for two months. The same number of examples
on today's accelerators: configs/jft_resnet_large_batch.py.
"""

import math

from ml_collections import ConfigDict

from configs import common

NUM_CLASSES = 18_291
EPOCHS = 4
_TINY_IMAGES = 100  # of a subset, whatever num_images says


def get_config(arg=None):
  """Arguments: path, depth, fraction, num_images, labels, init, init_path,
  mode, tiny."""
  arg = common.parse(
    arg,
    path='data/jft',
    depth=(101, 50, 152),
    fraction=1.0,
    num_images=0,
    labels='all',
    init=('random', 'imagenet'),
    init_path='workdirs/imagenet_resnet',
    mode=('sync', 'downpour'),
    tiny=False,
  )
  check_subset(arg)
  label = common.multilabel(max_labels=128)

  c = common.base()
  c.total_steps = round(36_000_000 * arg.fraction)
  if arg.num_images:
    c.total_steps = math.ceil(EPOCHS * arg.num_images / 32)
  c.log_every_steps = 1000
  c.device = 'accelerator'

  c.input.source = dict(type='records', path=arg.path, split='train')
  c.input.fraction = arg.fraction
  c.input.ops = common.train_ops(340, 299, label)
  c.input.batch_size = 32
  c.input.workers = 8

  c.model = common.resnet(depth=arg.depth)
  c.task.num_classes = NUM_CLASSES
  c.task.class_multiple = 50

  c.optim = dict(
    type='rmsprop', decay=0.9, momentum=0.9, epsilon=1.0, weight_decay=1e-4
  )
  c.schedule = dict(
    type='staircase', lr=1e-3, factor=0.9, decay_steps=3_000_000
  )
  c.train.mode = arg.mode
  c.train.downpour.update(dict(workers=50, servers=17, head_shards=50))
  if arg.init == 'imagenet':
    c.init_from.path = arg.init_path

  c.ckpt.every_steps = 50_000
  c.ckpt.keep_every_steps = 3_000_000
  c.evals.fasteval = dict(
    type='multilabel_map',
    data=dict(type='records', path=arg.path, split='fasteval'),
    ops=common.eval_ops(340, 299, label),
    batch_size=256,
    every_steps=500_000,
  )

  if arg.tiny:
    common.shrink(c, num_classes=101, label=label)
    c.task.class_multiple = 8
    c.train.downpour.update(dict(workers=3, servers=3, head_shards=8))
    c.input.workers = 0
  choose_subset(c, arg)
  c.lock()
  return c


def check_subset(arg):
  """Refuses impossible arguments fraction, num_images and labels."""
  common.check_fraction(arg.fraction)
  if arg.num_images < 0:
    raise ValueError(f'config argument num_images={arg.num_images} is negative')
  if arg.num_images and arg.fraction != 1:
    raise ValueError(
      'config arguments num_images and fraction: give one of the two'
    )


def choose_subset(c, arg):
  """Writes num_images and labels down, in training and evaluation data."""
  chosen = {}
  if arg.num_images:
    tiny = min(arg.num_images, _TINY_IMAGES)
    chosen['num_images'] = tiny if arg.tiny else arg.num_images
  if arg.labels != 'all':
    chosen['labels'] = arg.labels
    c.task.num_classes = None  # as many as the labels chosen
    c.evals.fasteval.data.subset = ConfigDict(
      dict(labels=arg.labels, unlabelled='keep')
    )
    if not (arg.num_images or arg.tiny):  # how many images is not known here
      c.total_steps = c.total_examples = None
      c.total_epochs = EPOCHS
  if chosen:
    c.input.source.subset = ConfigDict(chosen)
