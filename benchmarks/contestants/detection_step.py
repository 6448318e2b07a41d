"""The train steps that benchmarks/detection_step.py compares, and their parts.

Both nets are Faster R-CNN on blocks 1 to 3 of a ResNet-50: 12 anchors a place,
a head of 512 channels, 300 proposals, as many boxes of an image in the losses,
crops of 7x7 from four samples a cell, block4 at stride 1 on them, two dense
layers. Batch norm is frozen and all convolutions are trained, by momentum. Each
`make_*` returns a function that runs once and waits for a number.
"""

import functools
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from input_pipeline.labels.space import LabelSpace

BOXES = 12  # of an image
LEARNING_RATE, MOMENTUM = 1e-4, 0.9
FROZEN = r'backbone/(.*/)?(shortcut_)?bn\d*/.*'
SCALES, RATIOS = (0.25, 0.5, 1.0, 2.0), (0.5, 1.0, 2.0)
BASE, STRIDE, RPN_CHANNELS, PROPOSALS = 256.0, 16, 512, 300
SAMPLES = {'paper': (64, 256), 'tfod': (256, 64)}
# Of torchvision; ours sorts all anchors.
THEIR_CUT = 2000
Step = Callable[[], float]


class Options(NamedTuple):
  """What a step is asked to do."""

  depth: int
  height: int
  width: int
  batch: int
  classes: int
  preset: str
  dtype: str  # of ours


def make_data(options: Options) -> dict[str, np.ndarray]:
  """uint8 images of noise, and boxes of 32 pixels to half of the image."""
  rng = np.random.default_rng(0)
  extent = np.array([options.height, options.width])
  side = np.exp(
    rng.uniform(np.log(32), np.log(extent / 2), (options.batch, BOXES, 2))
  )
  corner = rng.uniform(0, extent - side)
  return {
    'image': rng.integers(0, 256, (options.batch, *extent, 3), np.uint8),
    'boxes': np.concatenate([corner, corner + side], 2).astype(np.float32),
    'labels': rng.integers(0, options.classes, (options.batch, BOXES)),
  }


def _task(options: Options) -> Any:
  from big_vision_like.models import resnet
  from big_vision_like.tasks import detection

  backbone = resnet.Model(
    depth=options.depth,
    compute_dtype=options.dtype,
    output_stride=STRIDE,
    bn='frozen',
    stride_in='first_unit_3x3',
    pool_padding='symmetric',
  )
  return detection.Task(
    backbone,
    LabelSpace.of_count(options.classes),
    preset=options.preset,
    anchor_base=BASE,
    anchor_scales=SCALES,
    anchor_ratios=RATIOS,
    prune_anchors=False,
    num_proposals=PROPOSALS,
    rpn_channels=RPN_CHANNELS,
    crowd='as_box',
  )


def _batch(options: Options) -> dict[str, Any]:
  import jax.numpy as jnp

  data = make_data(options)
  size = np.array([[options.height, options.width]], np.int32)
  sizes = np.repeat(size, options.batch, axis=0)
  return {
    'image': jnp.asarray(data['image']),
    'image_size': jnp.asarray(sizes),
    'original_size': jnp.asarray(sizes),
    'boxes': jnp.asarray(data['boxes']),
    'box_labels': jnp.asarray(data['labels'].astype(np.int32)),
    'box_mask': jnp.ones((options.batch, BOXES), bool),
    '_mask': jnp.ones(options.batch, bool),
  }


def _state(options: Options) -> tuple[Any, Any, Any, Any]:
  """(task, optimiser, state, batch), the same in every process."""
  import jax

  from benchmarks.contestants import train_step
  from big_vision_like.training import optim

  task, batch = _task(options), _batch(options)
  params, extra = jax.jit(task.init)(jax.random.key(0), batch)
  params = train_step.with_small_scales(params)
  config = {'type': 'momentum', 'momentum': MOMENTUM, 'freeze': [FROZEN]}
  tx = optim.build(config, lambda count: LEARNING_RATE, params)
  return task, tx, train_step.first_state(params, extra, tx), batch


