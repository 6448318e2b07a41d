"""Table 2 as a study: what pretraining buys for detection on COCO (section 5.2).

Sun et al. 2017: Faster R-CNN on ResNet-101, mAP@.5 and mAP@[.5,.95] on test-dev:
from ImageNet 53.6 and 34.3, from 300M 56.9 and 36.7, from ImageNet+300M 58.0 and
37.4. Here with a row from scratch besides.

On the synthetic world, in some two hours and with nothing to download:

  python -m tools.study --config configs/studies/table2.py --workdir workdirs/table2

Pretraining is that of configs/studies/table1.py; the target 500 images of a
third world with boxes, configs/synthetic_detection.py. Arguments:

  seeds=3             of the target runs; pretraining runs once
  replicate=false     true: pretraining too, once a seed
  images=500, steps=600 (of 8)   of the target's training set
  val_images=2000     of its evaluation
  imagenet_images=1250, imagenet_steps=1100, jft_images=128000, jft_epochs=2
  rates=0.003,0.01,0.03   each start takes the best of these on other images
  lr_scratch, lr_imagenet, lr_jft, lr_imagenet_jft, lr_jft_long   a rate in place
      of the search of that start

On real data, with the recipes of the paper:

  python -m tools.study --config \\
      configs/studies/table2.py:coco=DIR,jft=DIR,imagenet=DIR --workdir workdirs/table2

  coco                as for configs/coco_detection.py; scored on its minival
  jft, imagenet       prepared records, as for configs/jft_resnet.py and
      configs/imagenet_resnet.py; what is not given has no row
  jft_checkpoint=DIR, imagenet_checkpoint=DIR   a workdir or checkpoint in place
      of pretraining
  weights=DIR         weights of torchvision or timm, converted (docs/weights.md):
      one more row
  depth=101|50|152, preset=paper|tfod, seeds=1, recipe=literal|accelerator (of
      pretraining on `jft` and of the target)

Hardware: 2 CPU cores for the synthetic world; the paper's: 9 GPUs for the
target, 50 and two months for `300M`.
"""  # noqa: E501

from configs.studies import detection, transfer

PAPER = 'Sun et al. 2017, Table 2: COCO test-dev'
_TARGET = detection.target('coco', 'val/ap', 'mAP@[.5,.95]')
_PUBLISHED = {
  'tuned_imagenet': {'val/ap50': 53.6, 'val/ap': 34.3},
  'tuned_jft': {'val/ap50': 56.9, 'val/ap': 36.7},
  'tuned_imagenet_jft': {'val/ap50': 58.0, 'val/ap': 37.4},
}
# Rows of the paper that are not trained here.
_OTHERS = {
  'He et al.': {'val/ap50': 53.3, 'val/ap': 32.2},
  'Inception-ResNet-v2 (Huang et al.)': {'val/ap50': 56.3, 'val/ap': 35.5},
}


def get_config(arg=None):
  """Arguments: see the module docstring, and tiny."""
  arg = transfer.parse(arg, _TARGET)
  c = transfer.study(arg, _TARGET, (_REAL_TEXT, detection.SYNTHETIC_TEXT))
  names = transfer.arms(c)
  columns = dict(ap50='mAP@.5', ap='mAP@[.5,.95]', ap75='mAP@.75')
  c.tables = [
    dict(
      name='table2',
      title='Table 2',
      text=_TABLE_TEXT,
      rows=[
        *(dict(title=k, published=v) for k, v in _OTHERS.items()),
        *(dict(run=n, published=_PUBLISHED.get(n, {})) for n in names),
      ],
      columns=[
        dict(metric=f'val/{name}', title=title)
        for name, title in columns.items()
      ],
      baseline=transfer.baseline(names),
      published=PAPER
      + ('' if arg.coco else '; not comparable with the synthetic world'),
    )
  ]
  return transfer.finish(c, _TARGET)


_REAL_TEXT = """
The recipe of the paper: one image a step, 600 pixels the shorter side, rate
4e-4 for 2.5M of 3M steps, then a tenth of it; batch norm as the checkpoint has
it. From scratch there is no such thing: that run trains it, on 8 images a step.
Pretraining is 4 epochs of 300M, 5M steps on ImageNet.
"""
_TABLE_TEXT = """Average precision as COCO measures it, of the target's
evaluation set: on COCO minival, not the paper's test-dev, whose truth is not
public."""
