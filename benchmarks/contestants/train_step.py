"""The train steps that benchmarks/train_step.py compares.

Each `make_*` returns a function that runs one whole step (forward, backward,
update) and blocks until its loss is on the host. All train the same net, with
the stride in the 3x3 convolution of each block's first unit as timm has it,
on the same images and labels with RMSProp, momentum and weight decay.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from big_vision_like.protocols import Task
from input_pipeline.labels.space import LabelSpace

CLASSES = 18_291
LABELS = 8  # ids a row, padded with -1
UNITS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
LEARNING_RATE = 1e-4
Step = Callable[[], float]


class Options(NamedTuple):
  """What a step is asked to do."""

  depth: int
  size: int
  batch: int
  dtype: str
  device: str
  stride_in: str  # ours only; the peers have first_unit_3x3


def make_data(options: Options) -> dict[str, np.ndarray]:
  """uint8 images, label ids padded with -1, and the dense multi-hot targets."""
  rng = np.random.default_rng(0)
  shape = (options.batch, options.size, options.size, 3)
  label_ids = np.full((options.batch, LABELS), -1, np.int32)
  targets = np.zeros((options.batch, CLASSES), np.float32)
  for row, ids in enumerate(label_ids):
    count = rng.integers(1, LABELS)
    ids[:count] = np.sort(rng.choice(CLASSES, count, replace=False))
    targets[row, ids[:count]] = 1
  image = rng.integers(0, 256, shape, np.uint8)
  return {'image': image, 'label_ids': label_ids, 'targets': targets}


def make_ours(options: Options) -> Step:
  """The project's own task, optimiser and train step, as a run has them."""
  import jax
  import jax.numpy as jnp

  from big_vision_like.models import resnet
  from big_vision_like.tasks import multilabel
  from big_vision_like.training import optim, step

  model = resnet.Model(
    depth=options.depth,
    compute_dtype=options.dtype,
    stride_in=options.stride_in,
    pool_padding='symmetric',
  )
  task = multilabel.Task(model, space=LabelSpace.of_count(CLASSES))
  data = make_data(options)
  batch = {
    'image': jnp.asarray(data['image']),
    'label_ids': jnp.asarray(data['label_ids']),
    '_mask': jnp.ones(options.batch, bool),
  }
  key = jax.random.key(0)
  params, _ = jax.eval_shape(task.init, key, batch)
  config = {'type': 'rmsprop', 'epsilon': 1.0, 'weight_decay': 1e-4}
  tx = optim.build(config, lambda count: LEARNING_RATE, params)
  state = jax.jit(step.make_init(task, tx, ema=False))(key, batch)
  return our_step(task, tx, state, batch)


def with_small_scales(params: Any) -> Any:
  """Parameters of a net whose batch norm is frozen, fresh.

  With statistics that no training has made, the sum of its units would
  overflow: their last scales are small, as a trained net's are.
  """
  import jax

  def small(path, leaf):
    is_last_scale = [key.key for key in path[-2:]] == ['bn3', 'scale']
    return 0.2 * leaf if is_last_scale else leaf

  return jax.tree_util.tree_map_with_path(small, params)


def first_state(params: Any, extra: Any, tx: Any) -> Any:
  """The state before the first step."""
  import jax
  import jax.numpy as jnp

  from big_vision_like.training.state import TrainState

  return TrainState(
    step=jnp.zeros((), jnp.int32),
    params=params,
    extra=extra,
    opt_state=tx.init(params),
    rng=jax.random.key(1),
    ema=None,
    nonfinite_step=jnp.full((), -1, jnp.int32),
  )


def our_step(task: Task, tx: Any, state: Any, batch: Any) -> Step:
  """The project's train step, jitted, as a call that waits for its loss."""
  import jax

  from big_vision_like.training import step

  train_step = jax.jit(step.make_train_step(task, tx), donate_argnums=0)

  def run() -> float:
    nonlocal state
    state, metrics = train_step(state, batch)
    return float(jax.block_until_ready((state, metrics))[1]['loss'])

  return run


