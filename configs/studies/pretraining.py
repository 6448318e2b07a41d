"""Runs that pretrain: what the studies of transfer start from.

Sun et al. 2017 compare three starts on every target: `ImageNet`, clean and
small, `300M`, noisy and large, and `ImageNet+300M`, the second from the first.
In the synthetic world the first is 1,250 clean images trained to their plateau,
the second 128,000 noisy ones for 2 epochs: about 100 times the images and 7
times the steps, of the order of the paper's (234 and 7.2). ImageNet+300M has
the steps of both, so beside it stands 300M for as many (`jft_long`). The world
of the quickstart (seed 0) is noisy, world 2 is clean, targets take others.

A start has a rate of its own, the best of several on a split that no table or
figure reports; the report shows the search.
"""

import math

from configs import common, studies

# What a start is worth depends on the rate: of each, the best of these.
RATES = '0.003,0.01,0.03'
SEARCHED_ON = 'fasteval'  # the split; figures are those of 'val'
SEARCH_SEEDS = (100,)  # not those that are reported
BATCH_SIZE = 32  # of pretraining
# Images of runs on fewer than all, nested: in the synthetic world, and of 300M.
SYNTHETIC_SIZES = (2000, 8000, 32_000)
REAL_SIZES = {'10M': 10**7, '30M': 3 * 10**7, '100M': 10**8}
ALL_IMAGES = 3 * 10**8
# Arguments of the studies of the synthetic world.
ARGUMENTS = dict(
  imagenet_images=1250,
  imagenet_steps=1100,
  jft_images=128_000,
  jft_epochs=2.0,
  val_images=2000,
  replicate=False,
)
STARTS = ('imagenet', 'jft', 'imagenet_jft', 'jft_long')
TITLES = {
  'jft': '300M',
  'imagenet': 'ImageNet',
  'imagenet_jft': 'ImageNet+300M',
  'jft_long': '300M, as many steps as ImageNet+300M',
  'scratch': 'from scratch',
  'tuned_imagenet': 'ImageNet, fine-tuned',
  'tuned_jft': '300M, fine-tuned',
  'tuned_imagenet_jft': 'ImageNet+300M, fine-tuned',
  'tuned_jft_long': '300M, as many steps as ImageNet+300M, fine-tuned',
  'tuned_weights': 'imported weights, fine-tuned',
}


def study(arg, what, real, *, searched=None):
  """A study without its runs: title and seeds, by the arguments of both.

  Args:
    arg: of the study.
    what: it compares.
    real: whether on real data.
    searched: whether its rates are searched; None: unless on real data.
  """
  counts = ('images', 'steps', 'val_images', 'jft_images')
  if 'imagenet_images' in arg:
    counts += 'imagenet_images', 'imagenet_steps'
  common.at_least_one(**{name: arg[name] for name in counts})
  if arg.jft_epochs <= 0:
    raise ValueError(f'config argument jft_epochs={arg.jft_epochs} must be > 0')
  _check_rates(arg, not real if searched is None else searched)
  c = studies.base(
    f'What pretraining on noisy data buys: {what}'
    + ('' if real else ' in the synthetic world')
  )
  num_seeds = arg.seeds or (1 if real or arg.tiny else 3)
  common.at_least_one(seeds=num_seeds)
  c.seeds = tuple(range(num_seeds))
  return c


def _check_rates(arg, searched):
  """Refuses rates that are none, or that nothing asks for."""
  for name in ('rates', *(name for name in arg if name.startswith('lr_'))):
    if arg[name] and not searched:
      raise ValueError(
        f'config argument {name} is for the synthetic world: real data have '
        "the paper's rates"
      )
    if name != 'rates' and arg[name] < 0:
      raise ValueError(f'config argument {name}={arg[name]} must be > 0')
  rates(arg)


def jft_steps(arg, images):
  """Steps of `jft_epochs` epochs of so many images."""
  return max(round(arg.jft_epochs * images / BATCH_SIZE), 1)


def synthetic(arg):
  """The four runs: clean images, noisy ones, these from those, and longer."""
  clean = (
    f'configs/synthetic_transfer.py:{_tiny(arg)}world=2,classes=100,'
    f'images={arg.imagenet_images},steps={arg.imagenet_steps}'
  )
  steps = jft_steps(arg, arg.jft_images)
  jft = synthetic_jft(arg, 'jft', arg.jft_images, steps)
  return [
    jft,
    dict(name='imagenet', config=clean, **_once(arg)),
    dict(jft, name='imagenet_jft', start_from='imagenet'),
    synthetic_jft(arg, 'jft_long', arg.jft_images, steps + arg.imagenet_steps),
  ]


