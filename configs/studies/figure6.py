"""Figure 6 as a study: what pretraining buys for segmentation (section 5.3).

Sun et al. 2017: DeepLab-ASPP-L on VOC 2012. Left: mean IoU by initialisation;
300M beats ImageNet by 1.7 points, ImageNet+300M by 2.9. Right: mean IoU over
the number of images that were pretrained on, which grows logarithmically. Here
with a row from scratch besides.

On the synthetic world, in two hours and with nothing to download:

  python -m tools.study --config configs/studies/figure6.py --workdir workdirs/figure6

Pretraining is that of configs/studies/table1.py; the target 500 images of a
third world. The right half has nested sets of 300M for as many epochs each, as
in the paper, and as a control for as many steps each. Arguments:

  seeds=3             of the target runs; pretraining runs once
  replicate=false     true: pretraining too, once a seed
  images=500, steps=300 (of 16)   of the target's training set
  val_images=2000     of its evaluation
  imagenet_images=1250, imagenet_steps=1100, jft_images=128000, jft_epochs=2
  equal_steps=2000    of the control
  rates=0.003,0.01,0.03   each start takes the best of these on other images;
      that of 300M is that of all its sizes
  lr_scratch, lr_imagenet, lr_jft, lr_imagenet_jft, lr_jft_long   a rate in place
      of the search of that start
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
  'scratch', 'tuned_weights', 'tuned_imagenet', 'tuned_jft', 'tuned_jft_long',
  'tuned_imagenet_jft',
)  # fmt: skip
_EQUAL = '_equal'  # ends the names of runs of the control
_TINY = ('jft', 'jft_2000', 'scratch', 'tuned_jft', 'tuned_jft_2000')


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
    steps=300,
    equal_steps=2000,
    **pretraining.ARGUMENTS,
    **pretraining.rate_arguments('scratch', *pretraining.STARTS),
    sweep=True,
    tiny=False,
  )
  common.at_least_one(equal_steps=arg.equal_steps)
  _check(arg)
  real = bool(arg.voc)
  c = pretraining.study(arg, 'semantic segmentation', real)
  c.text = _REAL_TEXT if real else _SYNTHETIC_TEXT
  if arg.tiny and not real:
    pretraining.search_one(arg, 'jft')
  runs = _real_runs(arg) if real else _synthetic_runs(arg)
  if arg.tiny and not real:
    runs = pretraining.shortened(runs, _TINY)
  c.runs = [dict(dict(title=_title(r['name'])), **r) for r in runs]
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
    f'images={arg.images},steps={arg.steps},val_images={arg.val_images}'
  )
  runs = pretraining.synthetic(arg)
  runs.append(pretraining.arm(arg, 'scratch', '', target, 'scratch', _METRIC))
  for name in pretraining.STARTS:
    run = pretraining.arm(arg, f'tuned_{name}', name, target, name, _METRIC)
    if name == 'jft' and arg.sweep:
      run = dict(run, axes={_AXIS: arg.jft_images})
    runs.append(run)
  if arg.sweep:
    runs += _sizes(arg, target)
  for rate in ('scratch', *pretraining.STARTS):
    start = '' if rate == 'scratch' else rate
    runs += pretraining.search(arg, start, target, rate)
  return runs


def _sizes(arg, target):
  """300M of fewer images: for as many epochs, and all for as many steps."""
  planned = []
  for num in (*pretraining.SYNTHETIC_SIZES, arg.jft_images):
    if num > arg.jft_images:
      continue
    steps = pretraining.jft_steps(arg, num)
    name = 'jft' if num == arg.jft_images else f'jft_{num}'
    if name != 'jft':
      planned.append((name, num, steps))
    if steps != arg.equal_steps:  # else that run is its own control
      planned.append((f'{name}{_EQUAL}', num, arg.equal_steps))
  runs = []
  for name, num, steps in planned:
    tuned = pretraining.arm(arg, f'tuned_{name}', name, target, 'jft', _METRIC)
    runs += [
      pretraining.synthetic_jft(arg, name, num, steps),
      dict(tuned, axes={_AXIS: min(num, steps * pretraining.BATCH_SIZE)}),
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
      dict(
        pretraining.tuned('jft', warm), axes={_AXIS: pretraining.ALL_IMAGES}
      ),
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
    for size, num in pretraining.REAL_SIZES.items():
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
  if name.endswith(_EQUAL):
    return f'{_title(name.removesuffix(_EQUAL))}, equal steps'
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
  sweep = [r['name'] for r in c.runs if _AXIS in r.get('axes', {})]
  nested = [name for name in sweep if not name.endswith(_EQUAL)]
  sizes = dict(
    name='data_size',
    kind='sweep',
    metric=_METRIC,
    runs=nested,
    x=_AXIS,
    log_x=True,
    fit=True,
    title='Figure 6, right: mean IoU by the number of images pretrained on',
    text='' if real else _SWEEP_TEXT,
  )
  equal = dict(
    sizes,
    name='data_size_equal_steps',
    runs=[n + _EQUAL if n + _EQUAL in sweep else n for n in nested],
    title='The control: as many steps of pretraining for all sizes',
    text=_EQUAL_TEXT,
  )
  curves = dict(
    name='curves',
    kind='curves',
    metric=_METRIC,
    runs=arms,
    title='Mean IoU over training steps on the target',
  )
  c.figures = [
    bars, *([sizes] if len(nested) > 1 else []),
    *([equal] if any(n.endswith(_EQUAL) for n in sweep) else []), curves,
  ]  # fmt: skip


_SYNTHETIC_TEXT = """
A ResNet-14 of width 24 stands in for ResNet-101, synthetic worlds for the
data sets: 300M is 128,000 images of 200 classes whose labels are incomplete
and wrong in 20% of the cases, completed through the hierarchy, for 2 epochs;
ImageNet is 1,250 images of 100 classes with one right label each, for 28
epochs; so 300M has 102 times the images and 7 times the steps, where the paper
has 234 and 7.2. ImageNet+300M has the steps of both; 300M for as many stands
beside it. The target has 20 other classes, other looks, and few images, with a
class for every pixel, which is the task of neither.

All runs on the target have the same length and schedule, and all train batch
norm. Each start has a rate of its own, chosen on other images than those of
the table.
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
_SWEEP_TEXT = """As in the paper each set is seen for as many epochs, so that
more images are more steps too; the sets are nested."""
_EQUAL_TEXT = """More images at as many steps are seen less often: what is left
of the gain is that of their variety alone."""
