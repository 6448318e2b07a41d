"""Figure 6 as a study: what pretraining buys for segmentation (section 5.3).

Sun et al. 2017: DeepLab-ASPP-L on VOC 2012. Left: mean IoU by initialisation;
300M beats ImageNet by 1.7 points, ImageNet+300M by 2.9. Right: mean IoU over
the number of images that were pretrained on, which grows logarithmically. Here
with a row from scratch besides.

On the synthetic world, in half an hour and with nothing to download:

  python -m tools.study --config configs/studies/figure6.py --workdir workdirs/figure6

Pretraining is that of configs/studies/table1.py; the target 500 images of a
third world. Arguments:

  seeds=3             of the target runs; pretraining runs once
  images=500          of the target's training set
  pretrain_steps=700 (of 32 images), steps=300 (of 16)
  sweep=true          the right of the figure

On real data, with the recipes of the paper:

  python -m tools.study --config \\
      configs/studies/figure6.py:voc=DIR,jft=DIR,imagenet=DIR --workdir workdirs/figure6

  voc                 as for configs/voc_segmentation.py; split=trainaug
  jft, imagenet       prepared records, as for configs/jft_resnet.py and
      configs/imagenet_resnet.py; what is not given has no row
  jft_checkpoint=DIR, imagenet_checkpoint=DIR   a workdir or checkpoint in place
      of pretraining
  weights=DIR         weights of torchvision or timm, converted (docs/weights.md):
      one more row
  depth=101|50|152, seeds=1, recipe=literal|accelerator (of pretraining on `jft`:
      configs/jft_resnet_large_batch.py)
  sweep=true          on `jft` also from 10M, 30M and 100M images

Hardware: 2 CPU cores for the synthetic world; the paper's: 50 K80 GPUs, two
months for `300M`.
"""  # noqa: E501

from configs import common
from configs.studies import pretraining

_METRIC = 'val/miou'
_AXIS = 'images_seen'  # distinct ones, in pretraining
_ARMS = (
  'scratch', 'tuned_weights', 'tuned_imagenet', 'tuned_jft',
  'tuned_imagenet_jft',
)  # fmt: skip
# Runs on fewer images: name of the size -> images.
_REAL_SIZES = {'10M': 10**7, '30M': 3 * 10**7, '100M': 10**8}
_SYNTHETIC_SIZES = {'300': 300, '1200': 1200}
_TINY = ('jft', 'jft_300', 'scratch', 'tuned_jft', 'tuned_jft_300')


def get_config(arg=None):
  """Arguments: see the module docstring, and tiny."""
  arg = common.parse(
    arg,
    voc='',
    split='trainaug',
    jft='',
    imagenet='',
    jft_checkpoint='',
    imagenet_checkpoint='',
    weights='',
    depth=(101, 50, 152),
    recipe=('literal', 'accelerator'),
    seeds=0,
    images=500,
    pretrain_steps=700,
    steps=300,
    sweep=True,
    tiny=False,
  )
  _check(arg)
  real = bool(arg.voc)
  c = pretraining.study(arg, 'semantic segmentation', real)
  c.text = _REAL_TEXT if real else _SYNTHETIC_TEXT
  runs = _real_runs(arg) if real else _synthetic_runs(arg)
  if arg.tiny and not real:
    runs = [run for run in runs if run['name'] in _TINY]
  c.runs = [dict(run, title=_title(run['name'])) for run in runs]
  _report(c, real)
  c.lock()
  return c


def _check(arg):
  """Refuses data that are given twice, or that have no target."""
  starts = (
    'jft', 'jft_checkpoint', 'imagenet', 'imagenet_checkpoint', 'weights'
  )  # fmt: skip
  given = [name for name in starts if arg[name]]
  if given and not arg.voc:
    raise ValueError(f'config argument {given[0]} needs voc=DIR, the target')
  if arg.voc and not given:
    raise ValueError(
      f'config argument voc=DIR needs one of {", ".join(starts)}, to start from'
    )
  for name in ('jft', 'imagenet'):
    if arg[name] and arg[f'{name}_checkpoint']:
      raise ValueError(
        f'config arguments {name} and {name}_checkpoint: give one of the two'
      )


def _synthetic_runs(arg):
  """Pretraining as for Table 1; 20 classes of a third world as target."""
  target = (
    f'configs/synthetic_segmentation.py:{"tiny," if arg.tiny else ""}world=1,'
    f'images={arg.images},steps={arg.steps}'
  )
  runs = pretraining.synthetic(arg.pretrain_steps, arg.tiny)
  seen = 32 * arg.pretrain_steps  # also as tiny, where nothing counts
  runs.append(dict(name='scratch', config=target))
  for name in ('imagenet', 'jft', 'imagenet_jft'):
    runs.append(pretraining.tuned(name, target))
  if arg.sweep:
    runs[-2]['axes'] = {_AXIS: min(seen, 100_000)}  # of 300M
    for size, num in _SYNTHETIC_SIZES.items():
      name = f'jft_{size}'
      runs += [
        pretraining.synthetic_jft(
          name, arg.pretrain_steps, arg.tiny, f',images={num}'
        ),
        dict(pretraining.tuned(name, target), axes={_AXIS: min(seen, num)}),
      ]
  return runs


