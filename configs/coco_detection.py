"""Faster R-CNN on COCO (Sun et al. 2017, section 5.2; Tables 2, 4, 5 and 6).

Blocks 1 to 3 of the pretrained ResNet at stride 16, a region proposal network,
300 regions, and block4 at stride 1 on crops of 14x14. One image a step, shorter
side 600, longer at most 1024, reflection the only augmentation; momentum 0.9,
4e-4 for 2.5M steps and a tenth of it up to 3M (frozen: 900K of 1.5M), each
tensor's gradient clipped at a norm of 10, no weight decay, batch norm's
statistics as the checkpoint has them.

  python -m main --config configs/coco_detection.py:path=DIR --workdir ...

  path=DIR            prepared by tools.prepare_coco, or a folder in COCO's form
  split=trainval_minus_minival, eval_split=minival    of it
  classes=person      only these, by their names; '': all 80. With
      output_stride=8 the detector of people of G-RMI (docs/pose.md)
  init=jft|imagenet|random|PATH   workdirs/jft_resnet, workdirs/imagenet_resnet,
      none, or any workdir, checkpoint or converted weights (PATH has a slash);
      random trains batch norm too, on 8 images a step at least
  layout=slim|torch|msra    where the weights come from
  freeze=none|conv1|conv2|conv3|conv4   what is not trained; the paper's frozen
      features are conv4
  features=FOLDER, dtype=float32|float16|bfloat16   train from the maps that
      tools.extract_maps stored there, with freeze=conv4
  depth=101|50|152|26|14, width=64
  preset=paper|tfod   anchors and boxes of an image in the losses: 64 and 256 as
      the paper says, or 256 and 64 as the code it used has them, half the cost
  recipe=literal|accelerator   16 images a step, rate and steps to suit, warm-up
  output_stride=16|8  8 is atrous: finer, and several times the cost
  bn_parameters=train|freeze   batch norm's scales and biases
  short_side=600, long_side=1024, max_boxes=100 (an image)
  pre_nms_top_k=0     of the anchors before suppression; 0: all
  asynchronous=false  9 workers and 11 parameter servers, simulated

Hardware: the paper used 9 GPUs; literal runs on one accelerator, one image a
step.
"""

from ml_collections import config_dict

from configs import common, detectors


def get_config(arg=None):
  """Arguments: see the module docstring, and tiny."""
  arg = common.parse(
    arg,
    path='data/coco_minival',
    split='trainval_minus_minival',
    eval_split='minival',
    classes='',
    **detectors.ARGUMENTS,
    tiny=False,
  )
  data: dict = dict(type='detect', path=arg.path)
  train, val = dict(data, split=arg.split), dict(data, split=arg.eval_split)
  classes = [name for name in arg.classes.split(',') if name]
  if classes:
    train['subset'] = dict(labels=classes)
    # Where there is none of them none must be found.
    val['subset'] = dict(labels=classes, unlabelled='keep')
  c = common.base()
  c.input.source = train
  c.task.num_classes = len(classes) or 80
  c.evals.val = dict(
    type='coco_detection',
    data=val,
    batch_size=8,
    every_percent=10,
    exclude_ids=config_dict.placeholder(str),
  )
  frozen = arg.freeze == 'conv4'
  detectors.faster_rcnn(
    c,
    arg,
    lr=4e-4,
    drop=900_000 if frozen else 2_500_000,
    total=1_500_000 if frozen else 3_000_000,
  )
  if arg.tiny:
    detectors.shrink(c)
  if arg.features:
    detectors.from_maps(c, arg.features, arg.dtype)
  c.lock()
  return c
