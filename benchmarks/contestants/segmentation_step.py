"""The train steps that benchmarks/segmentation_step.py compares.

Each `make_*` returns a function that runs one whole step (forward, backward,
update) and blocks until its loss is on the host. All train the same net on the
same images and masks: stride in the 3x3 convolution of each block's first unit,
batch norm frozen, cross-entropy at the centres of the features, momentum with
weight decay on all that is trained.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from input_pipeline.labels.space import LabelSpace

UNITS = {14: (1, 1, 1, 1), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}
RATES = (6, 12, 18, 24)
STRIDE = 8
VOID = 255
LEARNING_RATE, DECAY, MOMENTUM = 1e-3, 5e-4, 0.9
BN_EPSILON = 1e-5
FROZEN = r'backbone/(.*/)?(shortcut_)?bn\d*/.*'
Step = Callable[[], float]


class Options(NamedTuple):
  """What a step is asked to do."""

  depth: int
  size: int
  batch: int
  classes: int
  dtype: str
  device: str


def make_data(options: Options) -> dict[str, np.ndarray]:
  """uint8 images, and masks with 5% void."""
  rng = np.random.default_rng(0)
  shape = options.batch, options.size, options.size
  masks = rng.integers(0, options.classes, shape, np.uint8)
  masks[rng.random(shape) < 0.05] = VOID
  return {'image': rng.integers(0, 256, (*shape, 3), np.uint8), 'masks': masks}


def _our_task(options: Options) -> Any:
  from big_vision_like.models import resnet
  from big_vision_like.tasks import segmentation

  model = resnet.Model(
    depth=options.depth,
    output_stride=STRIDE,
    bn='frozen',
    bn_epsilon=BN_EPSILON,
    compute_dtype=options.dtype,
    stride_in='first_unit_3x3',
    pool_padding='symmetric',
  )
  return segmentation.Task(
    model, space=LabelSpace.of_count(options.classes - 1), rates=RATES
  )


def _our_batch(options: Options) -> dict[str, Any]:
  import jax.numpy as jnp

  data = make_data(options)
  return {
    'image': jnp.asarray(data['image']),
    'segmentation': jnp.asarray(data['masks']),
    '_mask': jnp.ones(options.batch, bool),
  }


def _our_init(options: Options) -> tuple[Any, Any]:
  """(params, extra), the same in every process."""
  import jax

  from benchmarks.contestants import train_step

  init = jax.jit(_our_task(options).init)
  params, extra = init(jax.random.key(0), _our_batch(options))
  return train_step.with_small_scales(params), extra


def make_ours(options: Options) -> Step:
  """The project's own task, optimiser and train step, as a run has them."""
  from benchmarks.contestants import train_step
  from big_vision_like.training import optim

  task, batch = _our_task(options), _our_batch(options)
  params, extra = _our_init(options)
  config = {
    'type': 'momentum',
    'momentum': MOMENTUM,
    'weight_decay': DECAY,
    'weight_decay_on': 'all',
    'freeze': [FROZEN],
  }
  tx = optim.build(config, lambda count: LEARNING_RATE, params)
  state = train_step.first_state(params, extra, tx)
  return train_step.our_step(task, tx, state, batch)


