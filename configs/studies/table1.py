"""Table 1 as a study: what pretraining on huge, noisy data buys (section 4.3).

Sun et al. 2017: ResNet-101 on ImageNet, single crop, top-1 and top-5, trained
from scratch (77.5, 93.9) and fine-tuned from 300M noisily labelled images
(79.2, 94.7). With it the study of initialisation (Figure 3: pretraining from
random weights or from ImageNet's), and frozen features beside fine-tuning.

On the synthetic world, in an hour or two, nothing to download:

  python -m tools.study --config configs/studies/table1.py --workdir workdirs/table1

`300M` is 128,000 images with few, noisy labels in a hierarchy of 200 classes,
for 2 epochs; `ImageNet` 1,250 clean, single-label images of another world, for
28; the target 1000 clean images of a third one, each of one object, so that it
is the task of neither (configs/studies/pretraining.py says why). Arguments:

  seeds=3             of the target runs; pretraining runs once
  replicate=false     true: pretraining too, once a seed; else what the table
      says of an arm holds for the one checkpoint that it starts from
  images=1000, steps=300 (of 32)   of the target's training set
  val_images=2000     of its evaluation
  imagenet_images=1250, imagenet_steps=1100, jft_images=128000, jft_epochs=2
  rates=0.003,0.01,0.03   each start takes the best of these on other images
  lr_scratch, lr_frozen, lr_imagenet, lr_jft, lr_imagenet_jft, lr_jft_long   a
      rate in place of the search of that start

On real data, with the recipes of the paper:

  python -m tools.study --config \\
      configs/studies/table1.py:jft=DIR,imagenet=DIR --workdir workdirs/table1

  jft, imagenet       prepared records, as for configs/jft_resnet.py and
      configs/imagenet_resnet.py
  jft_checkpoint=DIR  a workdir or checkpoint in place of pretraining on `jft`
  weights=DIR         weights of torchvision or timm, converted (docs/weights.md):
      one more row
  depth=101|50|152, seeds=1, recipe=literal|accelerator (of pretraining on `jft`
      and of fine-tuning: configs/jft_resnet_large_batch.py, imagenet_transfer.py)

Hardware: 2 CPU cores for the synthetic world; the paper's: 50 K80 GPUs, two
months for `300M`.
"""  # noqa: E501

from configs import common
from configs.studies import pretraining

PAPER = 'Sun et al. 2017, Table 1: ResNet-101 on ImageNet'
_PUBLISHED = {
  'msra': {'val/top1': 76.4, 'val/top5': 92.9},
  'scratch': {'val/top1': 77.5, 'val/top5': 93.9},
  'tuned_jft': {'val/top1': 79.2, 'val/top5': 94.7},
}
_TITLES = {**pretraining.TITLES, 'frozen_jft': '300M, frozen'}
_TARGETS = (
  'scratch', 'frozen_jft', 'tuned_weights', 'tuned_imagenet', 'tuned_jft',
  'tuned_jft_long', 'tuned_imagenet_jft',
)  # fmt: skip
_METRIC = 'val/top1'
_TINY = ('jft', 'scratch', 'tuned_jft')  # of the runs, to be done in seconds


def get_config(arg=None):
  """Arguments: see the module docstring, and tiny."""
  arg = common.parse(
    arg,
    jft='',
    imagenet='',
    jft_checkpoint='',
    weights='',
    depth=(101, 50, 152),
    recipe=('literal', 'accelerator'),
    seeds=0,
    images=1000,
    steps=300,
    **pretraining.ARGUMENTS,
    **pretraining.rate_arguments('scratch', 'frozen', *pretraining.STARTS),
    tiny=False,
  )
  real = bool(arg.imagenet)
  if not real and (arg.jft or arg.jft_checkpoint or arg.weights):
    raise ValueError(
      'config arguments jft, jft_checkpoint and weights need imagenet=DIR, the '
      'target'
    )
  if real and bool(arg.jft) == bool(arg.jft_checkpoint):
    raise ValueError(
      'config argument imagenet=DIR needs one of jft=DIR and jft_checkpoint=DIR'
    )
  c = pretraining.study(arg, 'image classification', real)
  c.text = _REAL_TEXT if real else _SYNTHETIC_TEXT
  if arg.tiny and not real:
    pretraining.search_one(arg, 'jft')
  runs = _real_runs(arg) if real else _synthetic_runs(arg)
  if arg.tiny:
    runs = pretraining.shortened(runs, _TINY)
  c.runs = [dict(dict(title=_TITLES.get(r['name'], '')), **r) for r in runs]
  _report(c, real)
  c.lock()
  return c


