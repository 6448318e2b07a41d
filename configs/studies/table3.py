"""Table 3 as a study: what pretraining buys for detection on VOC (section 5.2).

Sun et al. 2017: Faster R-CNN on ResNet-101, trained on trainval of VOC 2007 and
2012, the average precision at an IoU of a half on test of 2007, of every class
and their mean: from ImageNet 76.3, from 300M 81.4, from ImageNet+300M 81.3.
Here with a row from scratch besides.

With the recipes of the paper:

  python -m tools.study --config \\
      configs/studies/table3.py:voc=DIR,jft=DIR,imagenet=DIR --workdir workdirs/table3

  voc                 as for configs/voc_detection.py
  jft, imagenet       prepared records, as for configs/jft_resnet.py and
      configs/imagenet_resnet.py; what is not given has no row
  jft_checkpoint=DIR, imagenet_checkpoint=DIR   a workdir or checkpoint in place
      of pretraining
  weights=DIR         weights of torchvision or timm, converted (docs/weights.md):
      one more row
  depth=101|50|152, preset=paper|tfod, seeds=1, recipe=literal|accelerator (of
      pretraining on `jft` and of the target)

Without `voc` the same starts on the synthetic world, scored as VOC scores; with
its arguments this is the study of configs/studies/table2.py, and the runs of
that one serve here too:

  python -m tools.study --config configs/studies/table3.py --workdir workdirs/table3

Hardware: 2 CPU cores for the synthetic world, some two hours; the paper's: 9
GPUs for the target, 50 and two months for `300M`.
"""  # noqa: E501

from configs.studies import detection, transfer

PAPER = 'Sun et al. 2017, Table 3: VOC 2007 test'
CLASSES = (
  'aeroplane', 'bicycle', 'bird', 'boat', 'bottle', 'bus', 'car', 'cat',
  'chair', 'cow', 'diningtable', 'dog', 'horse', 'motorbike', 'person',
  'pottedplant', 'sheep', 'sofa', 'train', 'tvmonitor',
)  # fmt: skip
_METRIC = 'val/ap50'
_TARGET = detection.target('voc', _METRIC, 'mAP@.5')
_PUBLISHED = {
  'tuned_imagenet': {_METRIC: 76.3},
  'tuned_jft': {_METRIC: 81.4},
  'tuned_imagenet_jft': {_METRIC: 81.3},
}


def get_config(arg=None):
  """Arguments: see the module docstring, and tiny."""
  arg = transfer.parse(arg, _TARGET)
  c = transfer.study(arg, _TARGET, (_REAL_TEXT, detection.SYNTHETIC_TEXT))
  if not arg.voc:
    for run in c.runs:
      if 'synthetic_detection' in run['config']:
        run['overrides'] = {'evals.val.type': 'voc_detection'}
  names = transfer.arms(c)
  classes = CLASSES if arg.voc else ()
  c.tables = [
    dict(
      name='table3',
      title='Table 3',
      text=_TABLE_TEXT,
      rows=[dict(run=n, published=_PUBLISHED.get(n, {})) for n in names],
      columns=[
        dict(metric=_METRIC, title='mAP@.5'),
        dict(metric='val/ap50_11point', title='11 points'),
      ],
      baseline=transfer.baseline(names),
      published=PAPER
      + ('' if arg.voc else '; not comparable with the synthetic world'),
    )
  ]
  if classes:
    c.tables = [
      *c.tables,
      dict(
        name='table3_classes',
        title='Table 3, by class',
        rows=names,
        columns=[dict(metric=f'{_METRIC}/{n}', title=n) for n in classes],
        baseline=transfer.baseline(names),
      ),
    ]
  return transfer.finish(c, _TARGET)


_REAL_TEXT = """
The recipe of the paper: one image a step, 600 pixels the shorter side, rate
3e-4 for 500K of 700K steps, then a tenth of it; batch norm as the checkpoint
has it. From scratch there is no such thing: that run trains it, on 8 images a
step. Pretraining is 4 epochs of 300M, 5M steps on ImageNet.
"""
_TABLE_TEXT = """Average precision at an IoU of a half: the area under the
precision's envelope, and VOC's eleven points of 2007. The paper does not say
which of the two it gives."""
