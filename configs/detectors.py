"""What configs of detection share: ops, the net and its recipe, `:tiny`.

No config itself; configs/common.py has what all configs share.
"""

from collections.abc import Sequence
from typing import Any

from configs import common

# What a detector has and a classification checkpoint has not, and the reverse.
HEADS = ('rpn/.*', 'box_head/.*', 'head/.*')

# Options of the task for small photos and few cores: what a step costs, mostly
# block4 on crops, falls to a tenth.
SMALL: dict[str, Any] = dict(
  anchors_per_image=64,
  boxes_per_image=16,
  num_proposals=64,
  pooled_size=4,
  rpn_channels=128,
  per_class=20,
  max_detections=50,
)

# Those of `:tiny`.
TINY: dict[str, Any] = dict(
  anchors_per_image=8,
  boxes_per_image=4,
  anchor_base=16.0,
  anchor_scales=(0.5, 1.0),
  prune_anchors=False,
  num_proposals=8,
  pooled_size=2,
  rpn_channels=16,
  crowd='as_box',
  per_class=4,
  max_detections=8,
)


def ops(
  max_boxes: int,
  *,
  resize: Sequence[dict] = (),
  canvas: Sequence[dict] = (),
  flip: bool = False,
  extras: Sequence[str] = (),
) -> list[dict]:
  """Image and its boxes; random reflection is the only augmentation (D.2).

  Args:
    max_boxes: of an image, padded.
    resize: ops that change the size of the image.
    canvas: ops that make all images of a batch one size.
    flip: whether to reflect half of them.
    extras: of the op `boxes`.
  """
  return [
    dict(op='decode'),
    *resize,
    *([dict(op='random_flip')] if flip else ()),
    dict(op='image_size'),
    *canvas,
    dict(op='boxes', max_boxes=max_boxes, extras=tuple(extras)),
  ]


def from_maps(c: Any, folder: str, dtype: str = 'float32') -> None:
  """Trains and evaluates from the maps that tools.extract_maps has stored.

  Everything else is as in the run from images, so that its losses are too; only
  pages of the worst images are not written, since there are no pictures.

  Args:
    c: config of a run from images, its frozen part up to conv4.
    folder: with a sub-folder for the training data and for each evaluator's.
    dtype: of the numbers in the files.
  """
  if c.model.freeze not in ('conv4', 'backbone'):
    raise ValueError(
      f'config argument features={folder!r} needs freeze=conv4, not '
      f'freeze={c.model.freeze}: what is trained has no stored maps'
    )
  read = dict(
    op='feature_map',
    stride=min(c.model.output_stride, 16),
    channels=16 * c.model.width,
  )

  def stored(name: str, data: Any) -> dict[str, Any]:
    path = f'{folder}/{name}'
    given = data.to_dict() if hasattr(data, 'to_dict') else dict(data)
    return dict(type='feature_maps', path=path, dtype=dtype, data=given)

  c.task.reads = 'block3_map'
  c.input.source = stored('train', c.input.source)
  c.input.ops = [*c.input.ops, read]
  for name, evaluator in c.evals.items():
    evaluator.data = stored(name, evaluator.data)
    evaluator.ops = [*evaluator.ops, read]
    evaluator.predict_fn = 'map_detections'
    evaluator.num_worst = 0


# The arguments of configs that train Faster R-CNN, and their defaults.
ARGUMENTS: dict[str, Any] = dict(
  init='jft',
  layout=('slim', 'torch', 'msra'),
  freeze=common.FREEZE[:-1],
  features='',
  dtype=('float32', 'float16', 'bfloat16'),
  depth=(101, 50, 152, 26, 14),
  width=64,
  preset=('paper', 'tfod'),
  recipe=('literal', 'accelerator'),
  output_stride=(16, 8),
  bn_parameters=('train', 'freeze'),
  short_side=600,
  long_side=1024,
  max_boxes=100,
  pre_nms_top_k=0,
  asynchronous=False,
)


def faster_rcnn(c: Any, arg: Any, *, lr: float, drop: int, total: int) -> None:
  """Net, rule and schedule of a detector (SPEC D.2 to D.6).

  Args:
    c: config; `input.ops` and the evaluator's are set too.
    arg: of `common.parse(arg, **ARGUMENTS, ...)`.
    lr: rate of a step of one image.
    drop: step of one image at which it falls to a tenth.
    total: steps of one image.
  """
  common.at_least_one(
    width=arg.width, short_side=arg.short_side, max_boxes=arg.max_boxes
  )
  batch = 1 if arg.recipe == 'literal' else 16
  random = arg.init == 'random'
  if random:  # batch norm is trained, which needs more than an image
    if arg.bn_parameters == 'freeze':
      raise ValueError(
        'config argument bn_parameters=freeze needs weights to start from, not '
        'init=random'
      )
    batch = max(batch, 8)
  c.total_steps = total // batch
  c.input.batch_size = batch
  c.input.workers = 4
  c.device = 'accelerator'
  c.model = common.resnet(
    depth=arg.depth,
    width=arg.width,
    output_stride=arg.output_stride,
    freeze=arg.freeze,
  )
  c.task = dict(
    type='detection',
    num_classes=c.task.get('num_classes'),
    preset=arg.preset,
    pre_nms_top_k=arg.pre_nms_top_k or None,
  )
  if arg.layout == 'torch':
    common.torch_layout(c)
  elif arg.layout == 'msra':
    c.model.stride_in = 'first_unit_1x1'
    c.task.pixels = 'msra'
  common.start_from(c, arg.init)
  c.init_from.reinit = HEADS
  c.optim = dict(type='momentum', momentum=0.9, clip=('per_tensor', 10.0))
  if not random:
    c.model.bn = 'frozen'
    if arg.bn_parameters == 'freeze':
      common.freeze_batch_norm(c)
  c.schedule = dict(
    type='piecewise',
    lr=lr * batch,
    factors=(0.1,),
    boundaries_steps=(drop // batch,),
  )
  if arg.recipe == 'accelerator':
    c.schedule.warmup_steps = 500
  if arg.asynchronous:
    c.train.mode = 'downpour'
    c.train.downpour.update(dict(workers=9, servers=11, head_shards=1))
  resize = [
    dict(op='resize_small', size=arg.short_side, max_size=arg.long_side)
  ]
  up = lambda side: -(-side // 16) * 16
  sizes = (up(arg.short_side), up(arg.long_side))
  canvas = [dict(op='canvas', sizes=(sizes, sizes[::-1]))]
  c.input.ops = ops(
    arg.max_boxes,
    resize=resize,
    canvas=canvas,
    flip=True,
    extras=('box_crowd',),
  )
  c.ckpt.every_steps = 5000
  for evaluator in c.evals.values():
    evaluator.ops = ops(1, resize=resize, canvas=canvas)[:-1]


def shrink(c: Any, num_classes: int = 7) -> None:
  """Makes a config of detection `:tiny`: images of 40 pixels, as they are."""
  common.shrink_world(c, num_classes, annotations=True, depth=0)
  canvas = [dict(op='pad', size=40)]
  c.input.ops = ops(4, canvas=canvas, flip=True)
  for evaluator in c.evals.values():
    evaluator.ops = ops(4, canvas=canvas)
  c.input.workers = 0
  c.model.output_stride = 8
  c.model.bn = 'batch'  # there is nothing to start from
  c.init_from.path = None
  c.task.update(TINY)
