"""A detector for your own photos with boxes: Faster R-CNN, sized for them.

  python -m main --config configs/own_detection.py:path=DATA --workdir ...

DATA is a folder of photos with boxes in COCO's JSON, in XML as VOC has it or in
text files as YOLO has them, with any classes, or what tools/prepare_images.py
made of one (docs/targets.md). Photos may have any sizes: the longer side
becomes `size` pixels, on one square canvas.

  split=train, eval_split=val    of the data
  holdout=10          data without splits: percent that becomes val
  metric=coco|voc     how val is scored (docs/detection.md); voc knows difficult
                      boxes
  init=PATH           workdir, checkpoint or converted weights to start from;
                      its batch norm stays as it is. '': from scratch, which
                      needs many photos and trains batch norm
  layout=slim|torch   torch for weights of torchvision and timm
  freeze=none|conv1|conv2|conv3|conv4
  depth=50|101|152|26|14, width=64    of the net, as the checkpoint has them
  size=512            pixels; anchors are size/8, /4, /2 and the whole of it
  output_stride=16|8  8 for small objects: several times the cost
  regions=many|few    300 regions of a photo, or 64 and less of each: a tenth of
                      the cost, for small photos with few objects
  batch=8, epochs=30, lr=0.01, max_boxes=100 (of an image), workers=2

The paper's recipes are configs/coco_detection.py and configs/voc_detection.py.

Hardware: one accelerator; on a CPU take
depth=14,width=24,size=128,output_stride=8,regions=few, and
init=workdirs/quickstart for its checkpoint.
"""

from configs import common, detectors


def get_config(arg=None):
  """Arguments: see the module docstring, and tiny."""
  arg = common.parse(
    arg,
    path='',
    split='train',
    eval_split='val',
    holdout=0.0,
    metric=('coco', 'voc'),
    init='',
    layout=('slim', 'torch'),
    freeze=common.FREEZE[:-1],
    depth=(50, 101, 152, 26, 14),
    width=64,
    size=512,
    output_stride=(16, 8),
    regions=('many', 'few'),
    batch=8,
    epochs=30.0,
    lr=0.01,
    max_boxes=100,
    workers=2,
    tiny=False,
  )
  if not arg.path and not arg.tiny:
    raise ValueError(
      'own_detection.py needs the path of your photos and boxes: '
      '--config configs/own_detection.py:path=DATA'
    )
  common.at_least_one(
    width=arg.width, size=arg.size, batch=arg.batch, max_boxes=arg.max_boxes
  )
  if arg.freeze != 'none' and not arg.init and not arg.tiny:
    raise ValueError(
      f'config argument freeze={arg.freeze} needs init=PATH: what is not '
      'trained must come from somewhere'
    )
  c = common.base()
  c.total_epochs = arg.epochs
  c.log_every_steps = 10

  source = dict(type='detect', path=arg.path, task='detection')
  if arg.holdout:
    source['holdout_percent'] = arg.holdout
  c.input.source = dict(source, split=arg.split)
  resize = [dict(op='resize_long', size=arg.size)]
  canvas = [dict(op='pad', size=arg.size)]
  c.input.ops = detectors.ops(
    arg.max_boxes,
    resize=resize,
    canvas=canvas,
    flip=True,
    extras=('box_crowd',),
  )
  c.input.batch_size = arg.batch
  c.input.workers = arg.workers

  c.model = common.resnet(
    depth=arg.depth,
    width=arg.width,
    bn_decay=0.98,
    output_stride=arg.output_stride,
    freeze=arg.freeze,
  )
  c.task = dict(
    type='detection',
    num_classes=c.task.get('num_classes'),
    preset='tfod',
    anchor_base=arg.size / 2,
    prune_anchors=False,  # an object may fill the photo
  )
  if arg.regions == 'few':
    c.task.update(detectors.SMALL)
  if arg.layout == 'torch':
    common.torch_layout(c)
  c.init_from.reinit = detectors.HEADS
  if arg.init:
    c.init_from.path = arg.init
    c.model.bn = 'frozen'

  c.optim = dict(type='momentum', momentum=0.9, clip=('per_tensor', 10.0))
  c.schedule = dict(type='cosine', lr=arg.lr, warmup_percent=5)
  c.ckpt.every_steps = 500

  c.evals.val = dict(
    type=f'{arg.metric}_detection',
    data=dict(source, split=arg.eval_split),
    ops=detectors.ops(1, resize=resize, canvas=canvas)[:-1],
    batch_size=arg.batch,
    every_percent=20,
  )
  if arg.tiny:
    detectors.shrink(c)
  c.lock()
  return c
