"""ImageNet classification by fine-tuning (Sun et al. 2017, Table 1).

A pretrained ResNet-101 gets a new 1000-way classifier; all layers are trained
by the recipe of configs/imagenet_resnet.py with the rate lowered to 1e-3:
momentum 0.9, divided by 10 every 1.2M steps, batches of 32, 4M steps, weight
decay 1e-4. Evaluated on single 299x299 crops: top-1, top-5.

  python -m main --config configs/imagenet_transfer.py:path=DIR --workdir ...

  init=jft|imagenet|random|PATH   workdirs/jft_resnet, workdirs/imagenet_resnet,
      none, or any workdir, checkpoint or converted weights (PATH has a slash)
  recipe=literal|accelerator      as above, or the same number of examples in
      batches of 1024: 32 times fewer steps (125,000, divided by 10 every
      37,500), 32 times the rate (0.032) after 5 epochs of warm-up
  freeze=none|conv1|conv2|conv3|conv4|backbone   what is not trained
  layout=slim|torch               the ResNet variant: 'torch' for weights
      converted from torchvision or timm (docs/weights.md)
  source=detect|tfds, name=imagenet2012   DIR is prepared records, class folders
      or a table; or a tensorflow-datasets folder
  train_split=train, val_split=   splits of the data; val_split is by default
      'val', of imagenet2012 in tensorflow-datasets 'validation', and 'test' of
      its other data sets; slices such as train[:90%] and train[90%:] there
  num_classes=1000; 0 takes those of the data: any single-label data set
  off by default: ema=0.9999, label_smoothing=0.1, mixup=0.2, crop=resized
  depth=101|50|152

The paper's row "from scratch" is configs/imagenet_resnet.py (5M steps, rate
5e-2); init=random keeps this schedule. Hardware in the paper: 50 K80 GPUs.
`expected` holds the figures of the paper's Table 1 where the recipe is its own.
"""

from configs import common, imagenet_resnet


def get_config(arg=None):
  """Arguments: see the module docstring, and tiny."""
  arg = common.parse(
    arg,
    path='data/imagenet',
    init='jft',
    recipe=('literal', 'accelerator'),
    freeze=common.FREEZE,
    layout=('slim', 'torch'),
    source=('detect', 'tfds'),
    name='imagenet2012',
    train_split='train',
    val_split='',
    num_classes=1000,
    depth=(101, 50, 152),
    ema=0.0,
    label_smoothing=0.0,
    mixup=0.0,
    crop=('random', 'resized'),
    tiny=False,
  )
  label = dict(op='single_label')
  if arg.source == 'tfds':
    data = dict(type='tfds', name=arg.name, data_dir=arg.path)
    val = 'validation' if arg.name == 'imagenet2012' else 'test'
  else:
    data, val = dict(type='detect', path=arg.path), 'val'

  c = imagenet_resnet.get_config(f'depth={arg.depth}')
  c.unlock()
  c.total_steps = 4_000_000
  c.schedule.lr = 1e-3
  c.input.source = dict(data, split=arg.train_split)
  c.evals.val.data = dict(data, split=arg.val_split or val)
  if arg.crop == 'resized':
    c.input.ops = common.resized_crop_ops(299, label)
  c.model.freeze = arg.freeze
  c.task.num_classes = arg.num_classes or None
  c.task.label_smoothing = arg.label_smoothing
  c.task.mixup = arg.mixup
  if arg.layout == 'torch':
    common.torch_layout(c)
  if arg.ema:
    c.train.ema_decay = arg.ema
  common.start_from(c, arg.init)
  if arg.recipe == 'accelerator':
    _accelerator(c)
  elif arg.init == 'jft' and arg.depth == 101 and arg.freeze == 'none':
    c.expected = {'val/top1': 79.2, 'val/top5': 94.7}

  if arg.tiny:
    common.shrink(c, num_classes=23, label=label)
    for source in (c.input.source, c.evals.val.data):
      source.single_label = True  # the synthetic stand-in for ImageNet
    c.input.workers = 0
    if arg.init in common.WORKDIRS:
      c.init_from.path = None  # there is nothing to start from
    if arg.recipe == 'accelerator':
      c.schedule = dict(c.schedule, decay_examples=64, warmup_examples=32)
      c.model.bn_group = 2
  c.lock()
  return c


def _accelerator(c):
  """The paper's number of examples in batches of 1024, in bfloat16."""
  scale = 1024 / 32
  c.total_steps = None
  c.total_examples = 4_000_000 * 32
  c.log_every_steps = 50
  c.input.batch_size = 1024
  c.input.workers = 16
  c.model.compute_dtype = 'bfloat16'
  c.model.bn = 'ghost'  # groups of 32: the batch of one of the paper's workers
  c.schedule = dict(
    type='staircase',
    lr=1e-3 * scale,
    factor=0.1,
    decay_examples=1_200_000 * 32,
    warmup_examples=5 * 1_281_167,
  )
  c.ckpt.every_steps = 1000
  c.ckpt.keep_every_steps = 25_000
  c.evals.val.every_steps = 1500