def synthetic_jft(arg, name, images, steps):
  """A run on so many images of the noisy world."""
  config = f'configs/quickstart.py:{_tiny(arg)}images={images},steps={steps}'
  # What the quickstart expects is for its own start and length.
  return dict(
    name=name, config=config, overrides=dict(expected={}), **_once(arg)
  )


def _once(arg):
  """Pretraining runs once, or, to be replicated, once a seed of the target."""
  return {} if arg.replicate else dict(seeds=(0,))


def _tiny(arg):
  return 'tiny,' if arg.tiny else ''


def rate_arguments(*starts):
  """Config arguments: lr_START, a rate in place of the search, and `rates`."""
  return {**{f'lr_{start}': 0.0 for start in starts}, 'rates': ''}


def rates(arg, default=RATES):
  """The rates that are tried, ascending; with `tiny` the first two."""
  text = arg.rates or default
  try:
    found = sorted(map(float, text.split(',')))
    if not all(0 < rate < math.inf for rate in found):
      raise ValueError
  except ValueError:
    raise ValueError(
      f'config argument rates={text!r} must be numbers > 0 with commas between'
    ) from None
  if len(set(found)) < len(found):
    raise ValueError(f'config argument rates={text!r} has a rate twice')
  return found[:2] if arg.tiny else found


def search_one(arg, rate, *, default=RATES):
  """Leaves one search, or '' none, to a `tiny` study.

  Other starts get the lowest rate.
  """
  for name in arg:
    if name.startswith('lr_') and name != f'lr_{rate}' and not arg[name]:
      arg[name] = rates(arg, default)[0]


def shortened(runs, names):
  """The runs named, and those of their searches."""
  kept = [run for run in runs if run['name'] in names]
  searched = {n for run in kept for n in run.get('best_of', {}).get('runs', ())}
  return [run for run in runs if run['name'] in {*names, *searched}]


def arm(arg, name, start, target, rate, metric, *, default=RATES):
  """A run on the target, at the best rate of its start.

  Args:
    arg: of the study.
    name: of the run.
    start: the pretraining run, or '' for none.
    target: config with its arguments.
    rate: name of the start in the arguments lr_START.
    metric: by which the best is chosen.
    default: rates that are tried where none are given.
  """
  run = dict(name=name, config=target, **_from(start))
  return at_rate(arg, run, rate, metric, default=default)


def at_rate(arg, run, rate, metric, *, default=RATES):
  """The run at the rate lr_START, or else at the best that its search found."""
  if arg[f'lr_{rate}']:
    return dict(run, config=f'{run["config"]},lr={arg[f"lr_{rate}"]:g}')
  names = [_searched(rate, lr) for lr in rates(arg, default)]
  return dict(run, best_of=dict(runs=names, metric=metric))


def search(arg, start, target, rate, *, default=RATES):
  """Runs on the target at all rates, scored on the split of the search.

  None where the rate is given; see `arm` for the arguments.
  """
  run = dict(config=f'{target},split={SEARCHED_ON}', **_from(start))
  own = start == '' or not arg.replicate
  return at_rates(
    arg, dict(run, seeds=SEARCH_SEEDS if own else (0,)), rate, default=default
  )


def at_rates(arg, run, rate, *, default=RATES):
  """The candidates of a search: the run at all rates; none if one is given."""
  if arg[f'lr_{rate}']:
    return []
  return [
    dict(
      run,
      name=_searched(rate, lr),
      title=f'{rate}, rate {lr:g}',
      config=f'{run["config"]},lr={lr:g}',
      axes=dict(rate=lr, start=rate),
    )
    for lr in rates(arg, default)
  ]


def _searched(rate, lr):
  return f'rate_{rate}_{lr:g}'


def _from(start):
  return dict(start_from=start) if start else {}


def tuned(name, target):
  """The run on the target that starts from `name`."""
  return dict(name=f'tuned_{name}', config=target, start_from=name)


def imagenet(arg):
  """Config of the run on ImageNet, the paper's baseline."""
  return f'configs/imagenet_resnet.py:path={arg.imagenet},{_depth(arg)}'


def jft(arg, more=''):
  """Config of a run on JFT; `more` arguments of configs/jft_resnet.py."""
  large = '_large_batch' if arg.recipe == 'accelerator' else ''
  return f'configs/jft_resnet{large}.py:path={arg.jft},{_depth(arg)}{more}'


def as_path(path):
  """A path as the argument `init` of a config takes it: with a slash."""
  return path if path.startswith('/') else f'./{path}'


def _depth(arg):
  return f'depth={arg.depth}{",tiny" if arg.tiny else ""}'
