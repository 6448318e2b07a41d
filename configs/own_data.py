"""Your own images: a folder, a CSV or JSONL, or prepared records.

  python -m main --config configs/own_data.py:path=DATA --workdir ...

DATA is one of (docs/data.md):
  a folder written by tools/prepare_images.py (fastest to read),
  a folder train/CLASS/*.jpg with val/CLASS/*.jpg beside it,
  a CSV or JSONL with the columns path, labels and, for evaluation, split.
Labels may be several an image and may have a hierarchy: hierarchy=FILE of
child, parent edges (prepared records carry theirs), with unlisted=add if its
inner nodes shall become labels. A pretrained backbone comes in by
init_path=WORKDIR (layout=torch for weights converted from torchvision or timm),
freeze=none|conv1|conv2|conv3|conv4|backbone keeps a part of it as it is. Off by
default: crop=resized, ema=0.9999 and, with task=softmax, label_smoothing=0.1,
mixup=0.2. Other arguments: eval_split=val, holdout=10
(percent of a folder or table without splits that becomes val), fraction=0.1
(of the training records), exclude_ids=FILE (near-duplicates listed by
tools/dedup.py: every figure also without them), task=multilabel or softmax
(exactly one label an image), depth=50|101|152|26|14, width=64, size=224,
batch=64, epochs=30, lr=0.01, max_labels=64, bn_decay=0.99, workers=2.

Photos with boxes become a detector with task=detection, which is
configs/own_detection.py with that config's arguments; without it the classes of
their boxes are the labels of the images. Photos of people with keypoints become
a pose net with task=pose, which is configs/own_pose.py.

Hardware: one accelerator; on a CPU take depth=14,width=24,size=64.
"""

from configs import common, own_detection, own_pose

# Values of `task` that are configs of their own.
_OTHERS = {'detection': own_detection, 'pose': own_pose}


def get_config(arg=None):
  """Arguments: see the module docstring."""
  pieces = (arg or '').split(',')
  for task, config in _OTHERS.items():
    if f'task={task}' in pieces:
      others = [piece for piece in pieces if piece != f'task={task}']
      return config.get_config(','.join(others))
  arg = common.parse(
    arg,
    path='',
    eval_split='val',
    task=('multilabel', 'softmax', *_OTHERS),
    depth=(50, 101, 152, 26, 14),
    width=64,
    size=224,
    batch=64,
    epochs=30.0,
    lr=0.01,
    max_labels=64,
    bn_decay=0.99,
    init_path='',
    layout=('slim', 'torch'),
    freeze=common.FREEZE,
    crop=('random', 'resized'),
    ema=0.0,
    label_smoothing=0.0,
    mixup=0.0,
    hierarchy='',
    unlisted=('error', 'traverse', 'add'),
    holdout=0.0,
    fraction=1.0,
    exclude_ids='',
    workers=2,
    tiny=False,
  )
  if not arg.path and not arg.tiny:
    raise ValueError(
      'own_data.py needs the path of your data: '
      '--config configs/own_data.py:path=DATA'
    )
  common.at_least_one(
    size=arg.size, width=arg.width, batch=arg.batch, max_labels=arg.max_labels
  )
  common.check_fraction(arg.fraction)
  multilabel = arg.task == 'multilabel'
  label = (
    common.multilabel(arg.max_labels) if multilabel else dict(op='single_label')
  )
  resize = round(arg.size * 340 / 299)  # the paper's proportion

  c = common.base()
  c.total_epochs = arg.epochs
  c.log_every_steps = 10

  source = dict(type='detect', path=arg.path)
  if arg.hierarchy:
    source['hierarchy'] = arg.hierarchy
    source['hierarchy_unlisted'] = arg.unlisted
  if arg.holdout:
    source['holdout_percent'] = arg.holdout
  c.input.source = dict(source, split='train')
  c.input.ops = common.train_ops(resize, arg.size, label)
  if arg.crop == 'resized':
    c.input.ops = common.resized_crop_ops(arg.size, label)
  c.input.batch_size = arg.batch
  c.input.fraction = arg.fraction
  c.input.workers = arg.workers

  c.model = common.resnet(
    depth=arg.depth, width=arg.width, bn_decay=arg.bn_decay, freeze=arg.freeze
  )
  c.task.type = arg.task
  if not multilabel:
    c.task.label_smoothing = arg.label_smoothing
    c.task.mixup = arg.mixup
  elif arg.label_smoothing or arg.mixup:
    raise ValueError(
      'config arguments label_smoothing and mixup need task=softmax'
    )
  if arg.layout == 'torch':
    common.torch_layout(c)
  if arg.ema:
    c.train.ema_decay = arg.ema
  if arg.init_path:
    c.init_from.path = arg.init_path

  c.optim = dict(
    type='rmsprop', decay=0.9, momentum=0.9, epsilon=1.0, weight_decay=1e-4
  )
  c.schedule = dict(type='cosine', lr=arg.lr, warmup_percent=5)
  c.ckpt.every_steps = 500

  evaluator = 'multilabel_map' if multilabel else 'classification'
  c.evals.val = dict(
    type=evaluator,
    data=dict(source, split=arg.eval_split),
    ops=common.eval_ops(resize, arg.size, label),
    batch_size=arg.batch,
    every_percent=20,
  )
  if arg.exclude_ids:
    c.evals.val.exclude_ids = arg.exclude_ids

  if arg.tiny:
    common.shrink(c, num_classes=23, label=label)
    if not multilabel:
      for data in (c.input.source, c.evals.val.data):
        data.single_label = True
    c.input.workers = 0
  c.lock()
  return c