def make_ours(options: Options) -> Step:
  """The project's own task, optimiser and train step, as a run has them."""
  from benchmarks.contestants.train_step import our_step

  return our_step(*_state(options))


def make_our_inference(options: Options) -> Step:
  """Images to detections: 300 proposals, suppression in every class."""
  import jax

  task, _, state, batch = _state(options)
  run = jax.jit(task.predictions['detections'].fn)
  return lambda: float(jax.block_until_ready(run(state, batch))['mask'].sum())


def _first_stage(options: Options) -> tuple[Any, Any, Any, Any, Any]:
  """(task, batch, anchors, codes, logits) of a step's first stage."""
  import jax

  task, _, state, batch = _state(options)
  features, codes, logits, _ = jax.jit(task._first, static_argnums=4)(
    state.params, state.extra, batch, None, False
  )
  return task, batch, task._anchors(batch, features), codes, logits


def _propose(task: Any, grid: Any, codes: Any, logits: Any, size: Any) -> Any:
  from big_vision_like.ops.boxes import proposals

  return proposals.propose(
    codes, logits, grid, size, train=True, prune=task._prune, **task._propose
  )


def make_our_proposals(options: Options) -> Step:
  """Decoding and suppression of all anchors, on the step's own outputs."""
  import jax

  task, batch, grid, codes, logits = _first_stage(options)
  run = jax.jit(functools.partial(_propose, task, grid))
  args = codes, logits, batch['image_size']
  return lambda: float(jax.block_until_ready(run(*args)).mask.sum())


def make_our_targets(options: Options) -> Step:
  """Assignment and sampling of both stages; the number of positive boxes."""
  import jax

  task, batch, grid, codes, logits = _first_stage(options)
  found = jax.jit(functools.partial(_propose, task, grid))(
    codes, logits, batch['image_size']
  )
  keys = jax.random.split(jax.random.key(2), options.batch)

  def both(batch: Any, found: Any) -> Any:
    truth = task._truth(batch)
    anchors = jax.vmap(lambda *image: task._anchor_targets(grid, *image))(
      keys, batch['image_size'], truth
    )
    return anchors, jax.vmap(task._box_targets)(keys, found, truth)

  run = jax.jit(both)
  return lambda: float(
    jax.block_until_ready(run(batch, found))[1].positive.sum()
  )