def make_flax(options: Options) -> Step:
  """A ResNet as flax's documentation would have it, dense targets, optax."""
  import functools

  import flax.linen as nn
  import jax
  import jax.numpy as jnp
  import optax

  dtype = jnp.dtype(options.dtype)
  conv = functools.partial(nn.Conv, use_bias=False, dtype=dtype)
  norm = functools.partial(
    nn.BatchNorm, use_running_average=False, momentum=0.997, dtype=dtype
  )

  class Unit(nn.Module):
    width: int
    stride: int

    @nn.compact
    def __call__(self, x):
      strides = (self.stride, self.stride)
      y = nn.relu(norm()(conv(self.width, (1, 1))(x)))
      y = conv(self.width, (3, 3), strides, padding=1)(y)
      y = nn.relu(norm()(y))
      y = norm()(conv(4 * self.width, (1, 1))(y))
      if x.shape != y.shape:
        x = norm()(conv(4 * self.width, (1, 1), strides)(x))
      return nn.relu(x + y)

  class ResNet(nn.Module):
    @nn.compact
    def __call__(self, x):
      x = nn.relu(norm()(conv(64, (7, 7), (2, 2), padding=3)(x)))
      x = nn.max_pool(x, (3, 3), strides=(2, 2), padding=((1, 1), (1, 1)))
      for block, count in enumerate(UNITS[options.depth]):
        for unit in range(count):
          stride = 2 if block > 0 and unit == 0 else 1
          x = Unit(64 * 2**block, stride)(x)
      x = x.mean((1, 2))
      return nn.Dense(CLASSES, dtype=dtype)(x).astype(jnp.float32)

  model = ResNet()
  tx = optax.chain(
    optax.add_decayed_weights(1e-4),
    optax.rmsprop(LEARNING_RATE, decay=0.9, eps=1.0, momentum=0.9),
  )
  data = make_data(options)
  image = jnp.asarray(data['image'] / np.float32(127.5) - 1)
  targets = jnp.asarray(data['targets'])
  variables = jax.jit(model.init)(jax.random.key(0), image)
  state = (variables, tx.init(variables['params']))

  def loss_fn(params, stats):
    variables = {'params': params, 'batch_stats': stats}
    logits, new = model.apply(variables, image, mutable=['batch_stats'])
    loss = optax.sigmoid_binary_cross_entropy(logits, targets)
    return loss.sum(-1).mean(), new['batch_stats']

  @functools.partial(jax.jit, donate_argnums=0)
  def train_step(state):
    variables, opt_state = state
    params = variables['params']
    (loss, stats), gradient = jax.value_and_grad(loss_fn, has_aux=True)(
      params, variables['batch_stats']
    )
    updates, opt_state = tx.update(gradient, opt_state, params)
    params = optax.apply_updates(params, updates)
    return ({'params': params, 'batch_stats': stats}, opt_state), loss

  def run() -> float:
    nonlocal state
    state, loss = train_step(state)
    return float(jax.block_until_ready((state, loss))[1])

  return run


def make_torch(options: Options, compiled: bool = False) -> Step:
  """timm's ResNet, channels_last, autocast for bfloat16."""
  import torch

  from tests.peers import timm_peer

  device = 'cuda' if options.device == 'gpu' else 'cpu'
  model: Any = timm_peer.build(options.depth, num_classes=CLASSES)
  model = model.to(device, memory_format=torch.channels_last).train()
  optimizer = torch.optim.RMSprop(
    model.parameters(),
    lr=LEARNING_RATE,
    alpha=0.9,
    eps=1.0,
    momentum=0.9,
    weight_decay=1e-4,
  )
  data = make_data(options)
  image = torch.from_numpy(data['image']).to(device).permute(0, 3, 1, 2)
  image = image.float() / 127.5 - 1  # keeps the channels last
  targets = torch.from_numpy(data['targets']).to(device)
  loss_fn = torch.nn.BCEWithLogitsLoss(reduction='sum')
  forward = torch.compile(model) if compiled else model
  half = options.dtype == 'bfloat16'
  if device == 'cuda':  # the same precision as jax's default on this device
    torch.set_float32_matmul_precision('high')
    torch.backends.cudnn.benchmark = True

  def run() -> float:
    optimizer.zero_grad(set_to_none=True)
    with torch.autocast(device, torch.bfloat16, enabled=half):
      logits = forward(image)
    loss = loss_fn(logits.float(), targets) / options.batch
    loss.backward()
    optimizer.step()
    value = loss.item()
    if device == 'cuda':
      torch.cuda.synchronize()
    return value

  return run


def make_torch_compile(options: Options) -> Step:
  """The same under torch.compile."""
  return make_torch(options, compiled=True)


CONTESTANTS: dict[str, Callable[[Options], Step]] = {
  'ours': make_ours,
  'flax': make_flax,
  'torch': make_torch,
  'torch.compile': make_torch_compile,
}
