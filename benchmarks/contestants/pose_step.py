"""The train steps that benchmarks/pose_step.py compares.

Each `make_*` returns a function that runs one whole step (forward, backward,
update) and blocks until its loss is on the host. Both train the same net on the
same crops: a ResNet of output stride 8 with frozen batch norm, stride in the
3x3 convolution of each block's first unit, a linear layer on block4 and one in
the middle of block3, maps interpolated to all pixels, the three losses of
big_vision_like/tasks/pose.py, momentum. torch's targets are stored, on its
device; ours are made in the step.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from input_pipeline.labels.space import LabelSpace, Skeleton
from input_pipeline.labels.vocabulary import Vocabulary

# Depth -> the unit of block3 that the third loss is on.
UNITS = {26: 1, 50: 3, 101: 10}
STRIDE, RADIUS, DELTA = 8, 25.0, 1.0
WEIGHTS = (4.0, 1.0, 4.0)
OTHERS = 2  # people in a crop beside the one
LEARNING_RATE, MOMENTUM = 1e-4, 0.9
FROZEN = r'backbone/(.*/)?(shortcut_)?bn\d*/.*'
Step = Callable[[], float]


class Options(NamedTuple):
  """What a step is asked to do."""

  depth: int
  height: int
  width: int
  batch: int
  keypoints: int
  dtype: str
  device: str


def make_data(options: Options) -> dict[str, np.ndarray]:
  """uint8 crops; keypoints of a person and of others, 1 in 5 unlabelled."""
  rng = np.random.default_rng(0)
  extent = options.height, options.width
  shape = options.batch, 1 + OTHERS, options.keypoints
  places = rng.uniform(0, extent, (*shape, 2))
  seen = np.where(rng.random(shape) < 0.2, 0, 2)[..., None]
  people = np.concatenate([places, seen], axis=-1).astype(np.float32)
  return {
    'image': rng.integers(0, 256, (options.batch, *extent, 3), np.uint8),
    'person_keypoints': people[:, 0],
    'other_keypoints': people[:, 1:],
  }


def _our_task(options: Options) -> Any:
  from big_vision_like.models import resnet
  from big_vision_like.tasks import pose

  model = resnet.Model(
    depth=options.depth,
    output_stride=STRIDE,
    bn='frozen',
    compute_dtype=options.dtype,
    stride_in='first_unit_3x3',
    pool_padding='symmetric',
  )
  names = tuple(f'keypoint {n}' for n in range(options.keypoints))
  return pose.Task(
    model,
    LabelSpace(Vocabulary(('person',)), keypoints=Skeleton(names)),
    radius=RADIUS,
    huber_delta=DELTA,
    heatmap_weight=WEIGHTS[0],
    offset_weight=WEIGHTS[1],
    auxiliary_weight=WEIGHTS[2],
    auxiliary=f'block3/unit{UNITS[options.depth]}',
  )


def make_ours(options: Options) -> Step:
  """The project's own task, optimiser and train step, as a run has them."""
  import jax
  import jax.numpy as jnp

  from benchmarks.contestants import train_step
  from big_vision_like.training import optim

  task = _our_task(options)
  batch = {k: jnp.asarray(v) for k, v in make_data(options).items()}
  batch['_mask'] = jnp.ones(options.batch, bool)
  params, extra = jax.jit(task.init)(jax.random.key(0), batch)
  params = train_step.with_small_scales(params)
  config = {'type': 'momentum', 'momentum': MOMENTUM, 'freeze': [FROZEN]}
  tx = optim.build(config, lambda count: LEARNING_RATE, params)
  state = train_step.first_state(params, extra, tx)
  return train_step.our_step(task, tx, state, batch)


