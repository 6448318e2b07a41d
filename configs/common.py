"""Every key that a config may have, with its default; arguments of configs.

`base()` is the one table of keys: the trainer refuses any other. Configs start
from it and write down what their experiment is about. What belongs to a
plug-in (the source, ops, model, task, optimizer, schedule and evaluators) is
listed by that plug-in and checked against it.
"""

import math
from typing import Any

from ml_collections import ConfigDict, config_dict


def base() -> Any:
  """The defaults of every key; docs/configs.md explains each."""
  c: Any = ConfigDict()
  c.seed = 0

  # Length of the run: exactly one of the three.
  c.total_steps = config_dict.placeholder(int)
  c.total_epochs = config_dict.placeholder(float)
  c.total_examples = config_dict.placeholder(int)
  c.log_every_steps = 50

  # What the run needs: any, cpu, gpu, tpu, accelerator (gpu or tpu).
  c.device = 'any'

  # Devices: -1 takes all that remain. 'model' splits the classifier.
  c.mesh = ConfigDict(dict(data=-1, model=1))
  c.mesh.shard_slots = False  # optimizer slots split over 'data' too

  c.input = ConfigDict()
  c.input.source = ConfigDict()
  c.input.ops = []
  c.input.batch_size = 32  # global
  c.input.workers = 0  # decode processes; 0 reads in threads
  c.input.threads = 2  # reading threads, of this process or of each worker
  c.input.prefetch = 4  # batches held ready
  c.input.fraction = 1.0  # of the records, nested: 0.1 lies within 0.3
  c.input.max_bad_fraction = 1e-3
  c.input.timeout_s = 600.0  # without a batch the run ends; 0: never
  # Reads that the storage refuses for a moment: how often they are tried
  # again, and the seconds before the first time, which double.
  c.input.read_retries = 5
  c.input.retry_wait_s = 0.5
  c.input.also = ConfigDict()  # further streams by name, each of `stream()`

  c.model = ConfigDict(dict(type='resnet'))
  c.task = ConfigDict(dict(type='multilabel'))
  c.task.num_classes = config_dict.placeholder(int)  # None: the source's
  c.task.class_multiple = 1  # the class axis is padded to a multiple of it
  c.optim = ConfigDict()
  c.schedule = ConfigDict()
  c.train = ConfigDict()
  c.train.accum_steps = 1
  c.train.ema_decay = config_dict.placeholder(float)
  c.train.mode = 'sync'  # or 'downpour': asynchronous workers, simulated
  c.train.downpour = ConfigDict()
  c.train.downpour.workers = 50
  c.train.downpour.servers = 17
  c.train.downpour.head_shards = 50
  c.train.downpour.policy = 'round_robin'  # or 'random', 'event'
  c.train.downpour.event_sigma = 0.25
  c.train.downpour.bn_updates = 'all'  # or 'first'
  # A step that is not finite is never applied: 'stop', 'skip' it, or
  # 'rollback' to the newest checkpoint. 'skip' also for spikes of the loss.
  c.train.on_nonfinite = 'stop'
  c.train.skip_spikes_sigma = config_dict.placeholder(float)
  c.train.max_skipped = 10  # steps; above, the run stops
  c.train.step_timeout_s = 1800.0  # without a step the run ends; 0: never

  # Warm start: a workdir or a checkpoint, and what stays fresh.
  c.init_from = ConfigDict()
  c.init_from.path = config_dict.placeholder(str)
  c.init_from.reinit = ('head/.*',)
  c.init_from.part = config_dict.placeholder(str)  # of a joint checkpoint
  c.init_from.ema = True  # the averages, where the checkpoint has them

  c.ckpt = ConfigDict()
  c.ckpt.dir = config_dict.placeholder(str)  # None: <workdir>/checkpoints
  c.ckpt.every_steps = 1000
  c.ckpt.keep_last = 2
  c.ckpt.max_failed_saves = 10  # in a row; then the run stops
  c.ckpt.keep_every_steps = config_dict.placeholder(int)
  # Kept besides: the best by a figure, such as 'val/map@100'.
  c.ckpt.best = config_dict.placeholder(str)
  c.ckpt.best_mode = 'max'  # or 'min'
  c.ckpt.patience = config_dict.placeholder(int)  # evaluations; then it ends

  c.evals = ConfigDict()
  c.on_eval_error = 'raise'  # or 'log': name it and go on

  # A workdir of another config or data set is refused unless accepted here.
  c.resume = ConfigDict()
  c.resume.accept_config_change = False
  c.resume.accept_data_change = False

  c.profile = ConfigDict()
  c.profile.steps = ()  # (first, last): a trace of these to <workdir>/profile

  c.plan = ConfigDict()
  c.plan.num_devices = config_dict.placeholder(int)  # None: those present
  c.plan.device_memory_gib = config_dict.placeholder(float)  # does it fit?
  # In the place of data that are not at hand.
  c.plan.vocabulary = config_dict.placeholder(str)  # file, a class a line
  c.plan.num_examples = config_dict.placeholder(int)
  c.plan.num_keypoints = config_dict.placeholder(int)  # of a pose net

  # The figures that a run should reach: (low, high) over seeds and machines,
  # or one number that was published.
  c.expected = ConfigDict()
  return c


