"""Keypoints of people on COCO (Sun et al. 2017, section 5.4; Table 7).

G-RMI (Papandreou et al. 2017): a crop of each person of 353x257 pixels, a ResNet
of output stride 8 that says where each of 17 keypoints is near and how far it
is from there, votes that fuse both. People's boxes come from a detector; the
pose decides the score. SGD with momentum, 450K steps, the rate a tenth after
250K; the rate itself is searched for each start (configs/studies/table7.py).

  python -m main --config configs/coco_pose.py:path=DIR --workdir ...

  path=DIR            prepared by tools.prepare_coco --task keypoints, or a
      folder in COCO's form
  split=trainval_minus_minival, eval_split=minival    of it
  boxes=truth|FILE    of the people that are scored: the annotated ones, or
      results of a detector, such as workdirs/coco/val_results.json
  train_boxes=truth|FILE   the same of the people that train
  init=jft|imagenet|random|PATH   workdirs/jft_resnet, workdirs/imagenet_resnet,
      none, or any workdir, checkpoint or converted weights (PATH has a slash);
      random trains batch norm too
  layout=slim|torch|msra    where the weights come from
  freeze=none|conv1|conv2|conv3|conv4|backbone   what is not trained
  bn=frozen|batch     batch norm's statistics: the checkpoint's, or trained
  depth=101|50|152|26|14, width=64
  lr=0.002            of a step of 24 people
  recipe=literal|accelerator   24 people a step, or 384, rate and steps to suit,
      warm-up
  flip=true           reflection, which exchanges left and right
  loss_at=pixels|grid of 353x257, or of 45x33, a hundredth of the cost
  voting=top|exact|grid    see docs/pose.md

Hardware: one accelerator or more.
"""  # noqa: E501

from ml_collections import config_dict

from configs import common, poses

CROP = (353, 257)
_BATCH = 24
_DROP, _TOTAL = 250_000, 450_000


def get_config(arg=None):
  """Arguments: see the module docstring, and tiny."""
  arg = common.parse(
    arg,
    path='data/coco_keypoints',
    split='trainval_minus_minival',
    eval_split='minival',
    boxes='truth',
    train_boxes='truth',
    init='jft',
    layout=('slim', 'torch', 'msra'),
    freeze=common.FREEZE,
    bn=('frozen', 'batch'),
    depth=(101, 50, 152, 26, 14),
    width=64,
    lr=0.002,
    recipe=('literal', 'accelerator'),
    flip=True,
    loss_at=('pixels', 'grid'),
    voting=('top', 'exact', 'grid'),
    tiny=False,
  )
  common.at_least_one(width=arg.width)
  data = dict(type='detect', path=arg.path, task='pose')
  times = 1 if arg.recipe == 'literal' else 16

  c = common.base()
  c.total_steps = _TOTAL // times
  c.device = 'accelerator'

  c.input.source = poses.people(
    dict(data, split=arg.split), boxes=arg.train_boxes
  )
  c.input.ops = poses.ops(CROP, train=True, flip=arg.flip)
  c.input.batch_size = _BATCH * times
  c.input.workers = 8

  c.model = common.resnet(
    depth=arg.depth,
    width=arg.width,
    output_stride=8,
    freeze=arg.freeze,
    bn='batch' if arg.init == 'random' else arg.bn,
  )
  c.task = dict(
    type='pose',
    num_classes=None,
    auxiliary=poses.auxiliary(arg.depth),
    loss_at=arg.loss_at,
    voting=arg.voting,
  )
  if arg.layout == 'torch':
    common.torch_layout(c)
  elif arg.layout == 'msra':
    c.model.stride_in = 'first_unit_1x1'
    c.task.pixels = 'msra'
  common.start_from(c, arg.init)
  c.init_from.reinit = poses.HEADS

  c.optim = dict(type='momentum', momentum=0.9)
  c.schedule = dict(
    type='piecewise',
    lr=arg.lr * times,
    factors=(0.1,),
    boundaries_steps=(_DROP // times,),
  )
  if arg.recipe == 'accelerator':
    c.schedule.warmup_steps = 500

  c.ckpt.every_steps = 5000
  c.plan.num_keypoints = 17
  c.evals.val = dict(
    type='coco_keypoints',
    data=poses.scored_people(dict(data, split=arg.eval_split), arg.boxes),
    ops=poses.ops(CROP),
    batch_size=64,
    every_percent=10,
    exclude_ids=config_dict.placeholder(str),
  )
  if arg.tiny:
    poses.shrink(c)
  c.lock()
  return c
