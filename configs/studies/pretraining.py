"""Runs that pretrain: what the studies of transfer start from.

Sun et al. 2017 compare three starts on every target: `ImageNet`, clean and
small, `300M`, noisy and large, and `ImageNet+300M`, the second from the first.
In the synthetic world the first is 1,250 clean images trained to their plateau,
the second 128,000 noisy ones for 2 epochs: about 100 times the images and 7
times the steps, of the order of the paper's (234 and 7.2). ImageNet+300M has
the steps of both, so beside it stands 300M for as many (`jft_long`). The world
of the quickstart (seed 0) is noisy, world 2 is clean, targets take others.

A start has a rate of its own, the best of `RATES` on a split that no table or
figure reports; the report shows the search.
"""

from configs import common, studies

# What a start is worth depends on the rate: of each, the best of these.
RATES = (0.003, 0.01, 0.03)
SEARCHED_ON = 'fasteval'  # the split; figures are those of 'val'
SEARCH_SEEDS = (100,)  # not those that are reported
BATCH_SIZE = 32  # of pretraining
# Images of runs on fewer than all, nested: in the synthetic world, and of 300M.
SYNTHETIC_SIZES = (2000, 8000, 32_000)
REAL_SIZES = {'10M': 10**7, '30M': 3 * 10**7, '100M': 10**8}
ALL_IMAGES = 3 * 10**8
# Arguments of the studies of the synthetic world. Rates are by start; they are
# what the search of a former run found, or a guess where there was none.
ARGUMENTS = dict(
  imagenet_images=1250,
  imagenet_steps=1100,
  jft_images=128_000,
  jft_epochs=2.0,
  val_images=2000,
  replicate=False,
  search=False,
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


def study(arg, what, real):
  """A study without its runs: title and seeds, by the arguments of both."""
  counts = ('images', 'steps', 'val_images', 'jft_images')
  if 'imagenet_images' in arg:
    counts += 'imagenet_images', 'imagenet_steps'
  common.at_least_one(**{name: arg[name] for name in counts})
  if arg.jft_epochs <= 0:
    raise ValueError(f'config argument jft_epochs={arg.jft_epochs} must be > 0')
  if real and arg.search:
    raise ValueError(
      'config argument search is for the synthetic world: real data have the '
      "paper's rates"
    )
  c = studies.base(
    f'What pretraining on noisy data buys: {what}'
    + ('' if real else ' in the synthetic world')
  )
  num_seeds = arg.seeds or (1 if real or arg.tiny else 3)
  common.at_least_one(seeds=num_seeds)
  c.seeds = tuple(range(num_seeds))
  return c


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


def rate_arguments(**starts):
  """Config arguments lr_START for the rates of starts."""
  return {f'lr_{start}': rate for start, rate in starts.items()}


def arm(arg, name, start, target, rate):
  """A run on the target, at the rate of its start.

  Args:
    arg: of the study.
    name: of the run.
    start: the pretraining run, or '' for none.
    target: config with its arguments.
    rate: name of the start in the arguments lr_START.
  """
  config = f'{target},lr={arg[f"lr_{rate}"]:g},val_images={arg.val_images}'
  return dict(name=name, config=config, **_from(start))


def search(arg, start, target, rate):
  """Runs on the target at all rates, scored on the split of the search."""
  config = f'{target},split={SEARCHED_ON},val_images={arg.val_images}'
  return [
    dict(
      name=f'rate_{rate}_{lr:g}',
      title=f'{rate}, rate {lr:g}',
      config=f'{config},lr={lr:g}',
      seeds=SEARCH_SEEDS if start == '' or not arg.replicate else (0,),
      axes=dict(rate=lr, start=rate),
      **_from(start),
    )
    for lr in RATES
  ]


def _from(start):
  return dict(start_from=start) if start else {}


def keep_the_search(c, metric, what):
  """Leaves pretraining and the search alone in a study; rates follow later."""
  c.runs = [
    run
    for run in c.runs
    if run['name'].startswith(('rate_', 'jft', 'imagenet'))
  ]
  c.tables = []
  c.figures = search_figures(c.runs, metric, what)


def search_figures(runs, metric, what):
  """The search in the report, where the runs have one."""
  names = [run['name'] for run in runs if run['name'].startswith('rate_')]
  if not names:
    return []
  figure = dict(
    name='rates',
    kind='sweep',
    metric=metric,
    runs=names,
    x='rate',
    group='start',
    log_x=True,
    title=f'The search for rates: {what} by start, on the split {SEARCHED_ON}',
    text='Not among the results: other images of the target, and a seed of '
    'their own.',
  )
  return [figure]


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
