"""Figure 4 as a study: more images of pretraining, better detection.

Sun et al. 2017, section 5.2: Faster R-CNN on ResNet-101 pretrained on 10M, 30M,
100M and 300M images for 4 epochs each; mAP@[.5,.95] on COCO (left) and mAP@.5 on
VOC 2007 (right), fine-tuned and, below it, with conv1 to conv4 frozen. Both grow
with the logarithm of the number of images, and no plateau is in sight.

On the synthetic world, in some two hours and with nothing to download:

  python -m tools.study --config configs/studies/figure4.py --workdir workdirs/figure4

There one target, 500 images of a third world with boxes
(configs/synthetic_detection.py), is scored by both figures; pretraining is on
2,000, 8,000, 32,000 and 128,000 images of the noisy world, nested. Arguments:

  seeds=3             of the target runs; pretraining runs once
  replicate=false     true: pretraining too, once a seed
  images=500, steps=600 (of 8)   of the target's training set
  val_images=2000     of its evaluation
  jft_images=128000, jft_epochs=2
  rates=0.003,0.01,0.03   the best of these, on other images, of fine-tuned and
      of frozen features of all images, and from scratch
  lr_tuned, lr_frozen, lr_scratch   a rate in place of one of the searches

On real data, with the recipes of the paper:

  python -m tools.study --config \\
      configs/studies/figure4.py:coco=DIR,voc=DIR,jft=DIR --workdir workdirs/figure4

  coco, voc           as for configs/coco_detection.py and voc_detection.py; one
      of the two gives its half of the figure
  jft                 prepared records, as for configs/jft_resnet.py
  depth=101|50|152, preset=paper|tfod, seeds=1, recipe=literal|accelerator (of
      pretraining and of the targets)

Hardware: 2 CPU cores for the synthetic world; the paper's: 9 GPUs for a target,
50 and two months for `300M`.
"""  # noqa: E501

from configs import common
from configs.studies import pretraining

TARGETS = {
  'coco': ('val/ap', 'mAP@[.5,.95]', 'left'),
  'voc': ('val/ap50', 'mAP@.5', 'right'),
}
FEATURES = {'tuned': 'fine-tuned', 'frozen': 'frozen'}
_AXIS = 'images_seen'
_TINY = (
  'jft', 'jft_2000', 'scratch', 'tuned_jft', 'frozen_jft', 'tuned_jft_2000',
  'frozen_jft_2000',
)  # fmt: skip


def get_config(arg=None):
  """Arguments: see the module docstring, and tiny."""
  shared = pretraining.ARGUMENTS
  arg = common.parse(
    arg,
    coco='',
    voc='',
    jft='',
    depth=(101, 50, 152),
    preset=('paper', 'tfod'),
    recipe=('literal', 'accelerator'),
    seeds=0,
    images=500,
    steps=600,
    **{k: v for k, v in shared.items() if not k.startswith('imagenet')},
    **pretraining.rate_arguments(*FEATURES, 'scratch'),
    tiny=False,
  )
  real = [name for name in TARGETS if arg[name]]
  if bool(arg.jft) != bool(real):
    raise ValueError(
      'config argument jft=DIR, to start from, and coco=DIR or voc=DIR, the '
      'target, belong together'
    )
  c = pretraining.study(arg, 'object detection by data size', bool(real))
  c.text = _REAL_TEXT if real else _SYNTHETIC_TEXT
  if arg.tiny and not real:
    pretraining.search_one(arg, 'tuned')
  c.runs = _real_runs(arg, real) if real else _synthetic_runs(arg)
  if arg.tiny and not real:
    c.runs = pretraining.shortened(c.runs, _TINY)
  c.runs = [dict(dict(title=_title(r['name'])), **r) for r in c.runs]
  _report(c, real)
  c.lock()
  return c


