"""Faster R-CNN on VOC 2007 and 2012 (Sun et al. 2017, section 5.2; Table 3).

Trained on trainval of both years, scored on test of 2007 by the average
precision at an IoU of a half. As configs/coco_detection.py, but for the rate:
3e-4 for 500K steps and a tenth of it up to 700K, frozen or not.

  python -m main --config configs/voc_detection.py:path=DIR --workdir ...

  path=DIR            prepared by tools.prepare_voc, a folder of VOCdevkits, or
      any folder of images and XML in VOC's form
  split=trainval, eval_split=test    of it
  classes=20          0: those of the data
  frozen_steps=short|long   500K of 700K, or COCO's 900K of 1.5M, for
      freeze=conv4: the paper leaves it open
  inclusive=false     true: boxes hold the pixels of their corners, as the
      devkit scores them
  and init, layout, freeze, features, dtype, depth, width, preset, recipe,
  output_stride, bn_parameters, short_side, long_side, max_boxes, pre_nms_top_k,
  asynchronous of configs/coco_detection.py

Hardware: the paper used 9 GPUs; literal runs on one accelerator, one image a
step.
"""

from ml_collections import config_dict

from configs import common, detectors


def get_config(arg=None):
  """Arguments: see the module docstring, and tiny."""
  arg = common.parse(
    arg,
    path='data/voc0712',
    split='trainval',
    eval_split='test',
    classes=20,
    frozen_steps=('short', 'long'),
    inclusive=False,
    **detectors.ARGUMENTS,
    tiny=False,
  )
  data = dict(type='detect', path=arg.path, task='detection')
  c = common.base()
  c.input.source = dict(data, split=arg.split)
  c.task.num_classes = arg.classes or None
  c.evals.val = dict(
    type='voc_detection',
    data=dict(data, split=arg.eval_split),
    batch_size=8,
    every_percent=10,
    inclusive=arg.inclusive,
    exclude_ids=config_dict.placeholder(str),
  )
  long = arg.freeze == 'conv4' and arg.frozen_steps == 'long'
  detectors.faster_rcnn(
    c,
    arg,
    lr=3e-4,
    drop=900_000 if long else 500_000,
    total=1_500_000 if long else 700_000,
  )
  if arg.tiny:
    detectors.shrink(c)
  if arg.features:
    detectors.from_maps(c, arg.features, arg.dtype)
  c.lock()
  return c