def stream(**given: Any) -> Any:
  """One of `input.also`: the defaults of every key, and what is given."""
  c: Any = ConfigDict()
  c.source = ConfigDict()
  c.ops = []
  c.batch_size = 32  # global
  c.num_classes = config_dict.placeholder(int)  # None: the source's
  c.workers = config_dict.placeholder(int)  # None: as many as input.workers
  c.fraction = 1.0
  c.max_bad_fraction = 1e-3
  c.update(given)
  return c


def parse(arg: str | None, **defaults: Any) -> Any:
  """Parses 'key=value,flag' against the arguments that a config takes.

  Args:
    arg: the text after the colon of --config; None or '' for none.
    **defaults: name and default of each argument. Values are converted to the
      type of the default; a bare name sets a boolean; a default of None takes
      text; a tuple lists the valid values, the first being the default.

  Raises:
    ValueError: unknown argument or value, naming the valid ones.
  """
  out = {k: v[0] if isinstance(v, tuple) else v for k, v in defaults.items()}
  # A comma starts a new argument only before a name, so that paths may hold
  # commas: 'path=/a,b/c' stays one argument.
  for part in _split(arg or '', defaults):
    name, given, text = part.partition('=')
    if name not in defaults:
      raise ValueError(
        f'unknown config argument {name!r}; valid: {_describe(defaults)}'
      )
    out[name] = _convert(name, text if given else None, defaults[name])
  return ConfigDict(out)


def check_fraction(fraction: float) -> None:
  """Refuses a fraction outside (0, 1]."""
  if not 0 < fraction <= 1:
    raise ValueError(f'config argument fraction={fraction} must be in (0, 1]')


def at_least_one(**arguments: int) -> None:
  """Refuses config arguments below 1, naming them."""
  for name, value in arguments.items():
    if value < 1:
      raise ValueError(f'config argument {name}={value} must be at least 1')


def _split(arg: str, known: dict[str, Any]) -> list[str]:
  parts: list[str] = []
  for piece in arg.split(','):
    name, given, _ = piece.partition('=')
    argument = name in known or (given and name.isidentifier())
    if parts and not argument and '=' in parts[-1]:
      parts[-1] += f',{piece}'
    elif piece or parts:
      parts.append(piece)
  return parts


def _convert(name: str, text: str | None, default: Any) -> Any:
  kind = type(default[0]) if isinstance(default, tuple) else type(default)
  if text is None:
    if kind is bool:
      return True
    raise ValueError(f'config argument {name!r} needs a value: {name}=...')
  try:
    if kind is bool:
      value = {'true': True, '1': True, 'false': False, '0': False}[
        text.lower()
      ]
    else:
      value = text if default is None else kind(text)
    if isinstance(value, float) and not math.isfinite(value):
      raise ValueError
  except (ValueError, KeyError):
    raise ValueError(
      f'config argument {name}={text!r} is not of type {kind.__name__}'
    ) from None
  if isinstance(default, tuple) and value not in default:
    raise ValueError(
      f'config argument {name}={text!r}; valid: {", ".join(map(str, default))}'
    )
  return value


def _describe(defaults: dict[str, Any]) -> str:
  shown = []
  for name, default in defaults.items():
    if isinstance(default, bool):
      shown.append(name)
    elif isinstance(default, tuple):
      shown.append(f'{name}={"|".join(map(str, default))}')
    else:
      shown.append(f'{name}=...')
  return ', '.join(shown) or 'none'


def resnet(depth: int = 101, **options: Any) -> Any:
  """Options of the ResNet v1 backbone; the paper's values by default."""
  model: Any = ConfigDict()
  model.type = 'resnet'
  model.depth = depth
  model.width = 64
  model.output_stride = 32
  model.stride_in = 'last_unit_3x3'
  model.bn = 'batch'
  model.bn_decay = 0.997  # of the moving statistics; lower for short runs
  model.compute_dtype = 'float32'
  model.remat = False
  model.update(options)
  return model


def torch_layout(c: Any) -> None:
  """Sets what weights of torchvision and timm need (docs/weights.md)."""
  c.model.stride_in = 'first_unit_3x3'
  c.model.pool_padding = 'symmetric'
  c.task.pixels = 'imagenet'


# What `freeze` of a transfer config may name: the last part not trained.
FREEZE = ('none', 'conv1', 'conv2', 'conv3', 'conv4', 'backbone')
# What `init` of a transfer config may name, and the workdir it stands for.
WORKDIRS = {
  'jft': 'workdirs/jft_resnet',
  'imagenet': 'workdirs/imagenet_resnet',
  'random': None,
}


# `init_from.reinit` of a start with the backbone of any checkpoint, whatever
# heads it has and those here.
ALL_BUT_BACKBONE = (r'(?!backbone/|batch_stats/).*',)


