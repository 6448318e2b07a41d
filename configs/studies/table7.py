"""Table 7 as a study: what pretraining buys for human pose (section 5.4).

Sun et al. 2017: G-RMI's pose net on ResNet-101, keypoint AP, AP@.5, AR and AR@.5
on COCO's test-dev: from ImageNet 62.4, 84.0, 66.7, 86.6, from 300M 64.8, 85.8,
69.4, 88.5, from ImageNet+300M 64.4, 85.7, 69.1, 88.2 (recalled, not read from
the paper). Here with a row from scratch besides. As in the paper the rate of
every start is searched.

On the synthetic world, in some hours and with nothing to download:

  python -m tools.study --config configs/studies/table7.py --workdir workdirs/table7

Pretraining is that of configs/studies/table1.py; the target 500 images of a
third world with keypoints, configs/synthetic_pose.py. Arguments:

  seeds=3             of the target runs; pretraining runs once
  replicate=false     true: pretraining too, once a seed
  images=500, steps=600 (of 16 people)   of the target's training set
  val_images=2000     of its evaluation
  imagenet_images=1250, imagenet_steps=1100, jft_images=128000, jft_epochs=2
  rates=0.03,0.1,0.3  each start takes the best of these on other images
  lr_scratch, lr_imagenet, lr_jft, lr_imagenet_jft, lr_jft_long   a rate in place
      of the search of that start

On real data, with the recipes of the paper:

  python -m tools.study --config \\
      configs/studies/table7.py:coco=DIR,jft=DIR,imagenet=DIR --workdir workdirs/table7

  coco                as for configs/coco_pose.py; scored on its minival
  jft, imagenet       prepared records, as for configs/jft_resnet.py and
      configs/imagenet_resnet.py; what is not given has no row
  jft_checkpoint=DIR, imagenet_checkpoint=DIR   a workdir or checkpoint in place
      of pretraining
  weights=DIR         weights of torchvision or timm, converted (docs/weights.md):
      one more row, with lr_weights
  rates=0.001,0.002,0.005   each start takes the best of these: trained on 95% of
      the training images, scored on the rest; the row's run trains on all
  depth=101|50|152, seeds=1, recipe=literal|accelerator (of pretraining on `jft`
      and of the target)

Hardware: 2 CPU cores for the synthetic world; accelerators for the target, the
paper's 50 GPUs and two months for `300M`.
"""  # noqa: E501

from configs.studies import transfer

PAPER = 'Sun et al. 2017, Table 7: COCO test-dev; recalled, not read there'
_COLUMNS = {
  'val/ap': 'AP', 'val/ap50': 'AP@.5', 'val/ar': 'AR', 'val/ar50': 'AR@.5',
}  # fmt: skip
_PUBLISHED = {
  'tuned_imagenet': (62.4, 84.0, 66.7, 86.6),
  'tuned_jft': (64.8, 85.8, 69.4, 88.5),
  'tuned_imagenet_jft': (64.4, 85.7, 69.1, 88.2),
}
_CMU_POSE = (61.8, 84.9, 66.5, 87.2)
_PART = 0.95  # of the training images, for the candidates of a search
_TARGET = transfer.Target(
  name='coco',
  task='human pose',
  synthetic='configs/synthetic_pose.py',
  real='configs/coco_pose.py',
  metric='val/ap',
  title='keypoint AP',
  rates='0.03,0.1,0.3',
  real_rates='0.001,0.002,0.005',
  held_out={
    'input.source.of.subset': dict(fraction=_PART),
    'evals.val.data.of.split': 'trainval_minus_minival',
    'evals.val.data.of.subset': dict(fraction=_PART, rest=True),
  },
)


def get_config(arg=None):
  """Arguments: see the module docstring, and tiny."""
  arg = transfer.parse(arg, _TARGET)
  c = transfer.study(arg, _TARGET, (_REAL_TEXT, _SYNTHETIC_TEXT))
  names = transfer.arms(c)
  c.tables = [
    dict(
      name='table7',
      title='Table 7',
      text=_TABLE_TEXT,
      rows=[
        dict(title='CMU-Pose', published=_published(_CMU_POSE)),
        *(dict(run=n, published=_published(_PUBLISHED.get(n))) for n in names),
      ],
      columns=[dict(metric=m, title=title) for m, title in _COLUMNS.items()],
      baseline=transfer.baseline(names),
      published=PAPER
      + ('' if arg.coco else '; not comparable with the synthetic world'),
    )
  ]
  return transfer.finish(c, _TARGET)


def _published(figures):
  """metric -> figure of the paper; none of a run that it does not have."""
  return dict(zip(_COLUMNS, figures)) if figures else {}


_SYNTHETIC_TEXT = """
A ResNet-14 of width 24 stands in for ResNet-101, synthetic worlds for the data
sets: 300M is 128,000 images of 200 classes whose labels are incomplete and
wrong in 20% of the cases, completed through the hierarchy, for 2 epochs;
ImageNet is 1,250 images of 100 classes with one right label each, for 28
epochs; so 300M has 102 times the images and 7 times the steps, where the paper
has 234 and 7.2. ImageNet+300M has the steps of both; 300M for as many stands
beside it. The target has 12 other classes, other looks, and few images, with
the keypoints of every object.

All runs on the target have the same length and schedule, and all train batch
norm. Each start has a rate of its own, chosen on other images than those of
the table.
"""
_REAL_TEXT = """
The recipe of the paper: crops of 353x257 of every person, 450K steps, the rate
a tenth after 250K; batch norm as the checkpoint has it. From scratch there is
no such thing: that run trains it. Each start has a rate of its own, as in the
paper: the best on a twentieth of the training images, which the runs of the
search do not train on. Pretraining is 4 epochs of 300M, 5M steps on ImageNet.
"""
_TABLE_TEXT = """Keypoint precision and recall as COCO measures them, of the
target's evaluation set: on COCO minival, with the people's own boxes unless
configs/coco_pose.py is given others, not the paper's test-dev with those of a
detector."""
