"""Segmentation of the synthetic world, as a transfer target in minutes.

The stand-in for VOC in Figure 6 of Sun et al. 2017 (section 5.3): few images
with a class for every pixel, of another world than the quickstart's: other
labels, other looks. The net is the quickstart's at output stride 8 with
DeepLab's head, at rates for its 9x9 features; the recipe that of
configs/voc_segmentation.py, its rate and length for a run of seconds. Scored
by the mean IoU at the original size.

  python -m main --config configs/synthetic_segmentation.py:init=workdirs/quickstart --workdir workdirs/segmentation
  arguments: init=WORKDIR (none: from scratch), freeze=none|conv1|conv2|conv3|
  conv4|backbone, lr=0.01, images=500, classes=20 (besides the background),
  world=1 (its seed), steps=300, split=val|fasteval (what is scored),
  val_images=400

Batch norm is trained in every case: from scratch there are no statistics to
freeze, and arms that differ in it would not tell what their start is worth.

Hardware: 2 CPU cores, about a minute.
"""  # noqa: E501

from configs import common

SIZE = 65  # 8n + 1: features lie on the image's first and last pixel


def get_config(arg=None):
  """Arguments: see the module docstring, and tiny."""
  arg = common.parse(
    arg,
    init='',
    freeze=common.FREEZE,
    lr=0.01,
    images=500,
    classes=20,
    world=1,
    steps=300,
    split=('val', 'fasteval'),
    val_images=400,
    tiny=False,
  )
  common.at_least_one(
    images=arg.images, classes=arg.classes, steps=arg.steps,
    val_images=arg.val_images,
  )  # fmt: skip
  world: dict = dict(
    num_classes=arg.classes,
    depth=0,  # no inner labels: every class has pixels
    zipf=0.0,  # and as many objects as any other
    image_size=64,
    seed=arg.world,
    annotations=True,
  )

  c = common.base()
  c.total_steps = arg.steps
  c.log_every_steps = 50

  c.input.source = common.synthetic(**world, num_images=arg.images)
  c.input.ops = common.segmentation_ops('warp', SIZE)
  c.input.batch_size = 16

  c.model = common.resnet(
    depth=14, width=24, bn_decay=0.98, output_stride=8, freeze=arg.freeze
  )
  c.task = dict(
    type='segmentation', num_classes=arg.classes, rates=(1, 2, 3, 4)
  )
  if arg.init:
    c.init_from.path = arg.init

  c.optim = dict(
    type='momentum', momentum=0.9, weight_decay=5e-4, weight_decay_on='all'
  )
  c.schedule = dict(type='poly', lr=arg.lr, power=0.9)

  c.ckpt.every_steps = 1000
  c.evals.val = dict(
    type='semantic_segmentation',
    data=common.synthetic(arg.split, **world, num_images=arg.val_images),
    ops=common.segmentation_ops('warp', SIZE, 64),
    batch_size=100,
    every_percent=25,
  )

  if arg.tiny:
    common.shrink_segmentation(c)
    for data in (c.input.source, c.evals.val.data):
      data.update(dict(seed=arg.world, depth=0))
  c.lock()
  return c
