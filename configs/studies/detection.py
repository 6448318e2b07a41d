"""What studies of detection share: starts, arms, real data; no study itself.

Sun et al. 2017, section 5.2: Faster R-CNN from four starts,
one recipe for all of them. In the synthetic world pretraining is that of
configs/studies/pretraining.py and the target configs/synthetic_detection.py.
"""

from configs import common
from configs.studies import pretraining

RATES = dict.fromkeys(('scratch', *pretraining.STARTS), 0.02)
ARGUMENTS = dict(
  jft='',
  imagenet='',
  jft_checkpoint='',
  imagenet_checkpoint='',
  weights='',
  depth=(101, 50, 152),
  preset=('paper', 'tfod'),
  recipe=('literal', 'accelerator'),
  seeds=0,
  images=500,
  steps=600,
  **pretraining.ARGUMENTS,
  **pretraining.rate_arguments(**RATES),
  tiny=False,
)
ARMS = (
  'scratch', 'tuned_weights', 'tuned_imagenet', 'tuned_jft', 'tuned_jft_long',
  'tuned_imagenet_jft',
)  # fmt: skip
_STARTS = (
  'jft', 'jft_checkpoint', 'imagenet', 'imagenet_checkpoint', 'weights'
)  # fmt: skip
_TINY = ('jft', 'scratch', 'tuned_jft', 'rate_scratch_0.01')


def study(arg, target, texts):
  """A study of the arms, without tables and figures.

  Args:
    arg: `ARGUMENTS` and the argument of the target, parsed.
    target: name of that argument, 'coco' or 'voc'; its config is
      configs/TARGET_detection.py.
    texts: of the report, on real data and in the synthetic world.
  """
  _check(arg, target)
  real = bool(arg[target])
  c = pretraining.study(arg, 'object detection', real)
  c.text = texts[0] if real else texts[1]
  runs = _real_runs(arg, target) if real else _synthetic_runs(arg)
  if arg.tiny and not real:
    runs = [run for run in runs if run['name'] in _TINY]
  titles = pretraining.TITLES
  c.runs = [dict(dict(title=titles.get(r['name'], '')), **r) for r in runs]
  return c


def arms(c):
  """Names of the runs on the target, in the order of tables."""
  names = [run['name'] for run in c.runs]
  return [name for name in ARMS if name in names]


def baseline(names):
  """The run that gains are over: ImageNet's, as in the paper."""
  return 'tuned_imagenet' if 'tuned_imagenet' in names else 'scratch'


def _check(arg, target):
  """Refuses data that are given twice, or that have no target."""
  given = [name for name in _STARTS if arg[name]]
  if given and not arg[target]:
    raise ValueError(
      f'config argument {given[0]} needs {target}=DIR, the target'
    )
  if arg[target] and not given:
    raise ValueError(
      f'config argument {target}=DIR needs one of {", ".join(_STARTS)}, to '
      'start from'
    )
  for name in ('jft', 'imagenet'):
    if arg[name] and arg[f'{name}_checkpoint']:
      raise ValueError(
        f'config arguments {name} and {name}_checkpoint: give one of the two'
      )


def _synthetic_runs(arg):
  """12 classes of a third world as target, all batch norm trained."""
  target = (
    f'configs/synthetic_detection.py:{"tiny," if arg.tiny else ""}world=1,'
    f'images={arg.images},steps={arg.steps}'
  )
  runs = pretraining.synthetic(arg)
  starts = [('scratch', ''), *((name, name) for name in pretraining.STARTS)]
  for rate, start in starts:
    name = f'tuned_{start}' if start else 'scratch'
    runs.append(pretraining.arm(arg, name, start, target, rate))
  for rate, start in starts:
    runs += pretraining.search(arg, start, target, rate)
  return runs


def _real_runs(arg, target):
  """The paper's recipes; from scratch batch norm is trained."""
  tiny = ',tiny' if arg.tiny else ''
  base = (
    f'configs/{target}_detection.py:path={arg[target]},depth={arg.depth},'
    f'preset={arg.preset},recipe={arg.recipe}{tiny}'
  )
  # start_from says the start; without any `init` batch norm is trained.
  warm = f'{base},init=jft'
  runs = [dict(name='scratch', config=f'{base},init=random')]
  if arg.imagenet:
    runs += [
      dict(name='imagenet', config=pretraining.imagenet(arg), seeds=(0,)),
      pretraining.tuned('imagenet', warm),
    ]
  if arg.jft:
    runs += [
      dict(name='jft', config=pretraining.jft(arg), seeds=(0,)),
      pretraining.tuned('jft', warm),
      *_both(arg, warm),
    ]
  for name in ('imagenet', 'jft'):
    path = arg[f'{name}_checkpoint']
    if path:
      init = pretraining.as_path(path)
      runs.append(dict(name=f'tuned_{name}', config=f'{base},init={init}'))
  if arg.weights:
    init = f'{pretraining.as_path(arg.weights)},layout=torch'
    runs.append(dict(name='tuned_weights', config=f'{base},init={init}'))
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


def finish(c, arg, metric, what):
  """Adds bars, curves and the search to the report, and locks it."""
  names = arms(c)
  figure = dict(metric=metric, runs=names)
  c.figures = [
    dict(
      figure, name='initialisation', kind='bars',
      title=f'{what} by initialisation',
    ),
    dict(
      figure, name='curves', kind='curves',
      title=f'{what} over training steps on the target',
    ),
    *pretraining.search_figures(c.runs, metric, what),
  ]  # fmt: skip
  if arg.search:
    pretraining.keep_the_search(c, metric, what)
  c.lock()
  return c


def parse(arg, target):
  """The arguments of a study on `target`."""
  return common.parse(arg, **{target: ''}, **ARGUMENTS)


SYNTHETIC_TEXT = """
A ResNet-14 of width 24 stands in for ResNet-101, synthetic worlds for the data
sets: 300M is 128,000 images of 200 classes whose labels are incomplete and
wrong in 20% of the cases, completed through the hierarchy, for 2 epochs;
ImageNet is 1,250 images of 100 classes with one right label each, for 28
epochs; so 300M has 102 times the images and 7 times the steps, where the paper
has 234 and 7.2. ImageNet+300M has the steps of both; 300M for as many stands
beside it. The target has 12 other classes, other looks, and few images, with a
box around every object.

All runs on the target have the same length and schedule, and all train batch
norm. Each start has a rate of its own, chosen on other images than those of
the table.
"""
