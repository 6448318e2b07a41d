"""Detection in the synthetic world, as a transfer target in minutes.

The stand-in for COCO in Tables 2, 4 and 6 of Sun et al. 2017 (section 5.2): few
images with a box around every object, of another world than the quickstart's.
The net is the quickstart's, taken apart as configs/coco_detection.py does, its
map at stride 8 since images are small. Scored as COCO scores.

  python -m main --config configs/synthetic_detection.py --workdir workdirs/detection
  ...:init=workdirs/quickstart    from the quickstart's checkpoint
  arguments: init=WORKDIR (none: from scratch), freeze=none|conv1|conv2|conv3|
  conv4, lr=0.02, images=2000, classes=12, objects=5 (at most, an image),
  world=1 (its seed), steps=600, split=val|fasteval (what is scored),
  val_images=400, features=FOLDER (of tools.extract_maps, with freeze=conv4:
  trains from stored maps; dtype=float32|float16|bfloat16 of its numbers)

Batch norm is trained in every case: from scratch there are no statistics to
freeze, and arms that differ in it would not tell what their start is worth.

Hardware: 2 CPU cores, about three minutes.
"""  # noqa: E501

from configs import common, detectors

SIZE = 96


def get_config(arg=None):
  """Arguments: see the module docstring, and tiny."""
  arg = common.parse(
    arg,
    init='',
    freeze=common.FREEZE[:-1],
    lr=0.02,
    images=2000,
    classes=12,
    objects=5,
    world=1,
    steps=600,
    split=('val', 'fasteval'),
    val_images=400,
    features='',
    dtype=('float32', 'float16', 'bfloat16'),
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
    seed=arg.world,
    annotations=True,
  )

  canvas = [dict(op='pad', size=SIZE)]

  c = common.base()
  c.total_steps = arg.steps
  c.log_every_steps = 50

  c.input.source = common.synthetic(**world, num_images=arg.images)
  c.input.ops = detectors.ops(arg.objects, canvas=canvas, flip=True)
  c.input.batch_size = 8

  c.model = common.resnet(
    depth=14, width=24, bn_decay=0.98, output_stride=8, freeze=arg.freeze
  )
  c.task = dict(
    type='detection',
    num_classes=arg.classes,
    anchors_per_image=64,
    boxes_per_image=32,
    anchor_base=32.0,
    anchor_scales=(0.5, 0.75, 1.0, 1.5),
    prune_anchors=False,  # of 96 pixels most anchors reach beyond
    num_proposals=64,
    pooled_size=4,
    rpn_channels=128,
    crowd='as_box',
    per_class=20,
    max_detections=50,
  )
  if arg.init:
    c.init_from.path = arg.init
  c.init_from.reinit = detectors.HEADS

  c.optim = dict(type='momentum', momentum=0.9, clip=('per_tensor', 10.0))
  c.schedule = dict(type='cosine', lr=arg.lr, warmup_percent=5)

  c.ckpt.every_steps = 1000
  c.evals.val = dict(
    type='coco_detection',
    data=common.synthetic(arg.split, **world, num_images=arg.val_images),
    ops=detectors.ops(arg.objects, canvas=canvas),
    batch_size=20,
    every_percent=50,
  )

  if arg.tiny:
    detectors.shrink(c)
  if arg.features:
    detectors.from_maps(c, arg.features, arg.dtype)
  c.lock()
  return c