def _flax_nets(options: Options) -> tuple[Any, Any]:
  """(backbone, head) as flax's documentation would have them.

  Layers have our names, so that our weights fit.
  """
  import functools

  import flax.linen as nn
  import jax.numpy as jnp

  pool: Any = nn.max_pool  # its annotation knows no pairs
  dtype = jnp.dtype(options.dtype)
  conv = functools.partial(nn.Conv, use_bias=False, dtype=dtype)
  norm = functools.partial(
    nn.BatchNorm, use_running_average=True, epsilon=BN_EPSILON, dtype=dtype
  )

  class Unit(nn.Module):
    width: int
    stride: int
    rate: int

    @nn.compact
    def __call__(self, x):
      strides, rate = (self.stride,) * 2, (self.rate,) * 2
      depth = 4 * self.width
      shortcut = x
      if x.shape[-1] != depth:
        shortcut = conv(depth, (1, 1), strides, name='shortcut')(x)
        shortcut = norm(name='shortcut_bn')(shortcut)
      x = nn.relu(norm(name='bn1')(conv(self.width, (1, 1), name='conv1')(x)))
      x = conv(
        self.width, (3, 3), strides,
        padding=self.rate, kernel_dilation=rate, name='conv2',
      )(x)  # fmt: skip
      x = nn.relu(norm(name='bn2')(x))
      x = norm(name='bn3')(conv(depth, (1, 1), name='conv3')(x))
      return nn.relu(shortcut + x)

  class Block(nn.Module):
    number: int

    @nn.compact
    def __call__(self, x):
      rate_before, rate = {2: (1, 2), 3: (2, 4)}.get(self.number, (1, 1))
      for n in range(UNITS[options.depth][self.number]):
        stride = 2 if self.number == 1 and n == 0 else 1
        unit_rate = rate if n else rate_before
        width = 64 * 2**self.number
        x = Unit(width, stride, unit_rate, name=f'unit{n + 1}')(x)
      return x

  class ResNet(nn.Module):
    @nn.compact
    def __call__(self, x):
      x = conv(64, (7, 7), (2, 2), padding=3, name='conv1')(x)
      x = nn.relu(norm(name='bn1')(x))
      x = pool(x, (3, 3), strides=(2, 2), padding=((1, 1), (1, 1)))
      for number in range(4):
        x = Block(number, name=f'block{number + 1}')(x)
      return x

  class Head(nn.Module):
    @nn.compact
    def __call__(self, x):
      branches = [
        nn.Conv(
          options.classes, (3, 3), padding=rate, kernel_dilation=(rate, rate),
          dtype=dtype, name=f'rate{rate}',
        )(x)
        for rate in RATES
      ]  # fmt: skip
      return sum(branches).astype(jnp.float32)

  return ResNet(), Head()


def _flax_logits(options: Options) -> Callable[..., Any]:
  """logits(params, extra, image): our trees, images in [-1, 1]."""
  backbone, head = _flax_nets(options)

  def logits(params, extra, image):
    features = backbone.apply({'params': params['backbone'], **extra}, image)
    return head.apply({'params': params['head']}, features)

  return logits


def make_flax(options: Options) -> Step:
  """The same net of flax's layers, optax."""
  import functools
  import re

  import jax
  import jax.numpy as jnp
  import optax

  params, extra = _our_init(options)
  logits_of = _flax_logits(options)
  data = make_data(options)
  image = jnp.asarray(data['image'] / np.float32(127.5) - 1)
  labels = jnp.asarray(data['masks'][:, ::STRIDE, ::STRIDE].astype(np.int32))

  def kind(path, leaf):
    del leaf
    name = '/'.join(key.key for key in path)
    return 'frozen' if re.fullmatch(FROZEN, name) else 'trained'

  trained = optax.chain(
    optax.add_decayed_weights(DECAY), optax.sgd(LEARNING_RATE, MOMENTUM)
  )
  tx = optax.multi_transform(
    {'trained': trained, 'frozen': optax.set_to_zero()},
    jax.tree_util.tree_map_with_path(kind, params),
  )
  state = (params, tx.init(params))

  def loss_fn(params):
    logits = logits_of(params, extra, image)
    valid = labels != VOID
    losses = optax.softmax_cross_entropy_with_integer_labels(
      logits, jnp.where(valid, labels, 0)
    )
    return jnp.sum(losses * valid) / valid.sum()

  @functools.partial(jax.jit, donate_argnums=0)
  def train_step(state):
    params, opt_state = state
    loss, gradient = jax.value_and_grad(loss_fn)(params)
    updates, opt_state = tx.update(gradient, opt_state, params)
    return (optax.apply_updates(params, updates), opt_state), loss

  def run() -> float:
    nonlocal state
    state, loss = train_step(state)
    return float(jax.block_until_ready((state, loss))[1])

  return run