def _synthetic_runs(arg):
  """Three worlds: 200 noisy classes, 100 clean ones, 60 of the target."""
  target = (
    f'configs/synthetic_transfer.py:{"tiny," if arg.tiny else ""}world=1,'
    f'classes=60,plain=true,images={arg.images},steps={arg.steps},'
    f'val_images={arg.val_images}'
  )
  arms = [
    ('scratch', '', target, 'scratch'),
    ('frozen_jft', 'jft', f'{target},freeze=backbone', 'frozen'),
    *((f'tuned_{name}', name, target, name) for name in pretraining.STARTS),
  ]
  runs = pretraining.synthetic(arg)
  for name, start, config, rate in arms:
    runs.append(pretraining.arm(arg, name, start, config, rate, _METRIC))
  for _, start, config, rate in arms:
    runs += pretraining.search(arg, start, config, rate)
  return runs


def _real_runs(arg):
  """The recipes of the paper; `scratch` is its ImageNet baseline."""
  tiny = ',tiny' if arg.tiny else ''
  target = (
    f'configs/imagenet_transfer.py:path={arg.imagenet},depth={arg.depth},'
    f'recipe={arg.recipe}'
  )
  runs = [dict(name='scratch', config=pretraining.imagenet(arg))]
  start = {'start_from': 'jft'}
  if arg.jft:
    jft = pretraining.jft(arg)
    runs += [
      dict(name='jft', config=jft, seeds=(0,)),
      dict(name='imagenet_jft', config=jft, seeds=(0,), start_from='scratch'),
      pretraining.tuned('imagenet_jft', f'{target},init=random{tiny}'),
    ]
    init = 'random'  # start_from says it
  else:
    start, init = {}, pretraining.as_path(arg.jft_checkpoint)
  runs += [
    dict(name='tuned_jft', config=f'{target},init={init}{tiny}', **start),
    dict(
      name='frozen_jft',
      config=f'{target},init={init},freeze=backbone{tiny}',
      **start,
    ),
  ]
  if arg.weights:
    path = pretraining.as_path(arg.weights)
    runs.append(
      dict(
        name='tuned_weights',
        config=f'{target},init={path},layout=torch{tiny}',
      )
    )
  return runs


def _report(c, real):
  """Table 1, its curves, and Figure 3."""
  names = [run['name'] for run in c.runs]
  targets = [name for name in _TARGETS if name in names]
  rows = [dict(run=n, published=_PUBLISHED.get(n, {})) for n in targets]
  msra = dict(title='MSRA checkpoint', published=_PUBLISHED['msra'])
  c.tables = [
    dict(
      name='table1',
      title='Table 1',
      text=_TABLE_TEXT,
      rows=[msra, *rows],
      columns=[
        dict(metric='val/top1', title='top-1'),
        dict(metric='val/top5', title='top-5'),
      ],
      baseline='scratch',
      published=PAPER
      + ('' if real else '; not comparable with the synthetic world'),
    )
  ]
  c.figures = [
    dict(
      name='top1',
      kind='bars',
      metric='val/top1',
      runs=targets,
      title='Top-1 by initialisation',
    ),
    dict(
      name='top1_curves',
      kind='curves',
      metric='val/top1',
      runs=targets,
      title='Top-1 over training steps on the target',
    ),
  ]
  pretrained = [
    name for name in ('jft', 'jft_long', 'imagenet_jft') if name in names
  ]
  if pretrained:  # not of a checkpoint that is there already
    c.figures.append(
      dict(
        name='figure3',
        kind='curves',
        metric='fasteval/map@100',
        runs=pretrained,
        title='Figure 3: mAP@100 of pretraining, from random weights and from '
        "ImageNet's",
      )
    )


_SYNTHETIC_TEXT = """
A net of 1.3M parameters stands in for ResNet-101, synthetic worlds for the
data sets: 300M is 128,000 images of 200 classes whose labels are incomplete
and wrong in 20% of the cases, completed through the hierarchy, for 2 epochs;
ImageNet is 1,250 images of 100 classes with one right label each, for 28
epochs; so 300M has 102 times the images and 7 times the steps, where the paper
has 234 and 7.2. ImageNet+300M has the steps of both; 300M for as many stands
beside it. The target has 60 other classes, other looks, and few clean images
of one object each, where one label is all that is true: it is neither the task
of ImageNet, the largest of several objects, nor that of 300M, all of them.

All runs on the target have the same length and schedule. Each start has a rate
of its own, chosen on other images than those of the table.
"""
_REAL_TEXT = """
The recipes of the paper: from scratch 5M steps at a rate of 0.05, fine-tuning
4M steps at 0.001 (or the same numbers of examples in large batches).
"""
_TABLE_TEXT = """Single crops of the target's evaluation set. Fine-tuned: all
layers are trained, with a new classifier. Frozen: only the classifier is."""
