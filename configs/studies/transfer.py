"""What studies of a target share: starts, arms, real data; no study itself.

Sun et al. 2017, sections 5.2 and 5.4: one net from four starts, one recipe for
all of them but the rate. In the synthetic world pretraining is that of
configs/studies/pretraining.py.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from configs import common
from configs.studies import pretraining

ARMS = (
  'scratch', 'tuned_weights', 'tuned_imagenet', 'tuned_jft', 'tuned_jft_long',
  'tuned_imagenet_jft',
)  # fmt: skip
_STARTS = (
  'jft', 'jft_checkpoint', 'imagenet', 'imagenet_checkpoint', 'weights'
)  # fmt: skip
_TINY = ('jft', 'scratch', 'tuned_jft')
_ARGUMENTS: dict[str, Any] = dict(
  jft='',
  imagenet='',
  jft_checkpoint='',
  imagenet_checkpoint='',
  weights='',
  depth=(101, 50, 152),
  recipe=('literal', 'accelerator'),
  seeds=0,
  images=500,
  steps=600,
  **pretraining.ARGUMENTS,
  **pretraining.rate_arguments('scratch', 'weights', *pretraining.STARTS),
  tiny=False,
)


@dataclasses.dataclass(frozen=True)
class Target:
  """A task, in the synthetic world and on real data.

  Attributes:
    name: of the config argument that holds the real data.
    task: for the title, 'object detection'.
    synthetic, real: config files.
    metric, title: the figure that decides between rates and is drawn.
    more: arguments of the real config that the study has too, with defaults.
    rates: tried in the synthetic world.
    real_rates: tried on real data; '': the paper's own rate, no search.
    held_out: overrides of the real config's runs of a search, which train on a
      part of the training images and are scored on the rest.
  """

  name: str
  task: str
  synthetic: str
  real: str
  metric: str
  title: str
  more: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  rates: str = pretraining.RATES
  real_rates: str = ''
  held_out: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def parse(arg, target):
  """The arguments of a study of the target."""
  return common.parse(arg, **{target.name: ''}, **target.more, **_ARGUMENTS)


def study(arg, target, texts):
  """A study of the arms, without tables and figures.

  Args:
    arg: of `parse`.
    target: what is compared.
    texts: of the report, on real data and in the synthetic world.
  """
  _check(arg, target)
  real = bool(arg[target.name])
  searched = not real or bool(target.real_rates)
  c = pretraining.study(arg, target.task, real, searched=searched)
  c.text = texts[0] if real else texts[1]
  if real:
    runs = _real_runs(arg, target)
  else:
    _refuse_rates(arg, ('scratch', *pretraining.STARTS))
    if arg.tiny:
      pretraining.search_one(arg, 'jft', default=target.rates)
    runs = _synthetic_runs(arg, target)
  if arg.tiny and not real:
    runs = pretraining.shortened(runs, _TINY)
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


def finish(c, target):
  """Adds bars and curves to the report, and locks it."""
  figure = dict(metric=target.metric, runs=arms(c))
  c.figures = [
    dict(
      figure, name='initialisation', kind='bars',
      title=f'{target.title} by initialisation',
    ),
    dict(
      figure, name='curves', kind='curves',
      title=f'{target.title} over training steps on the target',
    ),
  ]  # fmt: skip
  c.lock()
  return c


def _check(arg, target):
  """Refuses data that are given twice, or that have no target."""
  given = [name for name in _STARTS if arg[name]]
  if given and not arg[target.name]:
    raise ValueError(
      f'config argument {given[0]} needs {target.name}=DIR, the target'
    )
  if arg[target.name] and not given:
    raise ValueError(
      f'config argument {target.name}=DIR needs one of {", ".join(_STARTS)}, '
      'to start from'
    )
  for name in ('jft', 'imagenet'):
    if arg[name] and arg[f'{name}_checkpoint']:
      raise ValueError(
        f'config arguments {name} and {name}_checkpoint: give one of the two'
      )


def _refuse_rates(arg, starts):
  """A rate that is given is that of a start."""
  for name in arg:
    if name.startswith('lr_') and arg[name] and name[3:] not in starts:
      raise ValueError(
        f'config argument {name}: there is no such start; there are: '
        f'{", ".join(starts)}'
      )


def _synthetic_runs(arg, target):
  """Few images of a third world as target, all batch norm trained."""
  config = (
    f'{target.synthetic}:{"tiny," if arg.tiny else ""}world=1,'
    f'images={arg.images},steps={arg.steps},val_images={arg.val_images}'
  )
  runs = pretraining.synthetic(arg)
  starts = [('scratch', ''), *((name, name) for name in pretraining.STARTS)]
  for rate, start in starts:
    name = f'tuned_{start}' if start else 'scratch'
    runs.append(
      pretraining.arm(
        arg, name, start, config, rate, target.metric, default=target.rates
      )
    )
  for rate, start in starts:
    runs += pretraining.search(arg, start, config, rate, default=target.rates)
  return runs


def _real_runs(arg, target):
  """The paper's recipes; from scratch batch norm is trained."""
  pretrained, starts = _real_starts(arg)
  more = ''.join(f',{name}={arg[name]}' for name in target.more)
  base = (
    f'{target.real}:path={arg[target.name]},depth={arg.depth}{more},'
    f'recipe={arg.recipe}{",tiny" if arg.tiny else ""}'
  )
  tuned = {
    start: dict(given, config=f'{base},init={init}')
    for start, (init, given) in starts.items()
  }
  if not target.real_rates:
    return [*pretrained, *tuned.values()]
  _refuse_rates(arg, tuned)
  if arg.tiny:  # its data have no part to hold out
    pretraining.search_one(arg, '', default=target.real_rates)
  return [*pretrained, *_at_best_rates(arg, target, tuned)]


