"""A small, clean, single-label set of the synthetic world, as transfer target.

The stand-in for ImageNet in minutes: one right label an image, that of its
class with the largest visible area, and few images. Another world than the
quickstart's: other labels, other looks. Training from scratch, fine-tuning and
frozen features differ in `init` and `freeze` only (Sun et al. 2017, section
4.3). As a target that is as far from the one kind of pretraining as from the
other: `plain`, images of one object of equally frequent classes without a
hierarchy, where the largest object's label and all true labels are the same.

  python -m main --config configs/synthetic_transfer.py:init=workdirs/quickstart --workdir workdirs/transfer
  arguments: init=WORKDIR (none: from scratch), freeze=none|conv1|conv2|conv3|
  conv4|backbone, lr=0.03, images=1000, classes=60, world=1 (its seed),
  steps=300, plain=false, split=val|fasteval (what is scored), val_images=1000

Hardware: 2 CPU cores, under a minute.
"""  # noqa: E501

from configs import common


def get_config(arg=None):
  """Arguments: see the module docstring, and tiny."""
  arg = common.parse(
    arg,
    init='',
    freeze=common.FREEZE,
    lr=0.03,
    images=1000,
    classes=60,
    world=1,
    steps=300,
    plain=False,
    split=('val', 'fasteval'),
    val_images=1000,
    tiny=False,
  )
  common.at_least_one(
    images=arg.images, steps=arg.steps, val_images=arg.val_images
  )
  kind: dict = dict(seed=arg.world, single_label=True)
  if arg.plain:
    kind.update(dict(max_objects=1, depth=0, zipf=0.0))
  world = dict(num_classes=arg.classes, image_size=64, **kind)
  label = dict(op='single_label')

  c = common.base()
  c.total_steps = arg.steps
  c.log_every_steps = 20

  c.input.source = common.synthetic(**world, num_images=arg.images)
  c.input.ops = common.train_ops(64, 56, label)
  c.input.batch_size = 32

  c.model = common.resnet(depth=14, width=24, bn_decay=0.98, freeze=arg.freeze)
  c.task.type = 'softmax'
  if arg.init:
    c.init_from.path = arg.init

  c.optim = dict(type='momentum', momentum=0.9, weight_decay=1e-4)
  c.schedule = dict(type='cosine', lr=arg.lr, warmup_percent=5)

  c.ckpt.every_steps = 1000
  c.evals.val = dict(
    type='classification',
    data=common.synthetic(arg.split, **world, num_images=arg.val_images),
    ops=common.eval_ops(64, 56, label),
    batch_size=200,
    every_percent=25,
  )

  if arg.tiny:
    common.shrink(c, num_classes=23, label=label)
    for data in (c.input.source, c.evals.val.data):
      data.update(kind)
  c.lock()
  return c
