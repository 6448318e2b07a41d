"""One backbone for classes, boxes, masks and keypoints, in minutes.

The targets of synthetic_transfer.py, synthetic_detection.py, _segmentation.py
and _pose.py learned in one run: each has its own head, its own stream of images
of one synthetic world, its own evaluator, and a weight in the loss
(docs/joint-training.md). Images with a class are many, those with
boxes fewer, those with masks few, as in the data sets of Sun et al. 2017,
section 5.

  python -m main --config configs/synthetic_joint.py --workdir workdirs/joint
  ...:init=workdirs/quickstart    from the quickstart's checkpoint
  arguments: init=WORKDIR (none: from scratch), lr=0.02, classes=12, world=1
  (its seed), steps=300, statistics=shared|own (of batch norm), split=val|
  fasteval (what is scored), val_images=400
  weights: --config.task.parts.boxes.weight=0.5

The map is at stride 8 for all parts, since images are small.

Hardware: 2 CPU cores, about three minutes.
"""

from configs import common, detectors, poses

CLASS_SIZE, BOX_SIZE, MASK_SIZE = 56, 96, 65
OBJECTS = 5  # of an image with boxes, at most
CROP, RADIUS, KEYPOINTS = (65, 65), 6.0, 9


def get_config(arg=None):
  """Arguments: see the module docstring, and tiny."""
  arg = common.parse(
    arg,
    init='',
    lr=0.02,
    classes=12,
    world=1,
    steps=300,
    statistics=('shared', 'own'),
    split=('val', 'fasteval'),
    val_images=400,
    tiny=False,
  )
  common.at_least_one(
    classes=arg.classes, steps=arg.steps, val_images=arg.val_images
  )
  world: dict = dict(
    num_classes=arg.classes,
    depth=0,  # no inner labels: every box and pixel has a class of its own
    zipf=0.0,
    seed=arg.world,
  )
  of_classes: dict = dict(world, image_size=64, single_label=True)
  of_boxes: dict = dict(
    world, image_size=BOX_SIZE, max_objects=OBJECTS, annotations=True
  )
  of_masks: dict = dict(world, image_size=64, annotations=True)
  of_people: dict = dict(of_boxes, max_objects=3, num_keypoints=KEYPOINTS)
  label = dict(op='single_label')
  canvas = [dict(op='pad', size=BOX_SIZE)]

  c = common.base()
  c.total_steps = arg.steps
  c.log_every_steps = 50

  c.input.source = common.synthetic(**of_classes, num_images=20_000)
  c.input.ops = common.train_ops(64, CLASS_SIZE, label)
  c.input.batch_size = 16
  c.input.also.with_boxes = common.stream(
    source=common.synthetic(**of_boxes, num_images=2000),
    ops=detectors.ops(OBJECTS, canvas=canvas, flip=True),
    batch_size=8,
    num_classes=arg.classes,
  )
  c.input.also.with_masks = common.stream(
    source=common.synthetic(**of_masks, num_images=500),
    ops=common.segmentation_ops('warp', MASK_SIZE),
    batch_size=8,
    num_classes=arg.classes,
  )

  c.input.also.with_people = common.stream(
    source=poses.people(common.synthetic(**of_people, num_images=2000)),
    ops=poses.ops(CROP, RADIUS, train=True, flip=True),
    batch_size=8,
    num_classes=arg.classes,
  )

  c.model = common.resnet(depth=14, width=24, bn_decay=0.98, output_stride=8)
  boxes = dict(
    detectors.SMALL,
    boxes_per_image=32,
    anchor_base=32.0,
    anchor_scales=(0.5, 0.75, 1.0, 1.5),
    prune_anchors=False,  # of 96 pixels most anchors reach beyond
    crowd='as_box',
  )
  c.task = dict(
    type='joint',
    num_classes=arg.classes,
    statistics=arg.statistics,
    parts=dict(
      classes=dict(type='softmax', stream='main', weight=1.0),
      boxes=dict(type='detection', stream='with_boxes', weight=1.0, **boxes),
      masks=dict(
        type='segmentation',
        stream='with_masks',
        weight=1.0,
        rates=(1, 2, 3, 4),
      ),
      people=dict(
        type='pose',
        stream='with_people',
        weight=1.0,
        radius=RADIUS,
        auxiliary=None,
        voting='exact',
      ),
    ),
  )
  if arg.init:
    c.init_from.path = arg.init
  c.init_from.reinit = common.ALL_BUT_BACKBONE
  if arg.statistics == 'own':  # the checkpoint has one set of them
    c.init_from.reinit = (r'(?!backbone/).*',)

  c.optim = dict(
    type='momentum',
    momentum=0.9,
    weight_decay=1e-4,
    clip=('per_tensor', 10.0),
  )
  c.schedule = dict(type='cosine', lr=arg.lr, warmup_percent=5)

  c.ckpt.every_steps = 1000
  kept = dict(num_images=arg.val_images)
  c.evals.classes = dict(
    type='classification',
    part='classes',
    data=common.synthetic(arg.split, **of_classes, **kept),
    ops=common.eval_ops(64, CLASS_SIZE, label),
    batch_size=100,
    every_percent=50,
  )
  c.evals.boxes = dict(
    type='coco_detection',
    part='boxes',
    data=common.synthetic(arg.split, **of_boxes, **kept),
    ops=detectors.ops(OBJECTS, canvas=canvas),
    batch_size=20,
    every_percent=50,
  )
  c.evals.masks = dict(
    type='semantic_segmentation',
    part='masks',
    data=common.synthetic(arg.split, **of_masks, **kept),
    ops=common.segmentation_ops('warp', MASK_SIZE, 64),
    batch_size=100,
    every_percent=50,
  )
  c.evals.people = dict(
    type='coco_keypoints',
    part='people',
    data=poses.people(common.synthetic(arg.split, **of_people, **kept)),
    ops=poses.ops(CROP, RADIUS),
    batch_size=50,
    every_percent=50,
  )

  if arg.tiny:
    _shrink(c)
  c.lock()
  return c


