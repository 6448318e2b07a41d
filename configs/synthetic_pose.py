"""Keypoints in the synthetic world, as a transfer target in minutes.

The stand-in for COCO's people in Table 7 of Sun et al. 2017 (section 5.4): the
objects of images of another world than the quickstart's, each with nine
keypoints, an eye and eight around it. Crops of 65x65, the map at stride 8.
Scored as COCO scores people.

  python -m main --config configs/synthetic_pose.py --workdir workdirs/pose
  ...:init=workdirs/quickstart    from the quickstart's checkpoint
  arguments: init=WORKDIR (none: from scratch), freeze=none|conv1|conv2|conv3|
  conv4|backbone, lr=0.1, images=2000, classes=12, objects=3 (at most, an
  image), world=1 (its seed), steps=600, split=val|fasteval (what is scored),
  val_images=400

Batch norm is trained in every case: from scratch there are no statistics to
freeze, and arms that differ in it would not tell what their start is worth.

Hardware: 2 CPU cores, about three minutes.
"""

from configs import common, poses

SIZE = 96
CROP = (65, 65)
RADIUS = 6.0  # of a crop of 65 what 25 pixels are of one of 257
KEYPOINTS = 9


def get_config(arg=None):
  """Arguments: see the module docstring, and tiny."""
  arg = common.parse(
    arg,
    init='',
    freeze=common.FREEZE,
    lr=0.1,
    images=2000,
    classes=12,
    objects=3,
    world=1,
    steps=600,
    split=('val', 'fasteval'),
    val_images=400,
    tiny=False,
  )
  common.at_least_one(
    images=arg.images, classes=arg.classes, objects=arg.objects,
    steps=arg.steps, val_images=arg.val_images,
  )  # fmt: skip
  world: dict = dict(
    num_classes=arg.classes,
    depth=0,  # no inner labels: every box has a class of its own
    zipf=0.0,
    image_size=SIZE,
    max_objects=arg.objects,
    num_keypoints=KEYPOINTS,
    seed=arg.world,
    annotations=True,
  )

  c = common.base()
  c.total_steps = arg.steps
  c.log_every_steps = 50

  c.input.source = poses.people(
    common.synthetic(**world, num_images=arg.images)
  )
  c.input.ops = poses.ops(CROP, RADIUS, train=True, flip=True)
  c.input.batch_size = 16

  c.model = common.resnet(
    depth=14, width=24, bn_decay=0.98, output_stride=8, freeze=arg.freeze
  )
  c.task = dict(
    type='pose',
    num_classes=None,
    radius=RADIUS,
    auxiliary=poses.auxiliary(14),
    voting='exact',
  )
  if arg.init:
    c.init_from.path = arg.init
  c.init_from.reinit = poses.HEADS

  c.optim = dict(type='momentum', momentum=0.9, clip=('per_tensor', 10.0))
  c.schedule = dict(type='cosine', lr=arg.lr, warmup_percent=5)

  c.ckpt.every_steps = 1000
  c.evals.val = dict(
    type='coco_keypoints',
    data=poses.people(
      common.synthetic(arg.split, **world, num_images=arg.val_images)
    ),
    ops=poses.ops(CROP, RADIUS),
    batch_size=50,
    every_percent=50,
  )

  if arg.tiny:
    poses.shrink(c)
  c.lock()
  return c
