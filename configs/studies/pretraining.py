"""Runs that pretrain: what the studies of transfer start from.

Sun et al. 2017 compare three starts on every target: `ImageNet`, clean and
small, `300M`, noisy and large, and `ImageNet+300M`, the second from the first.
In the synthetic world each is a run of a minute or two; the world of the
quickstart (seed 0) is noisy, world 2 is clean, and targets take others.
"""

from configs import common, studies

TITLES = {
  'jft': '300M',
  'imagenet': 'ImageNet',
  'imagenet_jft': 'ImageNet+300M',
  'scratch': 'from scratch',
  'tuned_imagenet': 'ImageNet, fine-tuned',
  'tuned_jft': '300M, fine-tuned',
  'tuned_imagenet_jft': 'ImageNet+300M, fine-tuned',
  'tuned_weights': 'imported weights, fine-tuned',
}


def study(arg, what, real):
  """A study without its runs: title and seeds, by the arguments of both."""
  common.at_least_one(
    images=arg.images, pretrain_steps=arg.pretrain_steps, steps=arg.steps
  )
  c = studies.base(
    f'What pretraining on noisy data buys: {what}'
    + ('' if real else ' in the synthetic world')
  )
  num_seeds = arg.seeds or (1 if real or arg.tiny else 3)
  common.at_least_one(seeds=num_seeds)
  c.seeds = tuple(range(num_seeds))
  return c


def synthetic(steps, tiny=False):
  """The three runs: 200 noisy classes, 100 clean ones, the first from these."""
  clean = (
    f'configs/synthetic_transfer.py:{"tiny," if tiny else ""}world=2,'
    f'classes=100,images=10000,steps={steps}'
  )
  noisy = synthetic_jft('jft', steps, tiny)
  return [
    noisy,
    dict(name='imagenet', config=clean, seeds=(0,)),
    dict(noisy, name='imagenet_jft', start_from='imagenet'),
  ]


def synthetic_jft(name, steps, tiny=False, more=''):
  """A run on the noisy world; `more` arguments of configs/quickstart.py."""
  config = f'configs/quickstart.py:{"tiny," if tiny else ""}steps={steps}{more}'
  # What the quickstart expects is for its own start and length.
  return dict(name=name, config=config, seeds=(0,), overrides=dict(expected={}))


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
