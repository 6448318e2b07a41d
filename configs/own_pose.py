"""Keypoints of people, or of anything, in your own photos.

  python -m main --config configs/own_pose.py:path=DATA --workdir ...

DATA is a folder of photos with a person_keypoints_*.json in COCO's form, with
any number of keypoints of any names, or what tools/prepare_images.py made of
one (docs/pose.md). Everything with keypoints trains, each in a crop of its own.

  split=train, eval_split=val    of the data
  holdout=10          data without splits: percent of images that becomes val
  boxes=truth|FILE    of those that are scored: annotated ones, or results of a
                      detector
  sigma=0.05          how far a keypoint may be off, relative to the object's
      size: COCO's 17 have their own
  init=PATH           workdir, checkpoint or converted weights to start from;
                      its batch norm stays as it is. '': from scratch, which
                      needs many photos and trains batch norm
  layout=slim|torch   torch for weights of torchvision and timm
  freeze=none|conv1|conv2|conv3|conv4|backbone
  depth=50|101|152|26|14, width=64    of the net, as the checkpoint has them
  height=353, width_px=257    of a crop: multiples of 8 and 1; as high and wide
      as what is looked at
  flip=true           reflection, which exchanges left and right
  voting=top|exact|grid    see docs/pose.md
  batch=16, epochs=30, lr=0.01, workers=2

The paper's recipe is configs/coco_pose.py.

Hardware: one accelerator; on a CPU take
depth=14,width=24,height=129,width_px=97, and init=workdirs/quickstart for its
checkpoint.
"""

from configs import common, poses

_RADIUS = 25 / 257  # of a disc, by the width of the crop


def get_config(arg=None):
  """Arguments: see the module docstring, and tiny."""
  arg = common.parse(
    arg,
    path='',
    split='train',
    eval_split='val',
    holdout=0.0,
    boxes='truth',
    sigma=0.05,
    init='',
    layout=('slim', 'torch'),
    freeze=common.FREEZE,
    depth=(50, 101, 152, 26, 14),
    width=64,
    height=353,
    width_px=257,
    flip=True,
    voting=('top', 'exact', 'grid'),
    batch=16,
    epochs=30.0,
    lr=0.01,
    workers=2,
    tiny=False,
  )
  if not arg.path and not arg.tiny:
    raise ValueError(
      'own_pose.py needs the path of your photos and keypoints: '
      '--config configs/own_pose.py:path=DATA'
    )
  common.at_least_one(width=arg.width, batch=arg.batch)
  for name in ('height', 'width_px'):
    side = arg[name]
    if side < 9 or side % 8 != 1:
      raise ValueError(
        f'config argument {name}={side} must be a multiple of 8 and 1 more, '
        f'such as {max(side // 8, 1) * 8 + 1}'
      )
  if arg.freeze != 'none' and not arg.init and not arg.tiny:
    raise ValueError(
      f'config argument freeze={arg.freeze} needs init=PATH: what is not '
      'trained must come from somewhere'
    )
  size = (arg.height, arg.width_px)
  radius = round(_RADIUS * arg.width_px, 1)
  data: dict = dict(type='detect', path=arg.path, task='pose')
  if arg.holdout:
    data['holdout_percent'] = arg.holdout

  c = common.base()
  c.total_epochs = arg.epochs
  c.log_every_steps = 10

  c.input.source = poses.people(
    dict(data, split=arg.split), default_sigma=arg.sigma
  )
  c.input.ops = poses.ops(size, radius, train=True, flip=arg.flip)
  c.input.batch_size = arg.batch
  c.input.workers = arg.workers

  c.model = common.resnet(
    depth=arg.depth,
    width=arg.width,
    bn_decay=0.98,
    output_stride=8,
    freeze=arg.freeze,
  )
  c.task = dict(
    type='pose',
    num_classes=None,
    radius=radius,
    auxiliary=poses.auxiliary(arg.depth),
    voting=arg.voting,
  )
  if arg.layout == 'torch':
    common.torch_layout(c)
  c.init_from.reinit = poses.HEADS
  if arg.init:
    c.init_from.path = arg.init
    c.model.bn = 'frozen'

  c.optim = dict(type='momentum', momentum=0.9, clip=('per_tensor', 10.0))
  c.schedule = dict(type='cosine', lr=arg.lr, warmup_percent=5)
  c.ckpt.every_steps = 500

  c.evals.val = dict(
    type='coco_keypoints',
    data=poses.scored_people(
      dict(data, split=arg.eval_split), arg.boxes, default_sigma=arg.sigma
    ),
    ops=poses.ops(size, radius),
    batch_size=arg.batch,
    every_percent=20,
  )
  if arg.tiny:
    poses.shrink(c)
  c.lock()
  return c