def _shrink(c):
  """Makes the config `:tiny`: the same parts, streams and evaluators."""
  common.shrink_world(c, num_classes=7)  # net, length, evaluators' times
  side, label = 40, dict(op='single_label')
  canvas = [dict(op='pad', size=side)]
  world: dict = dict(num_classes=7, num_images=200, image_size=side, depth=0)
  single: dict = dict(world, single_label=True)
  annotated: dict = dict(world, annotations=True)
  keypoints: dict = dict(annotated, num_keypoints=5, max_objects=2)
  crop, radius = (33, 33), 3.0
  boxes, masks = c.input.also.with_boxes, c.input.also.with_masks
  people = c.input.also.with_people
  for section, source, ops in (
    (c.input, single, common.train_ops(side, 32, label)),
    (boxes, annotated, detectors.ops(4, canvas=canvas, flip=True)),
    (masks, annotated, common.segmentation_ops('warp', side + 1)),
    (people, keypoints, poses.ops(crop, radius, train=True, flip=True)),
  ):
    section.source = common.synthetic(**source)
    section.ops = ops
    section.batch_size = 8
  for stream in c.input.also.values():
    stream.num_classes = 7
  for evaluator, source, ops in (
    (c.evals.classes, c.input.source, common.eval_ops(side, 32, label)),
    (c.evals.boxes, boxes.source, detectors.ops(4, canvas=canvas)),
    (
      c.evals.masks,
      masks.source,
      common.segmentation_ops('warp', side + 1, side),
    ),
    (c.evals.people, people.source, poses.ops(crop, radius)),
  ):
    evaluator.data = {**source, 'split': 'fasteval', 'num_images': 24}
    evaluator.ops = ops
    evaluator.batch_size = 8
  people.source = poses.people(people.source)
  c.evals.people.data = poses.people(c.evals.people.data)
  c.task.parts.people.radius = radius
  c.task.parts.boxes.update(detectors.TINY)
  c.init_from.path = None