def _real_starts(arg):
  """(runs that pretrain, start -> (init of the config, other keys of the run)).

  Where another run says the start, `init` says that there is one: without it
  batch norm is trained.
  """
  runs = []
  starts = {'scratch': ('random', dict(name='scratch'))}
  if arg.imagenet:
    config = pretraining.imagenet(arg)
    runs.append(dict(name='imagenet', config=config, seeds=(0,)))
  if arg.jft:
    runs.append(dict(name='jft', config=pretraining.jft(arg), seeds=(0,)))
    runs += _both(arg)
  for run in runs:
    name = run['name']
    starts[name] = 'jft', dict(name=f'tuned_{name}', start_from=name)
  for name in ('imagenet', 'jft'):
    if path := arg[f'{name}_checkpoint']:
      starts[name] = pretraining.as_path(path), dict(name=f'tuned_{name}')
  if arg.weights:
    init = f'{pretraining.as_path(arg.weights)},layout=torch'
    starts['weights'] = init, dict(name='tuned_weights')
  return runs, starts


def _at_best_rates(arg, target, tuned):
  """The arms at the best rate of their starts, and the search for it.

  Candidates train on a part of the training images and are scored on the rest
  of them; the arms train on all.
  """
  given = dict(default=target.real_rates)
  runs, search = [], []
  for rate, run in tuned.items():
    runs.append(pretraining.at_rate(arg, run, rate, target.metric, **given))
    candidate = dict(
      run, overrides=dict(target.held_out), seeds=pretraining.SEARCH_SEEDS
    )
    search += pretraining.at_rates(arg, candidate, rate, **given)
  return [*runs, *search]


def _both(arg):
  """JFT after ImageNet, where there is an ImageNet."""
  if arg.imagenet:
    config, start = pretraining.jft(arg), {'start_from': 'imagenet'}
  elif arg.imagenet_checkpoint:
    path = pretraining.as_path(arg.imagenet_checkpoint)
    config, start = pretraining.jft(arg, f',init=imagenet,init_path={path}'), {}
  else:
    return []
  return [dict(name='imagenet_jft', config=config, seeds=(0,), **start)]