def make_torch(options: Options) -> Step:
  """timm's ResNet with four nn.Conv2d, channels_last, weights of its own."""
  import torch

  from tests.peers import timm_peer

  device = 'cuda' if options.device == 'gpu' else 'cpu'
  backbone: Any = timm_peer.build(options.depth, output_stride=STRIDE)
  backbone.eval()  # batch norm as the checkpoint has it
  for name, value in backbone.named_parameters():
    value.requires_grad_(value.ndim == 4 and not name.startswith('fc'))
  branches: Any = torch.nn.ModuleList(
    torch.nn.Conv2d(2048, options.classes, 3, padding=rate, dilation=rate)
    for rate in RATES
  )
  for branch in branches:
    torch.nn.init.xavier_uniform_(branch.weight)
    torch.nn.init.zeros_(branch.bias)
  net: Any = torch.nn.ModuleList([backbone, branches])
  net = net.to(device, memory_format=torch.channels_last)
  optimizer = torch.optim.SGD(
    [value for value in net.parameters() if value.requires_grad],
    lr=LEARNING_RATE,
    momentum=MOMENTUM,
    weight_decay=DECAY,
  )
  data = make_data(options)
  image = torch.from_numpy(data['image']).to(device).permute(0, 3, 1, 2)
  image = image.float() / 127.5 - 1  # keeps the channels last
  labels = torch.from_numpy(data['masks'][:, ::STRIDE, ::STRIDE].astype(int))
  labels = labels.to(device)
  loss_fn = torch.nn.CrossEntropyLoss(ignore_index=VOID)
  half = options.dtype == 'bfloat16'
  if device == 'cuda':  # the same precision as jax's default on this device
    torch.set_float32_matmul_precision('high')
    torch.backends.cudnn.benchmark = True

  def run() -> float:
    optimizer.zero_grad(set_to_none=True)
    with torch.autocast(device, torch.bfloat16, enabled=half):
      features = backbone.forward_features(image)
      logits = sum(branch(features) for branch in branches)
    loss = loss_fn(logits.float(), labels)
    loss.backward()
    optimizer.step()
    value = loss.item()
    if device == 'cuda':
      torch.cuda.synchronize()
    return value

  return run


CONTESTANTS: dict[str, Callable[[Options], Step]] = {
  'ours': make_ours,
  'flax': make_flax,
  'torch': make_torch,
}


def make_check(options: Options) -> Step:
  """Raises AssertionError where ours and flax give other logits.

  With random statistics and scales: initialised ones hide errors. Returns a
  step that gives the largest difference over the largest logit.
  """
  import jax
  import jax.numpy as jnp

  task, (params, extra) = _our_task(options), _our_init(options)
  rng = np.random.default_rng(1)
  noisy = lambda v: v * rng.uniform(0.7, 1.3, v.shape).astype(np.float32)
  params, extra = jax.tree.map(noisy, (params, extra))
  extra = jax.tree.map(
    lambda v: v + rng.uniform(0, 0.1, v.shape).astype(np.float32), extra
  )
  image = jnp.asarray(make_data(options)['image'] / np.float32(127.5) - 1)
  ours, _ = jax.jit(task.logits, static_argnums=(3, 4))(
    params, extra, image, None, False
  )
  flax = jax.jit(_flax_logits(options))(params, extra, image)
  largest = float(jnp.abs(flax).max())
  difference = float(jnp.abs(ours - flax).max()) / largest
  allowed = {'float32': 1e-4, 'bfloat16': 0.1}[options.dtype]
  assert ours.shape == flax.shape, (ours.shape, flax.shape)
  assert largest > 0 and difference < allowed, (difference, largest)
  return lambda: difference