def _synthetic_runs(arg):
  """Nested sets of the noisy world, each for as many epochs."""
  target = (
    f'configs/synthetic_detection.py:{"tiny," if arg.tiny else ""}world=1,'
    f'images={arg.images},steps={arg.steps},val_images={arg.val_images}'
  )
  metric, _, _ = TARGETS['coco']
  of = {'tuned': target, 'frozen': f'{target},freeze=conv4'}
  runs: list[dict] = [
    pretraining.arm(arg, 'scratch', '', target, 'scratch', metric)
  ]
  sizes = [n for n in pretraining.SYNTHETIC_SIZES if n < arg.jft_images]
  for num in (*sizes, arg.jft_images):
    name = 'jft' if num == arg.jft_images else f'jft_{num}'
    steps = pretraining.jft_steps(arg, num)
    runs.append(pretraining.synthetic_jft(arg, name, num, steps))
    for kind, config in of.items():
      run = pretraining.arm(arg, f'{kind}_{name}', name, config, kind, metric)
      runs.append(dict(run, axes=_axes(num, kind)))
  runs += pretraining.search(arg, '', target, 'scratch')
  for kind, config in of.items():
    runs += pretraining.search(arg, 'jft', config, kind)
  return runs


def _real_runs(arg, targets):
  """The paper's recipes; names of runs on a target begin with its name."""
  runs: list[dict] = []
  sizes = {
    **{f'jft_{size}': n for size, n in pretraining.REAL_SIZES.items()},
    'jft': pretraining.ALL_IMAGES,
  }
  for name, num in sizes.items():
    more = f',num_images={num}' if name != 'jft' else ''
    runs.append(dict(name=name, config=pretraining.jft(arg, more), seeds=(0,)))
    for target in targets:
      base = (
        f'configs/{target}_detection.py:path={arg[target]},depth={arg.depth},'
        f'preset={arg.preset},recipe={arg.recipe},init=jft'
        f'{",tiny" if arg.tiny else ""}'
      )
      for kind in FEATURES:
        config = f'{base},freeze=conv4' if kind == 'frozen' else base
        runs.append(
          dict(
            name=f'{target}_{kind}_{name}',
            config=config,
            start_from=name,
            axes=_axes(num, kind),
          )
        )
  return runs


def _axes(num, kind):
  return {_AXIS: num, 'features': FEATURES[kind]}


def _title(name):
  """How the report calls a run."""
  if name == 'scratch':
    return 'from scratch'
  before, _, size = name.rpartition('jft')
  size = size.removeprefix('_') or 'all'
  images = f'{int(size):,}' if size.isdigit() else size
  words = [f'{images} images', *map(_word, filter(None, before.split('_')))]
  return ', '.join(words)


def _word(part):
  return FEATURES.get(part, part.upper())


def _report(c, real):
  """A half of the figure for each target; both of the synthetic one."""
  c.tables, c.figures = [], []
  for target in real or TARGETS:
    metric, title, half = TARGETS[target]
    runs = [
      run['name']
      for run in c.runs
      if 'axes' in run
      and 'features' in run['axes']
      and (not real or run['name'].startswith(f'{target}_'))
    ]
    rows = runs if real else ['scratch', *runs]
    c.tables.append(
      dict(
        name=f'figure4_{target}',
        title=f'Figure 4, {half}: {title} by images pretrained on',
        text=_TABLE_TEXT if real else _NOT_COMPARABLE,
        rows=rows,
        columns=[dict(metric=metric, title=title)],
        baseline='' if real else 'scratch',
      )
    )
    c.figures.append(
      dict(
        name=f'data_size_{target}',
        kind='sweep',
        metric=metric,
        runs=runs,
        x=_AXIS,
        group='features',
        log_x=True,
        fit=True,
        title=f'Figure 4, {half}: {title} by images pretrained on',
        text=_SWEEP_TEXT,
      )
    )


_SYNTHETIC_TEXT = """
A ResNet-14 of width 24 stands in for ResNet-101, synthetic worlds for the data
sets: 300M is 128,000 images of 200 classes whose labels are incomplete and
wrong in 20% of the cases, completed through the hierarchy, for 2 epochs. The
target has 12 other classes, other looks, and few images, with a box around
every object. All runs on it have the same length and schedule, and all train
batch norm but that of what is frozen.
"""
_REAL_TEXT = """
The recipes of the paper: one image a step, 600 pixels the shorter side, batch
norm as the checkpoint has it; frozen runs on COCO are half as long. Pretraining
is 4 epochs of each set.
"""
_TABLE_TEXT = """The paper gives curves, no numbers: fine-tuned is clearly
better at every size, and both grow about linearly in the logarithm."""
_NOT_COMPARABLE = _TABLE_TEXT + ' Not comparable with the synthetic world.'
_SWEEP_TEXT = """Each set is seen for as many epochs, so that more images are
more steps too; the sets are nested."""