def _real_runs(arg):
  """The paper's recipes; arms that start from nothing train batch norm."""
  target = (
    f'configs/voc_segmentation.py:path={arg.voc},split={arg.split},'
    f'depth={arg.depth}{",tiny" if arg.tiny else ""}'
  )
  warm = f'{target},init=random,bn=frozen'  # start_from says the start
  runs = [dict(name='scratch', config=f'{target},init=random')]
  if arg.imagenet:
    runs += [
      dict(name='imagenet', config=pretraining.imagenet(arg), seeds=(0,)),
      pretraining.tuned('imagenet', warm),
    ]
  if arg.jft:
    runs += [
      dict(name='jft', config=pretraining.jft(arg), seeds=(0,)),
      dict(pretraining.tuned('jft', warm), axes={_AXIS: 3 * 10**8}),
    ]
    runs += _both(arg, warm)
  for name in ('imagenet', 'jft'):
    path = arg[f'{name}_checkpoint']
    if path:
      init = pretraining.as_path(path)
      runs.append(dict(name=f'tuned_{name}', config=f'{target},init={init}'))
  if arg.weights:
    init = f'{pretraining.as_path(arg.weights)},layout=torch'
    runs.append(dict(name='tuned_weights', config=f'{target},init={init}'))
  if arg.jft and arg.sweep:
    for size, num in _REAL_SIZES.items():
      config = pretraining.jft(arg, f',num_images={num}')
      runs += [
        dict(name=f'jft_{size}', config=config, seeds=(0,)),
        dict(pretraining.tuned(f'jft_{size}', warm), axes={_AXIS: num}),
      ]
  return runs


def _both(arg, warm):
  """JFT after ImageNet, where there is an ImageNet."""
  if arg.imagenet:
    config, start = pretraining.jft(arg), {'start_from': 'imagenet'}
  elif arg.imagenet_checkpoint:
    path = pretraining.as_path(arg.imagenet_checkpoint)
    config, start = pretraining.jft(arg, f',init=imagenet,init_path={path}'), {}
  else:
    return []
  return [
    dict(name='imagenet_jft', config=config, seeds=(0,), **start),
    pretraining.tuned('imagenet_jft', warm),
  ]


def _title(name):
  """How the report calls a run; one of fewer images by their number."""
  if name in pretraining.TITLES:
    return pretraining.TITLES[name]
  tuned, _, size = name.rpartition('jft_')
  images = f'{int(size):,} images' if size.isdigit() else f'{size} images'
  return f'{images}, fine-tuned' if tuned else images


def _report(c, real):
  """The figure's two halves, the table of the left one, and curves."""
  names = [run['name'] for run in c.runs]
  arms = [name for name in _ARMS if name in names]
  baseline = 'tuned_imagenet' if 'tuned_imagenet' in arms else 'scratch'
  c.tables = [
    dict(
      name='figure6',
      title='Figure 6, left: mean IoU by initialisation',
      text=_TABLE_TEXT + ('' if real else _NOT_COMPARABLE),
      rows=arms,
      columns=[
        dict(metric=_METRIC, title='mean IoU'),
        dict(metric='val/pixel_accuracy', title='pixel accuracy'),
      ],
      baseline=baseline,
    )
  ]
  bars = dict(
    name='initialisation',
    kind='bars',
    metric=_METRIC,
    runs=arms,
    title='Figure 6, left: mean IoU by initialisation',
  )
  sweep = [run['name'] for run in c.runs if run.get('axes')]
  sizes = dict(
    name='data_size',
    kind='sweep',
    metric=_METRIC,
    runs=sweep,
    x=_AXIS,
    log_x=True,
    fit=True,
    title='Figure 6, right: mean IoU by the number of images pretrained on',
    text='' if real else _SWEEP_TEXT,
  )
  curves = dict(
    name='curves',
    kind='curves',
    metric=_METRIC,
    runs=arms,
    title='Mean IoU over training steps on the target',
  )
  c.figures = [bars, sizes, curves] if len(sweep) > 1 else [bars, curves]


_SYNTHETIC_TEXT = """
A ResNet-14 of width 24 stands in for ResNet-101, synthetic worlds for the
data sets: 300M is 100,000 images of 200 classes whose labels are incomplete
and wrong in 20% of the cases, completed through the hierarchy; ImageNet is
10,000 images of 100 classes with one right label each; the target has 20 other
classes, other looks, and few images, with a class for every pixel.

All runs on the target have the same length, rate and schedule, chosen for
training from scratch, and all train batch norm; they differ in their start.
"""
_REAL_TEXT = """
The recipe of the paper: 513x513 pixels, 30,000 steps of 6 images, rate 0.001
falling to 0 by a polynomial, batch norm as the checkpoint has it. From scratch
there is no such thing: that run trains it. Pretraining is 4 epochs of 300M (and
of fewer images), 5M steps on ImageNet.
"""
_TABLE_TEXT = """Mean IoU of all classes and the background, at the original
size of the evaluation set. The paper, on VOC 2012 val: 300M is 1.7 points
better than ImageNet, ImageNet+300M 2.9 points (Sun et al. 2017, Figure 6)."""
_NOT_COMPARABLE = ' Not comparable with the synthetic world.'
_SWEEP_TEXT = """All pretraining runs have the same number of steps, so that
fewer images are seen more often; the paper has 4 epochs of each, which would
be too few steps here. 300M is counted by the images that it sees: its run ends
within the first epoch. Pretraining has one seed, dots are seeds of the
target."""