def start_from(c: Any, init: str) -> None:
  """Sets the checkpoint that the argument `init` names.

  Raises:
    ValueError: neither a word of WORKDIRS nor a path with a slash.
  """
  if init not in WORKDIRS and '/' not in init:
    raise ValueError(
      f'config argument init={init!r}; valid: {", ".join(WORKDIRS)}, or a '
      'path (with a slash, such as ./weights)'
    )
  path = WORKDIRS.get(init, init)
  if path is not None:
    c.init_from.path = path


def freeze_batch_norm(c: Any) -> None:
  """Batch norm as the checkpoint has it: statistics, scales and biases."""
  c.model.bn = 'frozen'
  freeze = [*c.optim.get('freeze', ()), r'backbone/(.*/)?(shortcut_)?bn\d*/.*']
  c.optim.freeze = freeze


def resized_crop_ops(size: int, label: dict[str, Any]) -> list[dict]:
  """Random area and aspect ratio, random reflection (Szegedy et al. 2015)."""
  return [
    dict(op='decode'),
    dict(op='random_resized_crop', size=size),
    dict(op='random_flip'),
    label,
  ]


def train_ops(resize: int, crop: int, label: dict[str, Any]) -> list[dict]:
  """Paper section 4: resize to a square, random crop, random reflection."""
  return [
    dict(op='decode'),
    dict(op='resize', size=resize),
    dict(op='random_crop', size=crop),
    dict(op='random_flip'),
    label,
  ]


def eval_ops(resize: int, crop: int, label: dict[str, Any]) -> list[dict]:
  """The same field of view without chance: resize, centre crop."""
  return [
    dict(op='decode'),
    dict(op='resize', size=resize),
    dict(op='center_crop', size=crop),
    label,
  ]


def segmentation_ops(
  resize: str, size: int, max_size: int | None = None
) -> list[dict]:
  """Image and mask at a square size; no augmentation (section 5.3).

  Args:
    resize: 'warp' them to the size, or 'pad' them as they are.
    size: of a side, in pixels.
    max_size: for evaluation: keeps the mask at its own size too, of at most so
      many pixels a side.
  """
  full = [dict(op='full_segmentation', max_size=max_size)]
  placed = {
    'warp': [dict(op='resize', size=size), dict(op='image_size')],
    'pad': [dict(op='image_size'), dict(op='pad', size=size)],
  }
  return [
    dict(op='decode'),
    dict(op='decode_segmentation'),
    *(full if max_size else ()),
    *placed[resize],
  ]


def multilabel(
  max_labels: int = 64, fill_in: bool = True, **states: Any
) -> dict[str, Any]:
  """Op that makes padded label ids, completed through the hierarchy.

  `states` are its options of confidences and negatives
  (docs/label-states.md).
  """
  return dict(op='labels', fill_in=fill_in, max_labels=max_labels, **states)


def synthetic(split: str = 'train', **options: Any) -> dict[str, Any]:
  """A split of the synthetic world (docs/synthetic-world.md)."""
  return dict(type='synthetic', split=split, **options)


def shrink(c: Any, *, num_classes: int, label: dict[str, Any]) -> None:
  """Makes a config `:tiny`: the same path in seconds, on synthetic data.

  Every evaluator stays; depth, width, images and steps shrink; the number of
  classes is odd, so that padding is exercised.
  """
  shrink_world(c, num_classes)
  c.input.ops = train_ops(40, 32, label)
  for evaluator in c.evals.values():
    evaluator.ops = eval_ops(40, 32, label)


def shrink_segmentation(c: Any, num_classes: int = 11) -> None:
  """Makes a config of segmentation `:tiny`; its ops stay, at 41 pixels."""
  shrink_world(c, num_classes, annotations=True)
  small = {'size': 41, 'max_size': 40}
  for section in (c.input, *c.evals.values()):
    section.ops = [
      {k: small.get(k, v) for k, v in dict(op).items()} for op in section.ops
    ]
  c.input.workers = 0


def _synthetic_split(data: Any) -> str:
  """Of evaluation in the synthetic world: as it is, or 'fasteval'.

  Runs of a search are told from others by it, in a `tiny` study too.
  """
  of = data.get('of', data)  # examples made of those of another source
  return of.split if of.get('type') == 'synthetic' else 'fasteval'


def shrink_world(c: Any, num_classes: int, **world: Any) -> None:
  """A small net on a small synthetic world, for a few steps."""
  world = dict(num_classes=num_classes, num_images=1000, image_size=40, **world)
  c.input.source = ConfigDict(synthetic(**world))
  c.input.batch_size = 16
  c.total_epochs = c.total_examples = None
  c.total_steps = 6
  c.device = 'any'
  c.log_every_steps = 2
  c.expected = ConfigDict()
  c.ckpt.every_steps = 4
  c.model.update(dict(depth=14, width=8))
  c.task.num_classes = num_classes
  for evaluator in c.evals.values():
    for key in ('every_epochs', 'every_examples', 'every_percent'):
      if key in evaluator:
        del evaluator[key]
    evaluator.every_steps = 3
    split = _synthetic_split(evaluator.data)
    evaluator.data = ConfigDict(synthetic(split, **{**world, 'num_images': 48}))
    evaluator.batch_size = 16
