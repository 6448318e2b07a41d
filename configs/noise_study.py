"""What label noise costs: the quickstart on labels of a chosen noise.

The synthetic world gives right and complete labels of the shapes in an image;
the op `label_noise` then spoils a share of them, before the hierarchy's fill-in
(Sun et al. 2017, section 3.1: 20% of the labels of JFT-300M are wrong). All
arms see the same images in the same order, and an arm of a higher rate spoils
the labels of the lower ones and more.

  python -m main --config configs/noise_study.py:noise=neighbour,rate=0.4 ...
  arguments: noise=symmetric|neighbour|missing|none, rate=0.2 (of the labels),
  noise_seed=0, images=100000, fill_in=true, steps=700; docs/label-noise.md

Hardware: 2 CPU cores, three minutes an arm.
"""

from configs import common, quickstart


def get_config(arg=None):
  """Arguments: noise, rate, noise_seed, images, fill_in, steps, tiny."""
  arg = common.parse(
    arg,
    noise=('symmetric', 'neighbour', 'missing', 'none'),
    rate=0.2,
    noise_seed=0,
    images=100_000,
    fill_in=True,
    steps=700,
    tiny=False,
  )
  common.at_least_one(images=arg.images, steps=arg.steps)
  c = quickstart.get_config(
    f'images={arg.images},steps={arg.steps},fill_in={str(arg.fill_in).lower()}'
  )
  c.unlock()
  c.expected = {}  # of the quickstart as it is
  label = c.input.ops[-1]
  if arg.tiny:
    common.shrink(c, num_classes=23, label=label)

  # Clean: no wrong label, no ancestor for a leaf, no shape without its label.
  c.input.source.update(dict(noise=0.0, coarse=0.0, recall=1.0))
  if arg.noise != 'none':
    noise = dict(
      op='label_noise', kind=arg.noise, rate=arg.rate, seed=arg.noise_seed
    )
    c.input.ops = [*c.input.ops[:-1], noise, label]
  c.lock()
  return c