def _stored_targets(options: Options) -> dict[str, np.ndarray]:
  """Of all pixels: discs, offsets, and what counts in each heatmap."""
  data = make_data(options)
  person, others = data['person_keypoints'], data['other_keypoints']
  rows, columns = (np.arange(n) + 0.5 for n in (options.height, options.width))

  def discs(people: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    down = people[..., 0, None, None] - rows[:, None]
    right = people[..., 1, None, None] - columns
    near = down**2 + right**2 <= RADIUS**2
    return near & (people[..., 2, None, None] > 0), down, right

  inside, down, right = discs(person)
  labelled = np.broadcast_to(person[..., 2, None, None] > 0, inside.shape)
  allowed = labelled & (inside | ~discs(others)[0].any(axis=1))
  ways = np.stack(np.broadcast_arrays(down, right), axis=1)  # [B, 2, K, H, W]
  found = dict(inside=inside, ways=ways, labelled=labelled, allowed=allowed)
  return {k: np.asarray(v, np.float32) for k, v in found.items()}


def _torch_loss(options: Options, device: str) -> Callable[[Any, Any], Any]:
  """The mean loss of a batch by the maps of both layers, [B, C, h, w]."""
  import torch

  stored = {
    name: torch.from_numpy(np.ascontiguousarray(value)).to(device)
    for name, value in _stored_targets(options).items()
  }
  size, num = (options.height, options.width), options.keypoints
  logistic = torch.nn.functional.binary_cross_entropy_with_logits

  def loss_fn(maps: Any, half: Any) -> Any:
    fine, half = (
      torch.nn.functional.interpolate(
        x.float(), size=size, mode='bilinear', align_corners=True
      )
      for x in (maps, half)
    )
    of = lambda logits, weight: logistic(
      logits, stored['inside'], weight=weight, reduction='sum'
    )
    error = fine[:, num:].unflatten(1, (2, num)) - stored['ways']
    square = error.square().sum(1)
    near = square <= DELTA**2
    length = torch.where(near, DELTA**2, square).sqrt()
    huber = torch.where(near, square / 2, DELTA * (length - DELTA / 2))
    parts = (
      of(fine[:, :num], stored['labelled']),
      (huber * stored['inside']).sum(),
      of(half, stored['allowed']),
    )
    total = sum(weight * part for weight, part in zip(WEIGHTS, parts))
    return total / (options.batch * size[0] * size[1])

  return loss_fn


def make_torch(options: Options) -> Step:
  """timm's ResNet with two 1x1 convolutions, channels_last, own weights."""
  import torch

  from tests.peers import timm_peer

  device = 'cuda' if options.device == 'gpu' else 'cpu'
  backbone: Any = timm_peer.build(options.depth, output_stride=STRIDE)
  backbone.eval()  # batch norm as the checkpoint has it
  for name, value in backbone.named_parameters():
    value.requires_grad_(value.ndim == 4 and not name.startswith('fc'))
  heads: Any = torch.nn.ModuleList(
    [
      torch.nn.Conv2d(2048, 3 * options.keypoints, 1),
      torch.nn.Conv2d(1024, options.keypoints, 1),
    ]
  )
  for head in heads:
    torch.nn.init.trunc_normal_(head.weight, std=0.01)
    torch.nn.init.zeros_(head.bias)
  net: Any = torch.nn.ModuleList([backbone, heads])
  net = net.to(device, memory_format=torch.channels_last)
  middle: list[Any] = []
  backbone.layer3[UNITS[options.depth] - 1].register_forward_hook(
    lambda module, args, output: middle.append(output)
  )
  optimizer = torch.optim.SGD(
    [value for value in net.parameters() if value.requires_grad],
    lr=LEARNING_RATE,
    momentum=MOMENTUM,
  )
  image = torch.from_numpy(make_data(options)['image']).to(device)
  image = image.permute(0, 3, 1, 2).float() / 127.5 - 1
  loss_fn = _torch_loss(options, device)
  half = options.dtype == 'bfloat16'
  if device == 'cuda':  # the same precision as jax's default on this device
    torch.set_float32_matmul_precision('high')
    torch.backends.cudnn.benchmark = True

  def run() -> float:
    optimizer.zero_grad(set_to_none=True)
    middle.clear()
    with torch.autocast(device, torch.bfloat16, enabled=half):
      maps = heads[0](backbone.forward_features(image))
      early = heads[1](middle[0])
    loss = loss_fn(maps, early)
    loss.backward()
    optimizer.step()
    value = loss.item()
    if device == 'cuda':
      torch.cuda.synchronize()
    return value

  return run


CONTESTANTS: dict[str, Callable[[Options], Step]] = {
  'ours': make_ours,
  'torch': make_torch,
}


def make_check(options: Options) -> Step:
  """Raises AssertionError where the two losses of the same maps differ.

  Returns a step that gives their relative difference.
  """
  import jax
  import torch

  from big_vision_like.losses import pose as losses
  from big_vision_like.ops import interpolation
  from big_vision_like.ops.keypoints import discs, maps

  rng, num = np.random.default_rng(1), options.keypoints
  grid = [(n - 1) // STRIDE + 1 for n in (options.height, options.width)]
  shape = options.batch, *grid
  both = [
    rng.normal(0, 3, (*shape, n)).astype(np.float32) for n in (3 * num, num)
  ]
  data = make_data(options)

  def ours(found, half):
    size = options.height, options.width
    on: Any = dict(shape=size, stride=1, radius=RADIUS)
    targets = discs.targets(data['person_keypoints'], **on)
    others = discs.of_others(data['other_keypoints'], **on)
    logits, offsets = maps.split(interpolation.to_pixels(found, *size))
    half = interpolation.to_pixels(half, *size)
    parts = (
      losses.of_heatmaps(logits, targets),
      losses.of_offsets(offsets, targets, delta=DELTA),
      losses.of_heatmaps(half, targets, excluded=others),
    )
    return sum(w * part.mean() for w, part in zip(WEIGHTS, parts))

  mine = float(jax.jit(ours)(*both))
  given = (torch.from_numpy(np.moveaxis(x, -1, 1).copy()) for x in both)
  theirs = float(_torch_loss(options, 'cpu')(*given))
  difference = abs(mine - theirs) / abs(theirs)
  assert difference < 1e-4, (mine, theirs)
  return lambda: difference