def _their_net(options: Options) -> Any:
  """torchvision's FasterRCNN around its ResNet, of the same shapes as ours."""
  import torch

  from tests.peers import torchvision_peer

  if not torchvision_peer.compiled_operators():
    raise ValueError("torchvision's compiled operators do not load here")
  from torchvision.models import resnet
  from torchvision.models.detection import FasterRCNN
  from torchvision.models.detection.anchor_utils import AnchorGenerator
  from torchvision.models.detection.faster_rcnn import FastRCNNPredictor
  from torchvision.ops import FrozenBatchNorm2d, MultiScaleRoIAlign

  units = {14: (1, 1, 1, 1), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}
  net = resnet.ResNet(
    resnet.Bottleneck,
    list(units[options.depth]),
    norm_layer=FrozenBatchNorm2d,
  )
  for block in net.modules():
    if isinstance(block, resnet.Bottleneck):
      block.bn3.weight.mul_(0.2)
  # Stride 1, as the other net has it.
  for conv in (net.layer4[0].conv2, net.layer4[0].downsample[0]):
    conv.stride = (1, 1)

  class Backbone(torch.nn.Sequential):
    out_channels = 1024

  class ProposalHead(torch.nn.Module):
    def __init__(self, anchors: int):
      super().__init__()
      self.conv = torch.nn.Conv2d(1024, RPN_CHANNELS, 3, padding=1)
      self.classes = torch.nn.Conv2d(RPN_CHANNELS, anchors, 1)
      self.codes = torch.nn.Conv2d(RPN_CHANNELS, 4 * anchors, 1)

    def forward(self, features):
      hidden = [torch.relu(self.conv(x)) for x in features]
      return [self.classes(x) for x in hidden], [self.codes(x) for x in hidden]

  class BoxHead(torch.nn.Module):
    def __init__(self):
      super().__init__()
      self.layer4 = net.layer4

    def forward(self, crops):
      return self.layer4(crops).mean((2, 3))

  sides = tuple(int(BASE * scale) for scale in SCALES)
  anchors, boxes = SAMPLES[options.preset]
  return FasterRCNN(
    Backbone(
      net.conv1, net.bn1, net.relu, net.maxpool,
      net.layer1, net.layer2, net.layer3,
    ),
    min_size=min(options.height, options.width),
    max_size=max(options.height, options.width),
    image_mean=[0.5] * 3,
    image_std=[0.5] * 3,
    size_divisible=1,
    rpn_anchor_generator=AnchorGenerator((sides,), (RATIOS,)),
    rpn_head=ProposalHead(len(sides) * len(RATIOS)),
    rpn_pre_nms_top_n_train=THEIR_CUT,
    rpn_pre_nms_top_n_test=THEIR_CUT,
    rpn_post_nms_top_n_train=PROPOSALS,
    rpn_post_nms_top_n_test=PROPOSALS,
    rpn_batch_size_per_image=anchors,
    box_batch_size_per_image=boxes,
    box_roi_pool=MultiScaleRoIAlign(['0'], 7, 2),
    box_head=BoxHead(),
    box_predictor=FastRCNNPredictor(2048, options.classes + 1),
    box_score_thresh=0.0,
    box_nms_thresh=0.6,
    box_detections_per_img=300,
  )  # fmt: skip


def _their_batch(options: Options) -> tuple[list[Any], list[Any]]:
  import torch

  data = make_data(options)
  images = torch.from_numpy(data['image']).permute(0, 3, 1, 2).float() / 255
  boxes = torch.from_numpy(data['boxes'][..., [1, 0, 3, 2]].copy())
  labels = torch.from_numpy(data['labels'] + 1)
  truth = [dict(boxes=b, labels=n) for b, n in zip(boxes, labels)]
  return [*images], truth


def make_torchvision(options: Options) -> Step:
  """Forward, backward and update; channels last where that helps."""
  import torch

  net = _their_net(options).to(memory_format=torch.channels_last).train()
  images, truth = _their_batch(options)
  optimizer = torch.optim.SGD(
    net.parameters(), lr=LEARNING_RATE, momentum=MOMENTUM
  )
  counted: list[int] = []
  net.roi_heads.box_head.register_forward_pre_hook(
    lambda module, args: counted.append(len(args[0]))
  )

  def run() -> float:
    optimizer.zero_grad(set_to_none=True)
    loss = sum(net(images, truth).values())
    loss.backward()
    optimizer.step()
    return float(loss.detach())

  run()
  wanted = SAMPLES[options.preset][1] * options.batch
  if counted[0] != wanted:
    said = f'torchvision: {counted[0]} RoIs, ours has {wanted} places'
    print(said, file=sys.stderr)
  return run


def make_their_inference(options: Options) -> Step:
  """Images to detections."""
  import torch

  net = _their_net(options).to(memory_format=torch.channels_last).eval()
  images, _ = _their_batch(options)

  def run() -> float:
    with torch.inference_mode():
      return float(sum(len(found['scores']) for found in net(images)))

  return run


CONTESTANTS: dict[str, Callable[[Options], Step]] = {
  'ours': make_ours,
  'torchvision': make_torchvision,
  'ours-inference': make_our_inference,
  'torchvision-inference': make_their_inference,
  'ours-proposals': make_our_proposals,
  'ours-targets': make_our_targets,
}
